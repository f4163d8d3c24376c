"""Which edits of a run's model are there, what did each change, and what do they write? Reads `edit` and its captions.

An edit is a file (`edits/<edit_id>.safetensors` in the cache) and these rows; a model on disk is never written.
"""

from __future__ import annotations

import json
from typing import Final

import pandas as pd

from mmn.core import Neuron
from mmn.store.reader import Reader

ROLES: Final = ("edited", "other", "unrelated")  # the edit was made on it; of the same noun; without the noun

_EDITS: Final = """
    SELECT edit.* EXCLUDE (run_id), coalesce(n_edited, 0) AS n_edited, coalesce(n_other, 0) AS n_other,
        coalesce(n_unrelated, 0) AS n_unrelated, texts.* EXCLUDE (edit_id)
    FROM edit LEFT JOIN (
        SELECT edit_id, count(*) FILTER (role = 'edited') AS n_edited, count(*) FILTER (role = 'other') AS n_other,
            count(*) FILTER (role = 'unrelated') AS n_unrelated
        FROM edited_caption WHERE run_id = $run_id GROUP BY edit_id
    ) USING (edit_id)
    LEFT JOIN (
        SELECT edit_id, max(exp(nats_before)) FILTER (text = 'plain') AS plain_before,
            max(exp(nats_after)) FILTER (text = 'plain') AS plain_after,
            max(exp(nats_before)) FILTER (text = 'captions') AS captions_before,
            max(exp(nats_after)) FILTER (text = 'captions') AS captions_after
        FROM edited_text WHERE run_id = $run_id GROUP BY edit_id
    ) AS texts USING (edit_id)
    WHERE run_id = $run_id ORDER BY noun, target, created_at, edit_id
"""

_CAPTIONS: Final = """
    SELECT edit_id, image_id, role, source, text_before, text_after, prob_before, prob_after, is_as_wished,
        text_before != text_after AS is_changed
    FROM edited_caption LEFT JOIN (SELECT image_id, source FROM image WHERE run_id = $run_id) USING (image_id)
    WHERE run_id = $run_id AND edit_id IN (SELECT unnest($edit_ids))
    ORDER BY edit_id, list_position($roles, role), source, image_id
"""


class EditQueries(Reader):
    """Questions about edits."""

    def edits(self, run_id: str) -> pd.DataFrame:
        """Returns one row per edit, by noun, target and age.

        Columns: those of `edit` without run_id; `units` as a list of `Neuron`, `settings` as a dict; n_edited,
        n_other and n_unrelated, the pictures that each share is of; plain_before, plain_after, captions_before and
        captions_after, the perplexity of text, NaN where it was not measured.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            found = cursor.sql(_EDITS, params={"run_id": run["run_id"]}).df()
        found["units"] = [
            [Neuron(int(layer), int(unit)) for layer, unit in json.loads(text)] for text in found["units"]
        ]
        found["settings"] = [json.loads(text) for text in found["settings"]]
        return found

    def captions(self, run_id: str, *edit_ids: str) -> pd.DataFrame:
        """Returns the captions before and after some edits, by role and source.

        Columns: edit_id, image_id, role, source, text_before, text_after, prob_before, prob_after, is_as_wished,
        is_changed.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            values = {"run_id": run["run_id"], "edit_ids": list(edit_ids), "roles": list(ROLES)}
            return cursor.sql(_CAPTIONS, params=values).df()

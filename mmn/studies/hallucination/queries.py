"""How sure a run's image tokens are of objects, what is known to be there, and captions without an object: the SQL."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from mmn.reading.synonyms import NO_SYNONYMS, Synonyms
from mmn.store.reader import Reader
from mmn.studies.hallucination.judging import Judge, Known

_CONFIDENCES: Final = """
    WITH said AS (
        SELECT image_id, lemma AS object, max(noun) AS noun, max(prob) AS prob,
            bool_or(coalesce(is_compound, false)) AS is_compound
        FROM concept WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL GROUP BY image_id, lemma
    )
    SELECT image_id, object, readout, confidence::DOUBLE AS confidence, layer::INTEGER AS layer, token_position,
        noun, prob, noun IS NOT NULL AS is_said, coalesce(is_compound, false) AS is_compound
    FROM confidence LEFT JOIN said USING (image_id, object)
    WHERE run_id = $run_id ORDER BY image_id, readout, object
"""

_TRUTH: Final = """
    SELECT image_id, outlined, mentioned, outlinable, synonyms FROM object_truth WHERE run_id = $run_id
    QUALIFY revision = max(revision) OVER (PARTITION BY image_id) ORDER BY image_id
"""

_SYNONYMS: Final = "SELECT number, word, object FROM synonym WHERE run_id = $run_id"

_FITS: Final = """
    SELECT image_id, object, readout, iou, iou_other, iou_best, precision, precision_other, precision_chance
    FROM object_map WHERE run_id = $run_id
    QUALIFY revision = max(revision) OVER (PARTITION BY image_id) AND iou IS NOT NULL
    ORDER BY image_id, readout, object
"""

_MAP: Final = """
    SELECT scores FROM object_map
    WHERE run_id = $run_id AND image_id = $image_id AND object = $object AND readout = $readout
    ORDER BY revision DESC LIMIT 1
"""

_MAPPED: Final = """
    SELECT DISTINCT object FROM object_map
    WHERE run_id = $run_id AND image_id = $image_id AND readout = $readout AND len(scores) > 0
"""

_EDITS: Final = """
    SELECT image_id, removed, direction, alpha, text_layer::INTEGER AS text_layer, image_layer::INTEGER AS image_layer,
        caption, nouns, compounds
    FROM projected_away WHERE run_id = $run_id
    QUALIFY revision = max(revision) OVER (PARTITION BY image_id, alpha, text_layer, image_layer)
    ORDER BY alpha, text_layer, image_layer, image_id, removed, direction
"""

_BEFORE: Final = """
    SELECT image_id, list(lemma ORDER BY position) AS nouns,
        coalesce(list(lemma) FILTER (is_compound), []) AS compounds, any_value(text) AS text
    FROM concept JOIN caption USING (run_id, image_id, variant)
    WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL GROUP BY image_id
"""


class HallucinationQueries(Reader):
    """Questions about what a run's image tokens are sure of."""

    def confidences(self, run_id: str) -> pd.DataFrame:
        """Returns the confidence in each object of each picture that was read.

        Columns: image_id, object, readout, confidence, layer (empty before the first), token_position; and of objects
        that the caption names noun, prob (of its token where it is said) and is_compound; is_said.

        Raises:
            RunNotFoundError: no such run.
        """
        return self._asked_once(("confidences", run_id), lambda: self._asked(run_id, _CONFIDENCES))

    def judge(self, run_id: str) -> Judge:
        """Returns who judges what is there, by the latest masks, references and synonyms that were read.

        Raises:
            RunNotFoundError: no such run.
        """
        lists = self._synonyms(run_id)
        known = {}
        for row in self._asked_once(("truth", run_id), lambda: self._asked(run_id, _TRUTH)).to_dict("records"):
            outlined, mentioned, outlinable = (_names(row[name]) for name in ("outlined", "mentioned", "outlinable"))
            number = row["synonyms"]
            synonyms = NO_SYNONYMS if pd.isna(number) else lists.get(int(number), NO_SYNONYMS)
            known[row["image_id"]] = Known(outlined, mentioned, outlinable, synonyms)
        return Judge.of(known)

    def _synonyms(self, run_id: str) -> dict[int, Synonyms]:
        """The lists that the run holds, by number; none of those without a word."""
        rows = self._asked_once(("synonyms", run_id), lambda: self._asked(run_id, _SYNONYMS))
        return {
            int(number): Synonyms(dict(zip(some["word"], some["object"], strict=True)))
            for number, some in rows.groupby("number")
        }

    def fits(self, run_id: str) -> pd.DataFrame:
        """Returns how each map fits its object's outline, by the latest masks: the columns of `object_map`.

        Raises:
            RunNotFoundError: no such run.
        """
        return self._asked(run_id, _FITS)

    def mapped(self, run_id: str, image_id: str, readout: str) -> set[str]:
        """Returns the objects of which a picture has a map.

        Raises:
            RunNotFoundError: no such run.
        """
        return set(self._asked(run_id, _MAPPED, image_id=image_id, readout=readout)["object"])

    def object_map(self, run_id: str, image_id: str, name: str, readout: str) -> list[float]:
        """Returns an object's confidence at each image token of a picture; [] where its map was not kept.

        Raises:
            RunNotFoundError: no such run.
        """
        rows = self._asked(run_id, _MAP, image_id=image_id, object=name, readout=readout)
        return list(map(float, rows["scores"].iloc[0])) if len(rows) else []

    def edits(self, run_id: str) -> pd.DataFrame:
        """Returns the captions after an object was projected out, by each picture's latest revision: the columns of
        `projected_away`.

        Raises:
            RunNotFoundError: no such run.
        """
        return self._asked(run_id, _EDITS)

    def nouns_before(self, run_id: str) -> pd.DataFrame:
        """Returns image_id, nouns and compounds (lemmas, lists) and text of the captions as they were scored.

        Raises:
            RunNotFoundError: no such run.
        """
        return self._asked(run_id, _BEFORE)

    def _asked(self, run_id: str, question: str, **more: Any) -> pd.DataFrame:
        with self._of_run(run_id) as (cursor, run):
            return cursor.sql(question, params={"run_id": run["run_id"], **more}).df()


def _names(found: Any) -> frozenset[str] | None:
    """A list of names as the database hands it out; None where there is none."""
    return frozenset(map(str, found)) if isinstance(found, list | np.ndarray) else None

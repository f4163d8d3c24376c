"""Every noun of a run with what leads it: what a report lists below each picture."""

from __future__ import annotations

from typing import Final

import pandas as pd

from mmn.store.reader import Reader

_NOUNS: Final = """
    WITH said AS (
        SELECT image_id, noun, position, prob FROM concept
        WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL
    ),
    grey AS (SELECT image_id, noun, prob AS grey_prob FROM concept WHERE run_id = $run_id AND variant = 'blank'),
    first AS (
        SELECT image_id, noun, layer, unit, score FROM score
        WHERE run_id = $run_id AND variant = 'original' AND method = $method AND rank = 1
    ),
    grey_first AS (
        SELECT image_id, noun, layer, unit, score AS grey_score FROM score
        WHERE run_id = $run_id AND variant = 'blank' AND method = $method
    ),
    words AS (SELECT layer, unit, tokens FROM neuron WHERE model_fingerprint = $fingerprint)
    SELECT image_id, noun, prob, grey_prob, layer, unit, score, grey_score, tokens
    FROM said LEFT JOIN grey USING (image_id, noun) LEFT JOIN first USING (image_id, noun)
        LEFT JOIN grey_first USING (image_id, noun, layer, unit) LEFT JOIN words USING (layer, unit)
    ORDER BY image_id, position, noun
"""


class DigestQueries(Reader):
    """What is told of every picture at once."""

    def nouns(self, run_id: str, method: str) -> pd.DataFrame:
        """Returns a row for each noun of each caption, in its order.

        Columns: image_id, noun, prob, grey_prob (under the grey picture, where that was scored), then its first unit
        by the method: layer, unit, score, grey_score (the unit's over the grey picture), tokens (NaN without).

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            values = {"run_id": run["run_id"], "method": method, "fingerprint": run["model_fingerprint"]}
            return cursor.sql(_NOUNS, params=values).df()

"""Questions about modules that were read alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from mmn.store.cells import distinct
from mmn.store.reader import Reader

_MODULES: Final = """
    WITH budgets AS (
        SELECT image_id, noun, term AS part, layer, logit AS share FROM budget
        WHERE run_id = $run_id AND variant = 'original'
    ),
    said AS (
        SELECT image_id, noun, logit FROM concept
        WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL
            AND (len($lemmas) = 0 OR lemma IN (SELECT unnest($lemmas)))
    )
    SELECT image_id, noun, is_control, layer, part, value, prob, said.logit, budgets.share
    FROM module JOIN said USING (image_id, noun) LEFT JOIN budgets USING (image_id, noun, layer, part)
    WHERE run_id = $run_id ORDER BY image_id, noun, is_control, layer, part
"""


class ModuleQueries(Reader):
    """Questions about modules that were read alone."""

    def modules(self, run_id: str, lemmas: Sequence[str] = ()) -> pd.DataFrame:
        """Returns a row for each noun, module and word: image_id, noun, is_control, layer, part, value, prob, logit (of
        the noun) and share (the module's term in the noun's budget, in logits; NaN where none was kept).

        Args:
            run_id: of one run.
            lemmas: only these nouns; all if empty.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            asked: dict[str, Any] = {"run_id": run["run_id"], "lemmas": distinct(lemmas)}
            return cursor.sql(_MODULES, params=asked).df()

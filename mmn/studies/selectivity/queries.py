"""Are units of a class of pictures active in pictures of that class alone? P1 figure S.2 (arXiv 2308.01544)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pandas as pd

from mmn.errors import UsageError
from mmn.names import SET
from mmn.statistics.many_tests import marked, swapped_labels
from mmn.store.cells import distinct
from mmn.store.reader import Reader

_METHODS: Final = "SELECT DISTINCT method FROM selectivity WHERE run_id = $run_id"

_CLASSES: Final = """
    WITH found AS (
        SELECT * FROM selectivity WHERE run_id = $run_id AND method = $method
        QUALIFY (n_units, held_out) = max((n_units, held_out)) OVER ()
    ),
    said AS (
        SELECT lemma, count(DISTINCT image_id) AS n FROM concept
        WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL GROUP BY lemma
    ),
    classes AS (
        SELECT lemma, row_number() OVER (ORDER BY lemma IN (SELECT unnest($lemmas)) DESC, n DESC, lemma) AS number
        FROM said SEMI JOIN found ON found.noun = lemma QUALIFY number <= $most
    )
    SELECT unit_noun, noun, is_control, value, share, n_units, n_images
    FROM found LEFT JOIN classes AS of_units ON of_units.lemma = unit_noun JOIN classes AS images ON images.lemma = noun
    WHERE (len($lemmas) = 0 OR unit_noun IN (SELECT unnest($lemmas))) AND (of_units.lemma IS NOT NULL OR $is_set)
    ORDER BY is_control, of_units.number, images.number
"""

_ACTIVATIONS: Final = """
    SELECT unit_noun, is_control, image_id, is_own, value FROM class_activation
    WHERE run_id = $run_id AND method = $method
    QUALIFY (n_units, held_out) = max((n_units, held_out)) OVER ()
"""


class SelectivityQueries(Reader):
    """Questions about units of classes of pictures."""

    def methods(self, run_id: str) -> list[str]:
        """Returns the rankings whose classes of units were measured; empty without any.

        Raises:
            RunNotFoundError: no such run.
        """
        return self._methods(_METHODS, run_id)

    def by_class(self, run_id: str, method: str, most: int = 20, lemmas: Sequence[str] = ()) -> pd.DataFrame:
        """Returns how active each class's units are in held-out pictures of every class, with the control's rows.

        Columns: unit_noun, noun, is_control, value, share, n_units, n_images; the classes of the `most` frequent
        lemmas, most frequent first. Of several settings the one with the most units, then the most held-out pictures.
        Where a class's units meet its own pictures, `p` is of the difference to their control there, picture by picture
        and both as shares of their largest class, against the same difference on pictures without the noun
        (`many_tests.swapped_labels`); `is_discovery` whether it survives among the classes shown.

        Args:
            run_id: of one run.
            method: the ranking that found the units.
            most: how many classes.
            lemmas: only these classes' units; all if empty.

        Raises:
            RunNotFoundError: no such run.
            UsageError: nothing of that kind was measured.
        """
        with self._of_run(run_id) as (cursor, run):
            asked = {"run_id": run["run_id"], "method": method, "lemmas": distinct(lemmas), "most": most}
            found = cursor.sql(_CLASSES, params=asked | {"is_set": method.startswith(SET)}).df()
            values = {name: asked[name] for name in ("run_id", "method")}
            pictures = cursor.sql(_ACTIVATIONS, params=values).df()
        if found.empty:
            raise UsageError(
                f"run {run['run_id']} has no selectivity of {', '.join(lemmas) or 'any class'} by {method}: "
                f"measure it with mmn specificity {run['run_id']}, or choose other filters"
            )
        return _tested(found, pictures)


def _tested(found: pd.DataFrame, pictures: pd.DataFrame) -> pd.DataFrame:
    """`found` with the test of each class whose activations are known picture by picture."""
    largest = found.groupby(["unit_noun", "is_control"])["value"].max()
    tests: dict[str, float] = {}
    for lemma, of in pictures[pictures["unit_noun"].isin(found["unit_noun"])].groupby("unit_noun"):
        sides = of.pivot(index=["image_id", "is_own"], columns="is_control", values="value")
        scales = [float(largest.get((lemma, is_control), 0.0)) for is_control in (False, True)]
        if set(sides.columns) == {False, True} and min(scales) > 0:
            difference = sides[False] / scales[0] - sides[True] / scales[1]
            is_own = difference.index.get_level_values("is_own").to_numpy(dtype=bool)
            tests[str(lemma)] = swapped_labels(difference.to_numpy(dtype=float), is_own)
    is_tested = (found["unit_noun"] == found["noun"]) & ~found["is_control"]
    return marked(found, found["unit_noun"].map(tests).where(is_tested).to_numpy(dtype=float))

"""Do a noun's top units write words that fit the picture? P1 table 1 (arXiv 2308.01544): method × metric, with the
shuffled pairing of pictures and units as control. Means over concepts, then pictures; intervals are by picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import duckdb
import pandas as pd

from mmn.errors import UsageError
from mmn.statistics.intervals import ANYWHERE, draw_intervals
from mmn.statistics.many_tests import marked, sign_flip
from mmn.store.cells import NOUNS, Chosen, by_picture, distinct, in_order, led_by, values_by_picture, with_intervals
from mmn.store.reader import Reader

_VALUES: Final = ("value", "control", "control_blank", "difference")

_MEASURED: Final = """
    SELECT DISTINCT method, metric FROM sensitivity WHERE run_id = $run_id ORDER BY ALL
"""

_SENSITIVITY: Final = f"""
    WITH {NOUNS}
    SELECT place, (list_position($methods, method) - 1) * len($metrics) + list_position($metrics, metric) - 1 AS cell,
        avg(value) AS value, avg(control) AS control, avg(value - control) AS difference,
        avg(control_blank) AS control_blank, count(*) AS n
    FROM sensitivity JOIN nouns USING (image_id, noun) JOIN pictures USING (image_id) {{led}}
    WHERE run_id = $run_id AND method IN (SELECT unnest($methods)) AND metric IN (SELECT unnest($metrics))
    GROUP BY ALL
"""  # noqa: S608 - no user's words


class SensitivityQueries(Reader):
    """Questions about units' words."""

    def measured(self, run_id: str) -> tuple[list[str], list[str]]:
        """Returns the methods and the metrics of a run that were measured; empty without any.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            found = cursor.execute(_MEASURED, {"run_id": run["run_id"]}).fetchall()
        return in_order(method for method, _ in found), sorted({metric for _, metric in found})

    def summary(
        self,
        run_id: str,
        methods: Sequence[str],
        metrics: Sequence[str],
        lemmas: Sequence[str] = (),
        layers: tuple[int, int] | None = None,
    ) -> pd.DataFrame:
        """Returns the mean of each measure for each method's top units, a row for each method and metric.

        Columns: method, metric, then value, control (words of another picture's units), control_blank (words of
        the units that the noun has over a grey picture; NaN where none was scored) and difference (value −
        control, pair by pair) with `_low` and `_high`, n_images, n (concepts); `p` of no difference, by picture
        (`many_tests.sign_flip`), and `is_discovery`, whether it survives among all rows.

        Args:
            run_id: of one run.
            methods: rankings.
            metrics: measures.
            lemmas: only these nouns; all if empty.
            layers: only nouns whose first unit by the method lies in these, first and last.

        Raises:
            RunNotFoundError: no such run.
            UsageError: nothing of that kind was measured; layers that the model does not have.
        """
        with self._of_run(run_id) as (cursor, run):
            rows = _rows(cursor, run, Chosen(methods, lemmas, layers), metrics)
        cells = _cells(methods, metrics)
        array = by_picture(rows, _VALUES, len(cells))
        found = with_intervals(cells, _VALUES, array, draw_intervals, {"difference": ANYWHERE})
        found["n"] = rows.groupby("cell")["n"].sum().reindex(range(len(cells)), fill_value=0).to_numpy()
        difference = array[:, -len(cells) :, 0].T
        found = found.assign(p=[sign_flip(of) for of in difference])
        found = found[found["n_images"] > 0].reset_index(drop=True)
        return marked(found, found["p"].to_numpy(dtype=float))

    def by_picture(
        self,
        run_id: str,
        methods: Sequence[str],
        metrics: Sequence[str],
        lemmas: Sequence[str] = (),
        layers: tuple[int, int] | None = None,
    ) -> pd.DataFrame:
        """Returns each picture's `value` behind `summary`: image_id, method, metric, value (raises as that does)."""
        asked = {"lemmas": distinct(lemmas)}
        with self._of_run(run_id) as (cursor, run):
            rows = _rows(cursor, run, Chosen(methods, lemmas, layers), metrics)
            return values_by_picture(cursor, rows, _cells(methods, metrics), "value", asked | {"run_id": run["run_id"]})


def _rows(
    cursor: duckdb.DuckDBPyConnection,
    run: dict[str, Any],
    chosen: Chosen,
    metrics: Sequence[str],
) -> pd.DataFrame:
    """The values of numbered pictures and cells."""
    led, values = led_by(run, chosen.layers)
    asked = {"methods": distinct(chosen.methods), "metrics": distinct(metrics), "lemmas": distinct(chosen.lemmas)}
    rows = cursor.sql(_SENSITIVITY.format(led=led), params=asked | values | {"run_id": run["run_id"]}).df()
    if rows.empty:
        raise UsageError(
            f"run {run['run_id']} has no sensitivity of {', '.join(chosen.methods) or 'any method'} by "
            f"{', '.join(metrics) or 'any metric'}{chosen.words}: "
            f"measure it with mmn sensitivity {run['run_id']}, or choose other filters"
        )
    return rows


def _cells(methods: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """A row for each method and metric, as the question numbers them."""
    pairs = [(method, metric) for method in distinct(methods) for metric in distinct(metrics)]
    return pd.DataFrame(pairs, columns=["method", "metric"])

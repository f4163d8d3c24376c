"""What the queries of studies share: the chosen nouns, and rows as arrays of pictures for intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import duckdb
import numpy as np
import pandas as pd
from jaxtyping import Float

from mmn.errors import UsageError
from mmn.names import METHODS
from mmn.statistics.intervals import SHARE, Intervals, Range

# The nouns of pictures' own captions (chosen words are left out), each with a number; and the pictures, numbered.
NOUNS: Final = """
    nouns AS (
        SELECT image_id, noun, lemma FROM concept
        WHERE run_id = $run_id AND variant = 'original' AND target_at IS NULL
            AND (len($lemmas) = 0 OR lemma IN (SELECT unnest($lemmas)))
    ),
    pictures AS (
        SELECT image_id, row_number() OVER (ORDER BY image_id) - 1 AS place FROM (SELECT DISTINCT image_id FROM nouns)
    )
"""

_PLACES: Final = f"WITH {NOUNS} SELECT image_id, place FROM pictures"  # noqa: S608 - no user's words

_LED: Final = """SEMI JOIN (
    SELECT image_id, noun, method FROM score
    WHERE run_id = $run_id AND variant = 'original' AND rank = 1 AND layer BETWEEN $first_layer AND $last_layer
) USING (image_id, noun, method)"""


@dataclass(frozen=True)
class Chosen:
    """What a question about nouns is asked of.

    Attributes:
        methods: rankings.
        lemmas: only these nouns; all if empty.
        layers: only nouns whose first unit lies in these, first and last; None for all.
    """

    methods: Sequence[str]
    lemmas: Sequence[str] = ()
    layers: tuple[int, int] | None = None

    @property
    def words(self) -> str:
        """The choice of nouns, as an error says it; "" for all."""
        of = f" for the nouns {', '.join(self.lemmas)}" if self.lemmas else ""
        return of + (f" led by layers {self.layers[0]} to {self.layers[1]}" if self.layers else "")


def in_order(methods: Iterable[str]) -> list[str]:
    """Methods in the order of `names.METHODS`, others after them."""
    order = list(METHODS)
    return sorted(set(methods), key=lambda one: (order.index(one) if one in order else len(order), one))


def distinct(values: Sequence[str]) -> list[str]:
    """The values without repeats, in their order."""
    return list(dict.fromkeys(values))


def led_by(run: Mapping[str, Any], layers: tuple[int, int] | None) -> tuple[str, dict[str, Any]]:
    """What a question about (image_id, noun, method) adds to keep the nouns whose first unit by the method lies in
    `layers` (first and last), and the values that it names; nothing for all layers.

    Raises:
        UsageError: layers that the model does not have.
    """
    if layers is None:
        return "", {}
    first, last = checked_layers(run, layers)
    return _LED, {"first_layer": first, "last_layer": last}


def checked_layers(run: Mapping[str, Any], layers: tuple[int, int] | None) -> tuple[int, int]:
    """`layers`, first and last; None for all of the model.

    Raises:
        UsageError: layers that the model does not have.
    """
    first, last = layers or (0, run["n_layers"] - 1)
    if not 0 <= first <= last < run["n_layers"]:
        raise UsageError(f"layers {first} … {last} are not in 0 … {run['n_layers'] - 1}, the layers of {run['model']}")
    return first, last


def values_by_picture(
    cursor: duckdb.DuckDBPyConnection, rows: pd.DataFrame, cells: pd.DataFrame, value: str, asked: Mapping[str, Any]
) -> pd.DataFrame:
    """The rows of a question about numbered pictures and cells, by their names: image_id, the columns of `cells`, and
    `value`, the mean over draws.

    Args:
        cursor: of the database.
        rows: place, cell, the column `value`.
        cells: a row for each number of a cell.
        value: the column's name.
        asked: what the question was asked with: run_id and lemmas.
    """
    ids = cursor.sql(_PLACES, params={"run_id": asked["run_id"], "lemmas": asked["lemmas"]}).df()
    means = rows.groupby(["place", "cell"], as_index=False)[value].mean()
    named = means.merge(ids, on="place").join(cells.reset_index(drop=True), on="cell")
    return named[["image_id", *cells.columns, value]].rename(columns={value: "value"})


def by_picture(rows: pd.DataFrame, values: Sequence[str], n_columns: int) -> Float[np.ndarray, "images columns draws"]:
    """One array per name in `values`, side by side: columns 0 … n_columns − 1 are the first one's.

    Args:
        rows: place (number of a picture), cell (0 … n_columns − 1), each of `values`, and `draw` where there are
            several draws; one row for each. What has no row is NaN.
        values: names of columns.
        n_columns: how many cells there are.
    """
    places, place = np.unique(rows["place"].to_numpy(dtype=int), return_inverse=True)
    draws, draw = np.unique(rows["draw"] if "draw" in rows else np.zeros(len(rows), dtype=int), return_inverse=True)
    cell = rows["cell"].to_numpy(dtype=int)
    found = np.full((len(places), n_columns * len(values), max(1, len(draws))), np.nan)
    for number, name in enumerate(values):
        found[place, number * n_columns + cell, draw] = rows[name].to_numpy(dtype=float)
    return found


def with_intervals(
    table: pd.DataFrame,
    values: Sequence[str],
    array: np.ndarray,
    interval: Callable[[np.ndarray, Range], Intervals],
    ranges: Mapping[str, Range] = MappingProxyType({}),
) -> pd.DataFrame:
    """`table`, one row per cell, with name, name_low and name_high for each of `values`, and n_images.

    A picture counts for a cell where it has the first value. `ranges` are what values cannot leave (see
    `intervals.mean_intervals`), `SHARE` unless said.
    """
    n = len(table)
    for number, name in enumerate(values):
        part = array[:, number * n : (number + 1) * n]
        found = interval(part, ranges.get(name, SHARE)) if len(array) else (np.full(n, np.nan),) * 3
        table = table.assign(**dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True)))
    is_there = ~np.isnan(array[:, :n])
    return table.assign(n_images=is_there.any(axis=tuple(range(2, array.ndim))).sum(0) if len(array) else 0)

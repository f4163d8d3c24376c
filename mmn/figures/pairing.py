"""How much more does a second run have, picture by picture? The difference on pictures that both runs hold. OURS.

A figure's mean is of each picture's value (`Pictures`, which `Figure.pictures` names). Where a picture is in both runs,
its two values differ by what the runs do, not by the picture: the mean of these differences has a narrower interval
than the two means apart, by picture as everywhere (`statistics.intervals`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pandas as pd

from mmn.errors import UsageError
from mmn.statistics.intervals import ANYWHERE, interval_table

DIFFERENCE: Final = "b_minus_a"  # a figure may have a difference of its own
ENDS: Final = (f"{DIFFERENCE}_low", f"{DIFFERENCE}_high")
N_SHARED: Final = "n_shared"
_NEAR: Final = 0.02  # of a share: k's that are rounded from the same one
_NO_VALUE: Final = -1.0  # of a number that a setting lacks: rows without one drop out of tables by picture


@dataclass(frozen=True)
class Series:
    """What a figure calls its lines or marks.

    Attributes:
        by: the columns whose values tell them apart.
        words: those values -> how they are called, in the order of the figure's legend; what has none is not drawn.
        colours: that -> its colour in the figure, where it has one there.
    """

    by: tuple[str, ...]
    words: Mapping[tuple[Any, ...], str]
    colours: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pictures:
    """Each picture's value of what a figure draws.

    Attributes:
        data: image_id, each of `by`, and value (already the mean over the picture's nouns and draws).
        by: columns that tell the figure's points apart; a pair has the same of both runs.
        along: the one of these that the difference is drawn against.
        what: the value is, as the title of an axis.
        form: how it is written, as `.3f`.
        series: how the figure calls what it draws; None where the columns' own values say it.
    """

    data: pd.DataFrame
    by: tuple[str, ...]
    along: str
    what: str
    form: str = ".3f"
    series: Series | None = None


@dataclass(frozen=True)
class Paired:
    """The second run's values less the first's: `rows` with `by`, `b_minus_a`, its ends, and n_shared (pictures)."""

    rows: pd.DataFrame
    by: tuple[str, ...]
    along: str
    what: str
    form: str
    series: Series | None = None

    def where(self, column: str, *values: Any) -> Paired:
        """The same of some rows."""
        if column not in self.rows:
            return self
        return replace(self, rows=self.rows[self.rows[column].isin(values)])


def paired(first: Pictures, second: Pictures, run: Mapping[str, Any], other: Mapping[str, Any]) -> Paired:
    """The mean difference over shared pictures of every point that both figures have, with its 95 % interval.

    Args:
        first: of the run `run`.
        second: of the run `other`; where that has another number of units, its k's are those of the first run that
            are the same share of all units.
        run: the first run's row.
        other: the second's.

    Raises:
        UsageError: no point is in both; layers of models that have not as many.
    """
    by = list(first.by)
    if "layer" in by and run["n_layers"] != other["n_layers"]:
        raise UsageError(f"layers of {run['n_layers']} and of {other['n_layers']} are not the same ones")
    sides = [one.data[["image_id", *by, "value"]].dropna(subset=["value"]) for one in (first, second)]
    sides[1] = _with_k_of(sides[0], sides[1], _n_units(run), _n_units(other))
    numbers = {name: _NO_VALUE for name in by if pd.api.types.is_float_dtype(sides[0][name])}
    sides = [side.fillna(numbers).astype(dict.fromkeys(numbers, float)) for side in sides]
    both = sides[0].merge(sides[1], on=["image_id", *by], suffixes=("", "_second"))
    if both.empty:
        raise UsageError("no point of the first run's is one of the second's, on a picture of both")
    both[DIFFERENCE] = both["value_second"] - both["value"]
    found = interval_table(both, by, DIFFERENCE, within=ANYWHERE)
    rows = found.rename(columns={"mean": DIFFERENCE, "low": ENDS[0], "high": ENDS[1], "n": N_SHARED})
    for name in numbers:
        rows[name] = rows[name].where(rows[name] != _NO_VALUE)
    return Paired(rows, first.by, first.along, first.what, first.form, first.series)


def _n_units(run: Mapping[str, Any]) -> int:
    return int(run["n_layers"]) * int(run["d_mlp"])


def _with_k_of(first: pd.DataFrame, second: pd.DataFrame, n_units: int, n_other: int) -> pd.DataFrame:
    """The second run's rows with the first one's k's; those that are no k of it are left out."""
    if "k" not in first or n_units == n_other:
        return second
    meant = {
        k: one for k in second["k"].unique() for one in first["k"].unique() if _is_near(k / n_other, one / n_units)
    }
    return second[second["k"].isin(meant)].assign(k=lambda rows: rows["k"].map(meant))


def _is_near(share: float, other: float) -> bool:
    return abs(share - other) <= _NEAR * other

"""Intervals in words, for subtitles, tooltips and the terminal; where there is none, why. No chart library here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import pandas as pd

from mmn.counts import counted, counted_are
from mmn.statistics.intervals import N_LEAST

TOO_FEW: Final = f"Empty where fewer than {N_LEAST} pictures are too few for an interval."


def percent(share: float, digits: int = 0) -> str:
    """`53 %`, with a space; below zero with a minus sign, but never `−0 %`."""
    text = f"{round(100 * share, digits) + 0.0:.{digits}f} %"
    return text.replace("-", "−")


def interval_words(low: float, high: float, n: float, form: str, thing: str = "picture") -> str:
    """`49.3 % to 60.5 %`, or why there is no interval; `form` is Python's for a number, as `.1%` or `.3f`."""
    if np.isnan(low) or np.isnan(high):
        return why_none(n, thing)
    return f"{_written(low, form)} to {_written(high, form)}"


def why_none(n: float, thing: str = "picture") -> str:
    """`3 pictures are too few for an interval`, or that they all have the same value."""
    if n < N_LEAST:
        return f"{counted_are(n, thing)} too few for an interval"
    return f"no interval: all {counted(n, thing)} have the same value"


def bracket(low: float, high: float, form: str) -> str:
    """` [49.3 %, 60.5 %]`, with a space before it; nothing where there is no interval."""
    return "" if np.isnan(low) or np.isnan(high) else f" [{_written(low, form)}, {_written(high, form)}]"


def few_note(n_images: Iterable[float]) -> str:
    """Why some or all lines of a terminal's table have no bracket; nothing where no line is of too few pictures."""
    few = sorted({int(n) for n in n_images if n < N_LEAST})
    if not few:
        return ""
    pictures = counted_are(few[0], "picture") if len(few) == 1 else f"{few[0]} to {counted_are(few[-1], 'picture')}"
    return f"{pictures} too few for a 95 % interval, which needs {N_LEAST}"


def with_words(rows: pd.DataFrame, form: str, name: str = "", n: str = "n_images") -> pd.DataFrame:
    """`rows` with a column `{name}interval`: the words for the interval from `{name}low` to `{name}high`, by row."""
    ends = zip(rows[f"{name}low"], rows[f"{name}high"], rows[n], strict=True)
    return rows.assign(**{f"{name}interval": [interval_words(low, high, of, form) for low, high, of in ends]})


def interval_note(mark: str, n_images: Iterable[float], without: str = "") -> str:
    """What a chart's bands or lines are, and which of its points have none.

    Args:
        mark: what shows the interval, as `band`.
        n_images: of every point.
        without: how a point without an interval is drawn, as `hollow`.
    """
    counts = list(n_images)
    if counts and max(counts) < N_LEAST:
        return f"no intervals: {why_none(max(counts))}, which needs {N_LEAST}"
    few = f"; none for fewer than {N_LEAST} pictures" + (f" ({without})" if without else "")
    return f"{mark}: 95 % interval by picture" + (few if counts and min(counts) < N_LEAST else "")


def _written(value: float, form: str) -> str:
    if form.endswith("%"):
        return percent(value, int(form.removeprefix(".").removesuffix("%") or 0))
    return format(value, form)

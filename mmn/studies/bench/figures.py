"""Which method finds the units that matter? A panel for each measure, the best score first, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.counts import counted
from mmn.figures.axes import interval_tip
from mmn.figures.theme import MUTED, method_colours
from mmn.figures.wording import of_run, require
from mmn.names import RANDOM
from mmn.statistics.interval_words import interval_note, with_words
from mmn.studies.bench.result import MEASURES

COLUMNS: Final = ("method", "metric", "heading", "mean", "low", "high", "n", "place")
_STEP: Final = 11  # pixels of a score's line


def bench(
    data: pd.DataFrame, run: Mapping[str, Any], nouns: Sequence[str] = (), left_out: str = ""
) -> alt.TopLevelMixin:
    """Dots with intervals, and where chance lies: the random score's mean as a dotted line.

    Args:
        data: `rows.bench`.
        run: what it is of: model, images, n_images, n_concepts.
        nouns: that units are planted for; none where nothing is.
        left_out: what was not judged, in sentences.
    """
    require(data.columns, COLUMNS)
    data = with_words(data, ".2f", n="n").assign(words=[MEASURES[one].words for one in data["metric"]])
    chance = data[data["method"] == RANDOM].set_index("metric")["mean"]
    panel = _panel(data.assign(chance=data["metric"].map(chance)))
    headings = list(dict.fromkeys(data["heading"]))
    n = f"n = {counted(run['n_images'], 'picture')}, {counted(run['n_concepts'], 'noun')}"
    title = alt.TitleParams(
        frame="bounds",
        text="What finds the units that matter" + (f": {headings[0]}" if len(headings) == 1 else ""),
        subtitle=[
            f"{of_run(run)}, {n}; " + (f"planted for {', '.join(nouns)}" if nouns else "nothing planted"),
            *([left_out] if left_out else []),
            f"dotted: random units; {interval_note('line', data['n'])}",
        ],
    )
    if len(headings) == 1:
        return panel.properties(title=title)
    header = alt.Header(labelFontWeight="bold", labelPadding=4)
    facet = alt.Facet("heading:N", title=None, sort=headings, header=header)
    return panel.facet(facet=facet, columns=1).resolve_scale(x="independent", y="independent").properties(title=title)


def _panel(data: pd.DataFrame) -> Any:
    methods = list(dict.fromkeys(data["method"]))
    colour = alt.Color("method:N", scale=alt.Scale(domain=methods, range=method_colours(methods)), legend=None)
    x: dict[str, Any] = {"title": None, "scale": alt.Scale(zero=True, padding=6), "axis": alt.Axis(tickCount=5)}
    best_first = alt.EncodingSortField("place", op="min", order="ascending")
    base = alt.Chart(data).encode(
        alt.Y("method:N", sort=best_first, title=None, axis=alt.Axis(grid=True, labelLimit=200, labelFlush=False)),
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("words:N", title="measure"),
            alt.Tooltip("mean:Q", format=".2f"),
            interval_tip(),
            alt.Tooltip("n:Q", title="pictures", format=",d"),
        ],
    )
    ends = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.4)
    ends = ends.encode(alt.X("low:Q", **x), alt.X2("high"), colour)
    dots = base.mark_point(filled=True, size=34, opacity=1).encode(alt.X("mean:Q", **x), colour)
    line = alt.Chart(data).transform_filter("isValid(datum.chance)").mark_rule(strokeDash=[2, 2], color=MUTED)
    return alt.layer(line.encode(alt.X("mean(chance):Q", **x)), ends, dots).properties(height=alt.Step(_STEP))

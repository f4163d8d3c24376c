"""Did an edit do what it should, and nothing else? Its shares beside those of its controls, each with n and interval.

    efficacy         share of the edited pictures whose caption says the new word
    generalisation   the same on other pictures of the noun
    locality         share of the captions of pictures without the noun that stay the same

P2 (arXiv 2311.07470). The controls are the same edit on random units, and a plain rank-one update of one layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.figures.axes import interval_tip
from mmn.figures.theme import FIRST, MUTED, SECOND, SHAPES, THIRD
from mmn.figures.wording import of_run, require
from mmn.statistics.interval_words import interval_note, with_words
from mmn.studies.editing.shares import COLUMNS, MEASURES

_FURTHER: Final = (SECOND, THIRD, "#009E73", "#D55E00", "#56B4E9")  # the first edit is FIRST, random ones are grey


def editing(data: pd.DataFrame, run: Mapping[str, Any], pair: str) -> alt.TopLevelMixin:
    """Dots with intervals: efficacy, generalisation and locality of edits of one noun, side by side.

    Args:
        data: `labelled_shares`: one row per edit and role, in the order of the legend.
        run: the run's row: model, images.
        pair: the noun and the new word, as words for the title.
    """
    require(data, COLUMNS)
    labels = list(dict.fromkeys(data["label"]))
    measures = {
        role: f"{measure} ({_n(data, role)})" for role, measure in MEASURES.items() if role in set(data["role"])
    }
    legend = alt.Legend(title=None, orient="top", columns=1, labelLimit=260)
    named: dict[str, Any] = {"field": "label", "type": "nominal", "sort": labels, "legend": legend}
    shapes = [SHAPES[place % len(SHAPES)] for place in range(len(labels))]
    shape = alt.Shape(**named, scale=alt.Scale(domain=labels, range=shapes))
    rows = with_words(data, ".1%", n="n").assign(measure=data["role"].map(measures))
    base = alt.Chart(rows).encode(
        alt.Y("measure:N", sort=list(measures.values()), title=None, axis=alt.Axis(labelLimit=220, grid=False)),
        alt.YOffset("label:N", sort=labels, scale=alt.Scale(domain=labels, paddingOuter=0.6)),
        alt.Color(**named, scale=alt.Scale(domain=labels, range=_colours(labels))),
        tooltip=[
            alt.Tooltip("label:N", title="edit"),
            alt.Tooltip("measure:N"),
            alt.Tooltip("mean:Q", title="share", format=".1%"),
            interval_tip(),
            alt.Tooltip("n:Q", title="pictures", format=",d"),
        ],
    )
    axis = alt.Axis(format="~%", tickCount=5)
    x = alt.X("mean:Q", title="share of pictures", axis=axis, scale=alt.Scale(domain=[0, 1]))
    ends = alt.X("low:Q", title="share of pictures", axis=axis, scale=alt.Scale(domain=[0, 1]))
    rules = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.2).encode(ends, alt.X2("high:Q"))
    dots = base.mark_point(filled=True, size=45, opacity=1).encode(x, shape)
    subtitle = [of_run(run), f"shares of pictures; {interval_note('line', data['n'])}"]
    return alt.layer(rules, dots).properties(
        height=max(140, 16 * len(labels) * len(measures)),
        title=alt.TitleParams(f"Edits of {pair}, and their controls", subtitle=subtitle),
    )


def _colours(labels: Sequence[str]) -> list[str]:
    others = iter(_FURTHER * len(labels))
    return [MUTED if "random" in label else FIRST if place == 0 else next(others) for place, label in enumerate(labels)]


def _n(data: pd.DataFrame, role: str) -> str:
    counts = data.loc[data["role"] == role, "n"]
    least, most = int(counts.min()), int(counts.max())
    return f"n = {most:,}" if least == most else f"n = {least:,} to {most:,}"

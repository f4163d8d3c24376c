"""A line with its 95 % band for each of several quantities, over the layers of a decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import altair as alt
import pandas as pd

from mmn.figures.axes import interval_tip
from mmn.figures.wording import require
from mmn.statistics.interval_words import with_words

COLUMNS: Final = ("line", "layer", "mean", "low", "high", "n")
GREEN, SKY, BROWN = "#009E73", "#56B4E9", "#6b6054"  # beside the theme's own: told apart by every kind of colour vision
_DASHES: Final = ([1, 0], [5, 2], [2, 2], [7, 2, 1, 2], [9, 2], [1, 3])


def layer_lines(
    data: pd.DataFrame, titles: list[str], y: str, form: str, colours: Mapping[str, str], x: str = "after decoder layer"
) -> alt.TopLevelMixin:
    """Lines over layers, told apart by dash as well as by colour.

    Args:
        data: line, layer, mean, low, high, n (pictures), as `interval_table` makes them.
        titles: the title, then the lines of the subtitle.
        y: title of the vertical axis.
        form: how a mean is written, Python's: `.1%`, `.2f`.
        colours: of every line that there may be, in the order of the legend.
        x: what a layer's number stands for.
    """
    require(data.columns, COLUMNS)
    there = set(data["line"])
    styles = {
        line: (colour, dash) for (line, colour), dash in zip(colours.items(), _DASHES, strict=False) if line in there
    }
    legend = alt.Legend(
        title=None,
        orient="top",
        columns=1,
        labelLimit=300,
        symbolType="stroke",
        symbolSize=200,
        symbolStrokeWidth=1.3,
        symbolOpacity=1,
    )
    colour = alt.Scale(domain=list(styles), range=[colour for colour, _ in styles.values()])
    dash = alt.Scale(domain=list(styles), range=[dash for _, dash in styles.values()])
    base = alt.Chart(with_words(data, form, n="n")).encode(
        alt.X("layer:Q", title=f"{x} (from 0)", axis=alt.Axis(tickMinStep=1, format="d", grid=False)),
        alt.Color("line:N", scale=colour, legend=legend),
    )
    axis = alt.Axis(format="~%" if form.endswith("%") else "~g", tickCount=5)
    tooltip = [
        alt.Tooltip("line:N", title="of"),
        alt.Tooltip("layer:Q"),
        alt.Tooltip("mean:Q", title="mean", format=form),
        interval_tip(),
        alt.Tooltip("n:Q", title="pictures", format=",d"),
    ]
    band = base.mark_area(opacity=0.15).encode(alt.Y("low:Q", title=y), alt.Y2("high:Q"))
    line = base.mark_line(strokeWidth=1.3, point={"size": 18}).encode(
        alt.Y("mean:Q", title=y, axis=axis), alt.StrokeDash("line:N", scale=dash, legend=legend), tooltip=tooltip
    )
    return alt.layer(band, line).properties(height=200, title=alt.TitleParams(titles[0], subtitle=titles[1:]))

"""Axes and tooltips that several charts share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt

from mmn.figures.theme import FIRST, MUTED

DOT, BAR, TICK, DOTTED, FLAT_TICK = "circle", "square", "M0,-1V1", "M0,-1V-0.6M0,-0.2V0.2M0,0.6V1", "M-1,0H1"
_LABEL: Final = "mark_label"


def key(base: alt.Chart, marks: Mapping[str, tuple[str, str]], columns: int = 2) -> Any:
    """A layer that draws nothing and names the other layers' marks in a legend above the chart: controls, too.

    Args:
        base: any chart of the layers, with their data.
        marks: what a mark stands for -> its shape (one of the above) and colour.
        columns: entries side by side.
    """
    labels, shapes = list(marks), [shape for shape, _ in marks.values()]
    legend = alt.Legend(
        title=None, orient="top", columns=columns, labelLimit=260, symbolOpacity=1, symbolSize=50, symbolStrokeWidth=1.6
    )
    colours = alt.Scale(domain=labels, range=[colour for _, colour in marks.values()])
    field: dict[str, Any] = {"field": _LABEL, "type": "nominal", "legend": legend, "sort": labels}
    nothing = base.transform_calculate(**{_LABEL: f"'{labels[0]}'"}).mark_point(size=0, opacity=0)
    return nothing.encode(
        shape=alt.Shape(**field, scale=alt.Scale(domain=labels, range=shapes)),
        fill=alt.Fill(**field, scale=colours),
        stroke=alt.Stroke(**field, scale=colours),
        tooltip=alt.value(None),
    )


def layer_axis() -> alt.X:
    """Decoder layers, column `layer`, side by side."""
    return alt.X("layer:O", title="decoder layer (from 0)", axis=alt.Axis(labelAngle=0, labelOverlap=True))


def interval_tip(name: str = "", what: str = "") -> alt.Tooltip:
    """The words for an interval, or for why there is none: the column that `interval_words.with_words` adds."""
    return alt.Tooltip(f"{name}interval:N", title=f"{what}95 % interval")


def dot(base: alt.Chart, field: str, x: Mapping[str, Any]) -> Any:
    """Where a value lies; `x` is what all marks of the axis have in common."""
    return base.mark_point(filled=True, size=46, opacity=1, color=FIRST).encode(alt.X(f"{field}:Q", **x))


def interval(base: alt.Chart, low: str, high: str, x: Mapping[str, Any]) -> Any:
    """The ends of its interval, where it has one."""
    ends = base.transform_filter(f"isValid(datum.{low})").mark_rule(strokeWidth=1.6, color=FIRST)
    return ends.encode(alt.X(f"{low}:Q", **x), alt.X2(high))


def tick(base: alt.Chart, field: str, x: Mapping[str, Any]) -> Any:
    """Where its control lies."""
    return base.mark_tick(thickness=2, size=13, color=MUTED, opacity=1).encode(alt.X(f"{field}:Q", **x))


def diamond(base: alt.Chart, field: str, x: Mapping[str, Any]) -> Any:
    """Where a second control lies."""
    mark = base.mark_point(shape="diamond", filled=True, size=40, opacity=1, color=MUTED)
    return mark.encode(alt.X(f"{field}:Q", **x))

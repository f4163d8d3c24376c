"""Axes and tooltips that several charts share."""

from __future__ import annotations

import altair as alt


def layer_axis() -> alt.X:
    """Decoder layers, column `layer`, side by side."""
    return alt.X("layer:O", title="decoder layer (from 0)", axis=alt.Axis(labelAngle=0, labelOverlap=True))


def interval_tip(name: str = "", what: str = "") -> alt.Tooltip:
    """The words for an interval, or for why there is none: the column that `interval_words.with_words` adds."""
    return alt.Tooltip(f"{name}interval:N", title=f"{what}95 % interval")

"""Axes that several charts share."""

from __future__ import annotations

import altair as alt


def layer_axis() -> alt.X:
    """Decoder layers, column `layer`, side by side."""
    return alt.X("layer:O", title="decoder layer (from 0)", axis=alt.Axis(labelAngle=0, labelOverlap=True))

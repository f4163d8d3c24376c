"""The marks that the charts of both measurements share: a row per concept, a bar per layer, each beside its floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.figures.axes import BAR, DOT, DOTTED, FLAT_TICK, TICK, key, layer_axis
from mmn.figures.theme import MUTED, method_colours
from mmn.figures.wording import k_text

SHARE_AXIS: Final = alt.Axis(format="~%", tickCount=5)


def k_words(k: int, run: Mapping[str, Any]) -> str:
    """`k = 43 (1.4 %)`."""
    return f"k = {k_text(k, int(run['n_layers']) * int(run['d_mlp']))}"


def titled(text: str, *subtitle: str) -> alt.TitleParams:
    """A title over the whole chart, its legends included."""
    return alt.TitleParams(frame="bounds", text=text, subtitle=list(subtitle))


def with_ends(base: alt.Chart, low: str) -> alt.Chart:
    """The marks that have an interval: a missing end would be drawn at 0."""
    return base.transform_filter(f"isValid(datum.{low})")


def concept_dots(
    rows: pd.DataFrame,
    x_title: str,
    method: str,
    tips: Sequence[alt.Tooltip],
    dot: str,
    floor: str,
    chance: tuple[str, float] | None = None,
) -> Any:
    """A row per concept: its floor as a tick, its ratio as a dot, its interval as a line; hollow: no discovery.

    Args:
        rows: concept, ratio, ratio_low, ratio_high, floor and maybe is_discovery, in the order to draw.
        x_title: what the ratio is.
        method: the ranking, which has a colour.
        tips: of a concept, besides its name and ratio.
        dot: what a dot is, for the legend.
        floor: what a tick is.
        chance: what a dotted line over all rows is, and where it lies.
    """
    x: dict[str, Any] = {"scale": alt.Scale(domain=[0, 1]), "axis": SHARE_AXIS, "title": x_title}
    ratio = [alt.Tooltip("concept:N"), alt.Tooltip("ratio:Q", title="in common", format=".1%")]
    colour = method_colours([method])[0]
    base = alt.Chart(rows).encode(
        alt.Y("concept:N", sort=list(rows["concept"]), title=None, axis=alt.Axis(labelOverlap=False, grid=True)),
        tooltip=[*ratio, *tips],
    )
    lines = with_ends(base, "ratio_low").mark_rule(strokeWidth=1.4, color=colour)
    lines = lines.encode(alt.X("ratio_low:Q", **x), alt.X2("ratio_high"))
    filled = alt.condition(alt.datum.is_discovery, alt.value(colour), alt.value("transparent"))
    dots = base.mark_point(size=34, opacity=1, stroke=colour, strokeWidth=1.2)
    dots = dots.encode(alt.X("ratio:Q", **x), fill=filled)
    ticks = base.mark_tick(thickness=2, size=9, color=MUTED, opacity=1).encode(alt.X("floor:Q", **x))
    layers, named = [ticks, lines, dots], {dot: (DOT, colour), floor: (TICK, MUTED)}
    if chance is not None:
        rule = alt.Chart(pd.DataFrame({"at": [chance[1]]})).mark_rule(strokeDash=[1, 2], color=MUTED)
        layers.insert(0, rule.encode(alt.X("at:Q", **x)))
        named[chance[0]] = (DOTTED, MUTED)
    return alt.layer(*layers, key(base, named)).properties(height=alt.Step(15))


def layer_bars(
    rows: pd.DataFrame,
    method: str,
    floor: str,
    y: Mapping[str, Any],
    tips: Sequence[alt.Tooltip],
    opacity: Any,
    names: tuple[str, str],
    interval: str = "",
) -> Any:
    """A bar per layer, the column `share`, with its floor as a tick.

    Args:
        rows: layer, share, the floor and the tooltips' columns.
        method: the ranking, which has a colour.
        floor: a column.
        y: the vertical axis.
        tips: of a layer, besides its number.
        opacity: of a bar.
        names: of bars and ticks, for the legend.
        interval: the columns of its ends less `_low` and `_high`, "" for none.
    """
    base = alt.Chart(rows).encode(layer_axis(), tooltip=[alt.Tooltip("layer:O"), *tips])
    colour = method_colours([method])[0]
    layers = [base.mark_bar(color=colour).encode(alt.Y("share:Q", **y), opacity=opacity)]
    if interval:
        ends = with_ends(base, f"{interval}_low").mark_rule(strokeWidth=1.2, color=MUTED)
        layers.append(ends.encode(alt.Y(f"{interval}_low:Q", **y), alt.Y2(f"{interval}_high")))
    layers.append(base.mark_tick(thickness=2, color=MUTED, opacity=1).encode(alt.Y(f"{floor}:Q", **y)))
    named = key(base, {names[0]: (BAR, colour), names[1]: (FLAT_TICK, MUTED)})
    return alt.layer(*layers, named).properties(height=200)

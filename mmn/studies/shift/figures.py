"""Is what another model changed in a noun's concepts one shift, and in which layers do units write otherwise?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.figures.axes import DOT, TICK, diamond, dot, interval, interval_tip, key, tick
from mmn.figures.theme import DASHES, FIRST, MUTED
from mmn.figures.wording import clipped, of_run, require, span
from mmn.statistics.interval_words import interval_note, with_words

GAIN_COLUMNS: Final = ("noun", "gain", "gain_low", "gain_high", "gain_random", "gain_other", "cosine", "n")
CONCEPT_COLUMNS: Final = ("label", "cosine", "cosine_shifted", "cosine_random")
LAYER_COLUMNS: Final = ("layer", "line", "mean", "low", "high", "n")


def shift(data: pd.DataFrame, run: Mapping[str, Any], other: str, subset: str = "all concepts") -> alt.TopLevelMixin:
    """A dot with its interval for each noun; ticks of random deltas, diamonds of other concepts'.

    Args:
        data: `rows.shift`.
        run: the first run's row: model, images.
        other: the second run's model.
        subset: which nouns, in words.
    """
    require(data.columns, GAIN_COLUMNS)
    nouns = data["noun"].tolist()
    x: dict[str, Any] = {"title": "gain in cosine", "scale": alt.Scale(padding=8), "axis": alt.Axis(tickCount=5)}
    base = alt.Chart(with_words(data, ".3f", "gain_", "n")).encode(
        alt.Y("noun:N", sort=nouns, title=None, axis=alt.Axis(grid=True, labelLimit=120)),
        tooltip=[
            alt.Tooltip("noun:N"),
            alt.Tooltip("gain:Q", title="by its concept's delta", format="+.3f"),
            interval_tip("gain_"),
            alt.Tooltip("gain_other:Q", title="by another concept's", format="+.3f"),
            alt.Tooltip("gain_random:Q", title="by a random one", format="+.3f"),
            alt.Tooltip("cosine:Q", title="cosine before", format=".3f"),
            alt.Tooltip("n:Q", title="pictures", format=",d"),
        ],
    )
    title = alt.TitleParams(
        frame="bounds",
        text="How much nearer a concept's delta brings states",
        subtitle=[
            f"{of_run(run)}, to those of {clipped(other, 40)}; n = {span(data['n'], 'picture')}; {subset}",
            f"a delta is of the concept's other pictures; {interval_note('lines', data['n'])}",
        ],
    )
    layers = [
        tick(base, "gain_random", x),
        diamond(base, "gain_other", x),
        interval(base, "gain_low", "gain_high", x),
        dot(base, "gain", x),
    ]
    named = {
        "delta of the concept": (DOT, FIRST),
        "random delta": (TICK, MUTED),
        "delta of another concept": ("diamond", MUTED),
    }
    return alt.layer(*layers, key(base, named)).properties(height=alt.Step(24), title=title)


def concepts(data: pd.DataFrame, run: Mapping[str, Any], other: str, noun: str) -> alt.TopLevelMixin:
    """For each concept its cosine with the other model's: a tick before, a dot with its delta, a diamond a random one.

    Args:
        data: `rows.concepts`.
        run: the first run's row: model, images.
        other: the second run's model.
        noun: whose concepts they are.
    """
    require(data.columns, CONCEPT_COLUMNS)
    x: dict[str, Any] = {
        "title": "cosine with the other's concept",
        "scale": alt.Scale(zero=False, padding=8),
        "axis": alt.Axis(tickCount=4),
    }
    base = alt.Chart(data).encode(
        alt.Y("label:N", sort=data["label"].tolist(), title=None, axis=alt.Axis(grid=True, labelLimit=170)),
        tooltip=[
            alt.Tooltip("label:N", title="concept"),
            alt.Tooltip("cosine:Q", title="before", format=".3f"),
            alt.Tooltip("cosine_shifted:Q", title="with its delta", format=".3f"),
            alt.Tooltip("cosine_random:Q", title="with a random one", format=".3f"),
        ],
    )
    title = alt.TitleParams(
        frame="bounds",
        text=f"Concepts of “{noun}” and what became of them",
        subtitle=[f"{of_run(run)}, and {clipped(other, 40)}", "matched one to one by cosine before"],
    )
    layers = [
        diamond(base, "cosine_random", x),
        tick(base, "cosine", x),
        dot(base, "cosine_shifted", x),
    ]
    named = {"with its delta": (DOT, FIRST), "before": (TICK, MUTED), "with a random delta": ("diamond", MUTED)}
    return alt.layer(*layers, key(base, named)).properties(height=alt.Step(20), title=title)


def layers(data: pd.DataFrame, run: Mapping[str, Any], other: str, subset: str = "all concepts") -> alt.TopLevelMixin:
    """Two lines over layers with intervals: the other model on the same picture, another picture in the same model.

    Args:
        data: `rows.layers`.
        run: the first run's row: model, images.
        other: the second run's model.
        subset: which nouns, in words.
    """
    require(data.columns, LAYER_COLUMNS)
    lines = sorted(set(data["line"]), reverse=True)
    y = "change of what a layer's units write"
    legend = alt.Legend(title=None, orient="top", columns=1, labelLimit=260, symbolType="stroke", symbolSize=200)
    base = alt.Chart(with_words(data, ".1%", n="n")).encode(
        alt.X("layer:Q", title="decoder layer (from 0)", axis=alt.Axis(tickMinStep=1, format="d", grid=False)),
        alt.Color("line:N", scale=alt.Scale(domain=lines, range=[FIRST, MUTED]), legend=legend),
    )
    dash = alt.StrokeDash(
        "line:N", scale=alt.Scale(domain=lines, range=[list(one) for one in DASHES[:2]]), legend=legend
    )
    tooltip = [
        alt.Tooltip("line:N", title="is"),
        alt.Tooltip("layer:Q"),
        alt.Tooltip("mean:Q", title="change", format=".1%"),
        interval_tip(),
        alt.Tooltip("n:Q", title="pictures", format=",d"),
    ]
    mean = alt.Y("mean:Q", title=y, axis=alt.Axis(format="~%", tickCount=5))
    line = base.mark_line(strokeWidth=1.3, point={"size": 20}).encode(mean, dash, tooltip=tooltip)
    band = base.mark_area(opacity=0.18).encode(alt.Y("low:Q", title=y), alt.Y2("high:Q"))
    title = alt.TitleParams(
        "In which layers units write something else",
        subtitle=[
            f"{of_run(run)}, and {clipped(other, 40)}; n = {span(data['n'], 'picture')}; {subset}",
            f"length of the difference over the length before; {interval_note('band', data['n'])}",
        ],
    )
    return alt.layer(band, line).properties(height=200, title=title)

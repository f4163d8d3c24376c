"""Where do the units of domains and of modalities lie, whose top units are they, and is a noun lost without them?

`domain_layers` is MMNeuron's count per layer (arXiv 2406.11193) and MINER's (arXiv 2410.04819); the overlap with
rankings, and the controls of an ablation, are OURS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.counts import counted
from mmn.figures.axes import BAR, DOT, FLAT_TICK, TICK, interval_tip, key, layer_axis
from mmn.figures.theme import FIRST, MUTED, SECOND, method_colours
from mmn.figures.wording import clipped, of_run, parts_word, require
from mmn.names import RANDOM, TOP
from mmn.statistics.interval_words import interval_note, with_words

LAYER_COLUMNS: Final = ("group", "layer", "n_units", "uniform", "half_0", "half_1")
OVERLAP_COLUMNS: Final = ("group", "method", "mean", "low", "high", "n", "matched", "uniform")
ABLATION_COLUMNS: Final = ("group", "pictures", "selection", "k", "mean", "low", "high", "n")
_SHAPES: Final = ("circle", "square", "diamond", "triangle-up")
_ZEROED: Final = {TOP: "the group", RANDOM: "random, same layers"}


def domain_layers(data: pd.DataFrame, run: Mapping[str, Any], rule: str, told: Sequence[str]) -> alt.TopLevelMixin:
    """Bars of a group's units per layer, a panel for each group; dots: what each half of the pictures finds alone.

    Args:
        data: `rows.layer_rows`.
        run: the run's row: model, images.
        rule: what tells the units apart, in words.
        told: of the rule and its sample.
    """
    require(data.columns, LAYER_COLUMNS)
    rows = _labelled(data)
    base = alt.Chart(rows).encode(layer_axis(), tooltip=_LAYER_TIPS)
    count = alt.Axis(format=",d", tickCount=3, tickMinStep=1)
    y: dict[str, Any] = {"title": "units", "axis": count}
    bars = base.mark_bar(color=FIRST).encode(alt.Y("n_units:Q", **y))
    halves = [
        base.mark_point(size=16, filled=True, color=SECOND, opacity=1).encode(alt.Y(f"{name}:Q", **y))
        for name in ("half_0", "half_1")
    ]
    uniform = base.mark_tick(color=MUTED, thickness=1).encode(alt.Y("uniform:Q", **y))
    named = {"units": (BAR, FIRST), "found by one half": (DOT, SECOND), "all layers alike": (FLAT_TICK, MUTED)}
    panel = alt.layer(bars, uniform, *halves, key(base, named, columns=3))
    lines = [f"{of_run(run)}, {told[0]}", *told[1:]]
    return _panels(panel.properties(height=38), rows, "label", f"Units per layer: {rule}", lines, y="independent")


def _panels(panel: Any, data: pd.DataFrame, by: str, text: str, lines: Sequence[str], **scales: Any) -> Any:
    """A panel for each value of a column; alone it has its value in the title, and no heading."""
    values = list(dict.fromkeys(data[by]))
    if len(values) == 1:
        return panel.properties(title=alt.TitleParams(frame="bounds", text=[values[0], text], subtitle=list(lines)))
    header = alt.Header(labelFontWeight="bold", labelPadding=4, labelAnchor="start", labelOrient="top")
    facet = alt.Facet(f"{by}:N", title=None, sort=values, header=header)
    title = alt.TitleParams(frame="bounds", text=text, subtitle=list(lines))
    return panel.facet(facet=facet, columns=1).resolve_scale(**scales).properties(title=title)


_LAYER_TIPS: Final = [
    alt.Tooltip("group:N"),
    alt.Tooltip("layer:O"),
    alt.Tooltip("n_units:Q", title="units", format=",d"),
    alt.Tooltip("half_0:Q", title="found by one half", format=",d"),
    alt.Tooltip("half_1:Q", title="found by the other", format=",d"),
    alt.Tooltip("uniform:Q", title="all layers alike", format=".1f"),
]


def _labelled(data: pd.DataFrame) -> pd.DataFrame:
    """`data` with a panel's heading: the group and how many units it has."""
    sizes = data.groupby("group")["n_units"].sum()
    labels = [f"{clipped(name, 24)} ({counted(sizes[name], 'unit')})" for name in data["group"]]
    return data.assign(label=labels)


def domain_overlap(
    data: pd.DataFrame, run: Mapping[str, Any], rule: str, told: Sequence[str], k: int
) -> alt.TopLevelMixin:
    """Dots with intervals: the share of a noun's top k that lies in a group, by score, a panel for each group; as ticks
    that of random units of the same layers.

    Args:
        data: `rows.overlap_rows`.
        run: the run's row: model, images.
        rule: what tells the units apart, in words.
        told: of the rule and its sample.
        k: of the rankings.
    """
    require(data.columns, OVERLAP_COLUMNS)
    methods = list(dict.fromkeys(data["method"]))
    colour = alt.Color("method:N", scale=alt.Scale(domain=methods, range=method_colours(methods)), legend=None)
    y = alt.Y("method:N", sort=methods, title=None, axis=alt.Axis(grid=True, labelLimit=200, labelOverlap=False))
    x: dict[str, Any] = {
        "title": f"share of a noun's top {counted(k, 'unit')}",
        "axis": alt.Axis(format="~%", tickCount=4),
    }
    base = alt.Chart(with_words(data, ".1%", n="n")).encode(y, tooltip=_overlap_tips(parts_word(run)))
    ticks = base.mark_tick(thickness=2, size=11, color=MUTED, opacity=1).encode(alt.X("matched:Q", **x))
    named = {"top": (DOT, FIRST), "random": (TICK, MUTED)}
    panel = alt.layer(ticks, *_dots(base, x, colour), key(base, named)).properties(height=alt.Step(15))
    lines = [
        f"{of_run(run)}, groups of {told[0]}",
        *told[1:],
        "each picture by the groups that the other half of the pictures finds",
        f"top: a noun's units; random: as many of the same {parts_word(run)}",
        f"means over a picture's nouns, then pictures; {interval_note('lines', data['n'])}",
    ]
    return _panels(panel, data, "group", f"Top units in each group: {rule}", lines)


def _overlap_tips(parts: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("group:N", title="units of"),
        alt.Tooltip("method:N"),
        alt.Tooltip("mean:Q", title="share of the top units", format=".2%"),
        interval_tip(),
        alt.Tooltip("matched:Q", title=f"random units of the same {parts}", format=".2%"),
        alt.Tooltip("uniform:Q", title="random units of all layers", format=".2%"),
        alt.Tooltip("n:Q", title="pictures", format=",d"),
    ]


def domain_ablation(data: pd.DataFrame, run: Mapping[str, Any], rule: str, told: Sequence[str]) -> alt.TopLevelMixin:
    """Dots with intervals: what is left of nouns when a group is zeroed, in its domain's pictures and in others; in
    grey when random units of the same layers are.

    Args:
        data: `rows.ablation_rows`.
        run: the run's row: model, images, and as n_images the pictures of the widest point.
        rule: what tells the units apart, in words.
        told: of the rule and its sample.
    """
    require(data.columns, ABLATION_COLUMNS)
    rows = with_words(data, ".1%", n="n")
    who = [f"{_ZEROED[row.selection]}, {row.pictures}" for row in rows.itertuples()]
    rows = rows.assign(
        who=who,
        label=[f"{clipped(row.group, 18)} ({row.k:,})" for row in rows.itertuples()],
    )
    kinds = [f"{zeroed}, {pictures}" for pictures in sorted(set(rows["pictures"])) for zeroed in _ZEROED.values()]
    kinds = [kind for kind in kinds if kind in set(who)]
    y = alt.Y(
        "label:N",
        sort=list(dict.fromkeys(rows["label"])),
        title=None,
        axis=alt.Axis(grid=True, labelLimit=150, labelOverlap=False),
    )
    legend = alt.Legend(title=None, orient="top", columns=2, labelLimit=260, symbolStrokeWidth=0)
    shapes = alt.Scale(domain=kinds, range=list(_SHAPES[: len(kinds)]))
    colours = alt.Scale(domain=kinds, range=[MUTED if _ZEROED[RANDOM] in kind else FIRST for kind in kinds])
    shape = alt.Shape("who:N", sort=kinds, scale=shapes, legend=legend)
    colour = alt.Color("who:N", sort=kinds, scale=colours, legend=legend)
    offset = alt.YOffset("who:N", sort=kinds, scale=alt.Scale(domain=kinds, paddingOuter=0.3))
    base = alt.Chart(rows).encode(y, offset, tooltip=_ABLATION_TIPS)
    x: dict[str, Any] = {
        "title": "probability left, of the untouched model's",
        "axis": alt.Axis(format="~%", tickCount=5),
    }
    title = alt.TitleParams(
        frame="bounds",
        text=f"Nouns without a group's units: {rule}",
        subtitle=[
            f"{of_run(run)}, zeroed in {counted(run['n_images'], 'picture')}; groups of {told[0]}",
            *told[1:],
            "in brackets: units zeroed, at every position; the groups were found on these pictures, too",
            f"Σ probability of the nouns ÷ Σ untouched; {interval_note('lines', data['n'])}",
        ],
    )
    ends, points = _dots(base, x, colour)
    chart = alt.layer(ends, points.encode(shape))
    return chart.properties(height=alt.Step(9, **{"for": "offset"}), title=title)


_ABLATION_TIPS: Final = [
    alt.Tooltip("group:N"),
    alt.Tooltip("pictures:N"),
    alt.Tooltip("selection:N", title="zeroed"),
    alt.Tooltip("k:Q", title="units", format=",d"),
    alt.Tooltip("mean:Q", title="probability left", format=".1%"),
    interval_tip(),
    alt.Tooltip("n:Q", title="pictures", format=",d"),
]


def _dots(base: alt.Chart, x: dict[str, Any], colour: Any) -> list[Any]:
    ends = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.4)
    ends = ends.encode(alt.X("low:Q", **x), alt.X2("high"), color=colour)
    points = base.mark_point(filled=True, size=32, opacity=1).encode(alt.X("mean:Q", **x), color=colour)
    return [ends, points]

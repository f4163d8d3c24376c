"""Where do the units of domains and of modalities lie, whose top units are they, and is a noun lost without them?

`domain_layers` is MMNeuron's count per layer (arXiv 2406.11193) and MINER's (arXiv 2410.04819); the overlap with
rankings, and the controls of an ablation, are OURS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.figures.axes import DOT, TICK, interval_tip, key, layer_axis
from mmn.figures.theme import FIRST, INK, MUTED, method_colours
from mmn.figures.wording import clipped, counted, of_run, require
from mmn.names import RANDOM
from mmn.statistics.interval_words import interval_note, with_words

LAYER_COLUMNS: Final = ("group", "layer", "n_units", "uniform", "half_0", "half_1")
OVERLAP_COLUMNS: Final = ("group", "pictures", "method", "mean", "low", "high", "n", "matched", "uniform")
ABLATION_COLUMNS: Final = ("group", "pictures", "selection", "k", "mean", "low", "high", "n")
_SHAPES: Final = {"its pictures": "circle", "other pictures": "diamond", "all pictures": "circle"}
_HEADER: Final = alt.Header(labelFontWeight="bold", labelPadding=4, labelAnchor="start", labelOrient="top")


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
        base.mark_point(size=18, fill="white", stroke=INK, strokeWidth=0.8, opacity=1).encode(alt.Y(f"{name}:Q", **y))
        for name in ("half_0", "half_1")
    ]
    uniform = base.mark_rule(color=MUTED, strokeDash=[3, 2]).encode(alt.Y("uniform:Q", **y))
    named = {"units": ("square", FIRST), "found by half of the pictures": (DOT, INK)}
    panel = alt.layer(bars, uniform, *halves, key(base, named, columns=2)).properties(height=58)
    title = alt.TitleParams(
        text=f"Units per layer: {rule}",
        subtitle=[f"{of_run(run)}, {told[0]}", *told[1:], "dashed: as many units, all layers alike"],
    )
    facet = alt.Facet("label:N", title=None, sort=list(dict.fromkeys(rows["label"])), header=_HEADER)
    return panel.facet(facet=facet, columns=1).resolve_scale(y="independent").properties(title=title)


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
    """Dots with intervals: the share of a picture's top k that lies in a group, by score, a panel for each group; ticks
    are random units of the same layers.

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
    y = alt.Y("method:N", sort=methods, title=None, axis=alt.Axis(grid=False, labelLimit=160))
    base, named = _of_pictures(with_words(data, ".1%", n="n"), _OVERLAP_TIPS, y, "random, same layers")
    x: dict[str, Any] = {"title": f"share of a noun's top {k} units", "axis": alt.Axis(format="~%", tickCount=4)}
    ticks = base.mark_tick(thickness=2, size=9, color=MUTED, opacity=1).encode(alt.X("matched:Q", **x))
    dots = _dots(base, x, colour)
    title = alt.TitleParams(
        frame="bounds",
        text=f"Top units in each group: {rule}",
        subtitle=[
            f"{of_run(run)}, groups of {told[0]}",
            *told[1:],
            "each picture by the groups that the other half of the pictures finds",
            f"means over a picture's nouns, then pictures; {interval_note('lines', data['n'])}",
        ],
    )
    return _panels(alt.layer(ticks, *dots, key(base, named, columns=2)), data, title)


_OVERLAP_TIPS: Final = [
    alt.Tooltip("group:N"),
    alt.Tooltip("pictures:N"),
    alt.Tooltip("method:N"),
    alt.Tooltip("mean:Q", title="share of the top units", format=".2%"),
    interval_tip(),
    alt.Tooltip("matched:Q", title="random units of the same layers", format=".2%"),
    alt.Tooltip("uniform:Q", title="random units of all layers", format=".2%"),
    alt.Tooltip("n:Q", title="pictures", format=",d"),
]


def domain_ablation(data: pd.DataFrame, run: Mapping[str, Any], rule: str, told: Sequence[str]) -> alt.TopLevelMixin:
    """Dots with intervals: what is left of nouns when a group is zeroed, in its pictures and in others, and in grey when
    random units of the same layers are.

    Args:
        data: `rows.ablation_rows`.
        run: the run's row: model, images, and as n_images the pictures of the widest point.
        rule: what tells the units apart, in words.
        told: of the rule and its sample.
    """
    require(data.columns, ABLATION_COLUMNS)
    rows = with_words(data.assign(is_control=data["selection"] == RANDOM), ".1%", n="n")
    rows = rows.assign(label=[f"{clipped(row.group, 18)} ({row.k:,})" for row in rows.itertuples()])
    y = alt.Y("label:N", sort=list(dict.fromkeys(rows["label"])), title=None, axis=alt.Axis(grid=False, labelLimit=150))
    base, named = _of_pictures(rows, _ABLATION_TIPS, y, "random, same layers")
    x: dict[str, Any] = {
        "title": "probability left, of the untouched model's",
        "axis": alt.Axis(format="~%", tickCount=5),
    }
    colour: Any = alt.condition("datum.is_control", alt.value(MUTED), alt.value(FIRST))
    title = alt.TitleParams(
        frame="bounds",
        text=f"Nouns without a group's units: {rule}",
        subtitle=[
            f"{of_run(run)}, zeroed in {counted(run['n_images'], 'picture')}; groups of {told[0]}",
            *told[1:],
            "in brackets: units zeroed at every position; groups were found on these and more pictures",
            f"Σ probability of the nouns ÷ Σ untouched; {interval_note('lines', data['n'])}",
        ],
    )
    named |= {"random, same layers": (DOT, MUTED)}
    return alt.layer(*_dots(base, x, colour), key(base, named, columns=2)).properties(
        height=alt.Step(9, **{"for": "offset"}), title=title
    )


_ABLATION_TIPS: Final = [
    alt.Tooltip("group:N"),
    alt.Tooltip("pictures:N"),
    alt.Tooltip("selection:N", title="zeroed"),
    alt.Tooltip("k:Q", title="units", format=",d"),
    alt.Tooltip("mean:Q", title="probability left", format=".1%"),
    interval_tip(),
    alt.Tooltip("n:Q", title="pictures", format=",d"),
]


def _of_pictures(
    rows: pd.DataFrame, tips: list[Any], y: alt.Y, control: str
) -> tuple[alt.Chart, dict[str, tuple[str, str]]]:
    """The base of dots: one below the other where a group has pictures of its own and others; and their legend."""
    kinds = [name for name in _SHAPES if name in set(rows["pictures"])]
    offset = alt.YOffset("pictures:N", sort=kinds, scale=alt.Scale(domain=kinds, paddingOuter=0.3))
    shape = alt.Shape("pictures:N", scale=alt.Scale(domain=kinds, range=[_SHAPES[name] for name in kinds]), legend=None)
    named = {name: (_SHAPES[name], FIRST) for name in kinds} | {control: (TICK, MUTED)}
    return alt.Chart(rows).encode(y, offset, shape, tooltip=tips), named


def _dots(base: alt.Chart, x: dict[str, Any], colour: Any) -> list[Any]:
    ends = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.4)
    ends = ends.encode(alt.X("low:Q", **x), alt.X2("high"), color=colour)
    points = base.mark_point(filled=True, size=32, opacity=1).encode(alt.X("mean:Q", **x), color=colour)
    return [ends, points]


def _panels(panel: Any, data: pd.DataFrame, title: alt.TitleParams) -> Any:
    groups = list(dict.fromkeys(data["group"]))
    panel = panel.properties(height=alt.Step(9 if data["pictures"].nunique() > 1 else 13, **{"for": "offset"}))
    facet = alt.Facet("group:N", title=None, sort=groups, header=_HEADER)
    return panel.facet(facet=facet, columns=1).properties(title=title)

"""Which units carry a noun from the picture to its logit, and what is left of the noun with them alone?

`circuit` draws the graph: inputs below, a line for each layer, the noun above. `circuit_curve` is the proof: with more
and more units of each layer kept, or ablated, beside random units and another noun's circuit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.counts import counted
from mmn.figures.axes import interval_tip
from mmn.figures.theme import FIRST, GREY, MUTED, SECOND, THIRD
from mmn.figures.wording import of_run, require
from mmn.statistics.interval_words import interval_note, percent, with_words
from mmn.studies.circuits.curves import COLUMNS, WORDS
from mmn.studies.circuits.rows import EDGE, END, UNIT
from mmn.studies.circuits.tables import ABLATED, ANOTHER, CIRCUIT, KEPT, RANDOM

GRAPH_COLUMNS: Final = ("what", "x", "y", "x2", "y2", "name", "layer", "unit", "weight", "through_attention", "words")
MEASURES: Final = {  # measure -> vertical axis, number format
    "prob": ("probability of the noun", ".2~f"),
    "relative": ("share of the untouched probability", "~%"),
    "logit": ("logit of the noun", "~r"),
}
_LOOKS: Final = {CIRCUIT: (FIRST, "circle"), ANOTHER: (THIRD, "triangle-up"), RANDOM: (MUTED, "square")}
_DASHES: Final = {KEPT: [1, 0], ABLATED: [3, 2]}
_HOLLOW: Final = "transparent"  # points of what is ablated; a legend would cut a symbol's outline into dashes
_MOST_NAMED: Final = 8  # units of a layer whose names have room
_MOST_WHOLE: Final = 5  # with their layer in the name
_NEXT_TO_ONE: Final = 1.000001  # Vega draws two scales of the same domain as one legend
_LINE: Final = 27  # points from layer to layer


def circuit(
    data: pd.DataFrame, run: Mapping[str, Any], about: Mapping[str, Any], through: Mapping[int, float]
) -> alt.TopLevelMixin:
    """The graph of a circuit; what goes through attention is a colour of each edge and a number of each layer.

    Args:
        data: `rows.circuit`: edges, units and the two ends, with their places.
        run: the run's row: model, images, n_layers.
        about: noun, rule, k, n_found and picture ("" for several) of the circuit.
        through: of each layer, how much of what passes into its kept units goes through an attention.
    """
    require(data.columns, GRAPH_COLUMNS)
    rows = data.assign(label=_labels(data, int(about["k"])), sign=_signs(data))
    base = alt.Chart(rows).encode(
        alt.X("x:Q", title=None, axis=None, scale=alt.Scale(domain=[0.4, about["k"] + 0.6], nice=False)),
        _layer_axis(int(run["n_layers"]), through),
    )
    layers = alt.layer(_edges(base), _units(base), _names(base, UNIT, -7.0), *_ends(base, int(run["n_layers"])))
    return layers.properties(height=_LINE * (int(run["n_layers"]) + 2), title=_graph_title(run, about))


def _labels(data: pd.DataFrame, k: int) -> list[str]:
    """Names that have room: of many units of a layer without the layer, of more none."""
    kept = {True: lambda name: name, False: lambda name: name.partition(".")[2] if k <= _MOST_NAMED else ""}
    short = kept[k <= _MOST_WHOLE]
    return [short(name) if what == UNIT else name for what, name in zip(data["what"], data["name"], strict=True)]


def _signs(data: pd.DataFrame) -> list[str | None]:
    return [("raises it" if weight >= 0 else "lowers it") if what == EDGE else None
            for what, weight in zip(data["what"], data["weight"], strict=True)]  # fmt: skip


def _layer_axis(n_layers: int, through: Mapping[int, float]) -> alt.Y:
    names = {str(layer + 1): f"{layer}: {percent(share)}" for layer, share in through.items()}
    table = json.dumps(names | {"0": "input", str(n_layers + 1): "noun"}, ensure_ascii=False)
    return alt.Y(
        "y:Q",
        title=["decoder layer (from 0): share of", "what enters it through attention"],
        scale=alt.Scale(domain=[-0.5, n_layers + 1.5], nice=False),
        axis=alt.Axis(
            values=list(range(n_layers + 2)), labelExpr=f"({table})[datum.value]", grid=False, labelOverlap=True
        ),
    )


def _edges(base: alt.Chart) -> Any:
    """Lines as strong as their weight."""
    legend = _gradient("edge: via attention")
    signs = ["raises it", "lowers it"]
    return (
        base.transform_filter(f"datum.what == '{EDGE}'")
        .transform_calculate(strength="abs(datum.weight)")
        .mark_rule(opacity=0.75)
        .encode(
            x2="x2:Q",
            y2="y2:Q",
            color=alt.Color(
                "through_attention:Q",
                scale=alt.Scale(domain=[0, 1], range=["#a9b4bd", SECOND], interpolate="rgb"),
                legend=legend,
            ),
            strokeWidth=alt.StrokeWidth("strength:Q", scale=alt.Scale(type="sqrt", range=[0.15, 3.2]), legend=None),
            strokeDash=alt.StrokeDash(
                "sign:N",
                scale=alt.Scale(domain=signs, range=[[1, 0], [2, 2]]),
                legend=alt.Legend(title="edge", orient="top", symbolType="stroke", symbolStrokeColor=MUTED, columns=2),
            ),
            tooltip=[
                alt.Tooltip("name:N", title="edge"),
                alt.Tooltip("weight:Q", title="weight, logits", format="+.4f"),
                alt.Tooltip("weight_low:Q", title="95 % from", format="+.4f"),
                alt.Tooltip("weight_high:Q", title="to", format="+.4f"),
                alt.Tooltip("through_attention:Q", title="through attention", format=".0%"),
            ],
        )
    )


def _units(base: alt.Chart) -> Any:
    """Points as dark as the picture's share in what the unit is made of."""
    clicked = alt.selection_point(name="unit", fields=["layer", "unit"], on="click")
    return (
        base.transform_filter(f"datum.what == '{UNIT}'")
        .mark_point(size=42, filled=True, opacity=1, stroke=GREY, strokeWidth=0.8)
        .encode(
            fill=alt.Fill(
                "from_image:Q",
                scale=alt.Scale(domain=[0, _NEXT_TO_ONE], range=["#ffffff", FIRST], interpolate="rgb"),
                legend=_gradient("unit: from the picture"),
            ),
            tooltip=[
                alt.Tooltip("name:N", title="unit"),
                alt.Tooltip("words:N", title="writes"),
                alt.Tooltip("effect:Q", title="estimated part of the logit", format="+.3f"),
                alt.Tooltip("from_image:Q", title="from the picture", format=".0%"),
                alt.Tooltip("at_image:Q", title="of its effect at image tokens", format=".0%"),
                alt.Tooltip("score:Q", title="score", format=".3f"),
            ],
        )
        .add_params(clicked)
    )


def _ends(base: alt.Chart, n_layers: int) -> tuple[Any, Any]:
    """The noun's name above its edges, the inputs' below theirs."""
    return _names(base, END, -6.0, f" && datum.y > {n_layers}"), _names(base, END, 7.0, " && datum.y == 0")


def _names(base: alt.Chart, what: str, rise: float, which: str = "") -> Any:
    marks = base.transform_filter(f"datum.what == '{what}'{which}")
    return marks.mark_text(dy=rise, fontSize=6 if what == UNIT else 7, color=GREY).encode(
        text="label:N", tooltip=alt.value(None)
    )


def _gradient(title: str) -> alt.Legend:
    return alt.Legend(
        title=title,
        type="gradient",
        orient="top",
        direction="horizontal",
        gradientLength=90,
        gradientThickness=6,
        format=".0%",
        tickCount=2,
    )


def _graph_title(run: Mapping[str, Any], about: Mapping[str, Any]) -> alt.TitleParams:
    shown = f"picture {about['picture'][:12]}" if about["picture"] else counted(about["n_found"], "picture")
    many = "; means over pictures" if about["n_found"] > 1 else ""
    kept = (
        f"{counted(about['k'], 'unit')} a layer, rule {about['rule']}{many}; edges as strong as their weight in logits"
    )
    return alt.TitleParams(f"Circuit of “{about['noun']}”", subtitle=[f"{of_run(run)}, found on {shown}", kept])


def circuit_curve(
    data: pd.DataFrame, run: Mapping[str, Any], about: Mapping[str, Any], measure: str, is_held_out: bool
) -> alt.TopLevelMixin:
    """The noun with so many units of each layer kept (solid, full points), and with them ablated (dashed, hollow).

    Args:
        data: `curves.curves`, with `line`.
        run: the run's row: model, images, d_mlp; n_images that it is judged by.
        about: noun, rule, k, n_found, other_noun and picture of the circuit.
        measure: a key of `MEASURES`.
        is_held_out: whether the circuit has not seen these pictures.
    """
    require(data.columns, (*COLUMNS, "line"))
    title, form = MEASURES[measure]
    rows = with_words(data, ".1%" if measure == "relative" else ".3f", n="n").assign(dashed=data["line"])
    there = [line for line in WORDS if WORDS[line] in set(data["line"])]
    base = alt.Chart(rows).encode(
        _size_axis(data["size"], int(run["d_mlp"])),
        alt.Color(**_named(there, [_LOOKS[selection][0] for _, selection in there])),
        alt.Detail("line:N"),
    )
    scale = alt.Scale(domain=[0, 1]) if measure == "prob" else alt.Scale(zero=measure == "relative", nice=True)
    axis = alt.Axis(format=form, tickCount=5)
    y = alt.Y("mean:Q", title=title, axis=axis, scale=scale)
    band = base.mark_area(opacity=0.13, line=False).encode(
        alt.Y("low:Q", title=title, axis=axis, scale=scale), alt.Y2("high:Q")
    )
    dashes = _named(there, [_DASHES[direction] for direction, _ in there])
    dash = alt.StrokeDash(**dashes | {"field": "dashed", "legend": None})  # else its legend is one with the others
    shape = alt.Shape(**_named(there, [_LOOKS[selection][1] for _, selection in there]))
    fill = alt.Fill(**_named(there, [_LOOKS[of][0] if direction == KEPT else _HOLLOW for direction, of in there]))
    tooltip = [
        alt.Tooltip("line:N", title="units"),
        alt.Tooltip("size:Q", title="a layer", format=",d"),
        alt.Tooltip("mean:Q", title=title, format=".1%" if measure == "relative" else ".3f"),
        interval_tip(),
        alt.Tooltip("n:Q", title="pictures", format=",d"),
    ]
    layers = alt.layer(
        band,
        base.mark_line(strokeWidth=1.4).encode(y, dash),
        base.mark_point(size=20, opacity=1, strokeWidth=1.2).encode(y, shape, fill, tooltip=tooltip),
    )
    return layers.properties(height=210, title=_curve_title(data, run, about, is_held_out))


def _named(there: list[tuple[str, str]], looks: list[Any]) -> dict[str, Any]:
    """What a legend says of the lines: colours, shapes and dashes of the same lines are one legend."""
    words = [WORDS[line] for line in there]
    legend = alt.Legend(title=None, orient="top", columns=2, labelLimit=260, symbolOpacity=1, symbolSize=60)
    scale = alt.Scale(domain=words, range=looks)
    return {"field": "line", "type": "nominal", "sort": words, "scale": scale, "legend": legend}


def _size_axis(sizes: pd.Series, d_mlp: int) -> alt.X:
    values = sorted({int(size) for size in sizes})
    return alt.X(
        "size:Q",
        title=f"units of each layer, of {d_mlp:,}",
        scale=alt.Scale(type="symlog", constant=1, nice=False, zero=True),
        axis=alt.Axis(values=values, format=",d", grid=False, labelOverlap="greedy", labelSeparation=3),
    )


def _curve_title(
    data: pd.DataFrame, run: Mapping[str, Any], about: Mapping[str, Any], is_held_out: bool
) -> alt.TitleParams:
    n = int(data["n"].max())
    judged = f"n = {counted(n, 'picture')} " + (
        "that it was not found on" if is_held_out else "that it was found on, too"
    )
    others = f"; the other noun is “{about['other_noun']}”" if isinstance(about["other_noun"], str) else ""
    held = f"{interval_note('band', data['n'])}; all other units at their mean over the run's pictures{others}"
    return alt.TitleParams(
        f"“{about['noun']}” with its circuit alone, and without it",
        subtitle=[f"{of_run(run)}, {judged}, rule {about['rule']}", held],
    )

"""Do the same units write a noun when the picture's places are shuffled?

P2, figure 3 (arXiv 2311.07470); other pictures of it are in `cross_image`. A ratio alone says little: another noun of
the same picture shares many top units, too. So that floor is in every chart, and chance beside it (METHODS: Region
ratio).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.figures.axes import BAR, DOT, DOTTED, FLAT_TICK, TICK, interval_tip, key, layer_axis
from mmn.figures.theme import MUTED, method_colours
from mmn.figures.wording import counted, k_text, of_run, require, sample_of_each, span
from mmn.statistics.interval_words import interval_note, interval_words, with_words
from mmn.statistics.intervals import N_LEAST
from mmn.statistics.many_tests import told as told_tests

CURVE_COLUMNS: Final = (
    "method",
    "k",
    "ratio",
    "ratio_low",
    "ratio_high",
    "floor_other_noun",
    "floor_other_noun_low",
    "floor_other_noun_high",
    "floor_random",
    "n_images",
    "n_concepts",
)
CONCEPT_COLUMNS: Final = ("lemma", "ratio", "ratio_low", "ratio_high", "floor_other_noun", "floor_random", "n_images")
LAYER_COLUMNS: Final = ("layer", "share", "share_low", "share_high", "chance", "n_units", "n_images", "of_images")
SAME, OTHER, CHANCE = "same noun, shuffled", "floor: another noun", "chance, k / units ranked"
_DASHED, _DOTTED = [5, 3], [1, 2]
SHARE_AXIS: Final = alt.Axis(format="~%", tickCount=5)


def region_invariance(data: pd.DataFrame, run: Mapping[str, Any], subset: str = "all concepts") -> alt.TopLevelMixin:
    """Lines against k, one per method: the share of top units that stay, with its interval, its floor and chance.

    Args:
        data: `Store.region_invariance`; one row per method and k.
        run: the run's row: model, images, n_layers, d_mlp.
        subset: which concepts were compared, as words for the subtitle.
    """
    require(data.columns, CURVE_COLUMNS)
    n_units = int(run["n_layers"]) * int(run["d_mlp"])
    methods = list(dict.fromkeys(data["method"]))
    scale = alt.Scale(domain=[*methods, CHANCE], range=[*method_colours(methods), MUTED])
    stroke: dict[str, Any] = {"title": None, "labelLimit": 260, "symbolType": "stroke", "symbolSize": 260}
    named = alt.Legend(orient="top", columns=3, values=methods, symbolOpacity=1, **stroke)
    colour = alt.Color("method:N", scale=scale, legend=named)
    kinds = alt.Scale(domain=[SAME, OTHER, CHANCE], range=[[1, 0], _DASHED, _DOTTED])
    told = alt.Legend(orient="bottom", columns=3, symbolStrokeColor=MUTED, **stroke)
    dashes = alt.StrokeDash("kind:N", sort=[SAME, OTHER, CHANCE], scale=kinds, legend=told)
    base = alt.Chart(_long(data, n_units)).encode(
        alt.X(
            "k:Q",
            scale=alt.Scale(type="log", nice=False),
            axis=alt.Axis(grid=False, tickCount=6, format="~s"),
            title=f"k, top units per concept (of {n_units:,})",
        ),
        colour,
    )
    ratio = alt.datum.kind == SAME
    band = base.transform_filter(ratio).mark_area(opacity=0.18).encode(_both("low"), alt.Y2("high"))
    curves = base.mark_line(strokeWidth=1.5).encode(_both("share"), dashes, alt.Detail("line:N"))
    points = base.mark_point(size=20, filled=True, opacity=1).encode(
        _both("share"),
        size=alt.condition(ratio, alt.value(22), alt.value(6)),
        tooltip=_curve_tips(),
    )
    of = f"{of_run(run)}, {sample_of_each(data['n_images'], data['n_concepts'])}; {subset}"
    return alt.layer(band, curves, points).properties(
        height=240,
        title=alt.TitleParams(
            frame="bounds",
            text="Top units that stay when the image tokens are shuffled",
            subtitle=[
                of,
                f"{interval_note('band', data['n_images'])}; means over a picture's concepts, pictures, permutations",
            ],
        ),
    )


def invariance_by_concept(
    data: pd.DataFrame, run: Mapping[str, Any], method: str, k: int, subset: str = "all concepts"
) -> alt.TopLevelMixin:
    """Dots per concept: the share of top units that stay under shuffling, from its floor to the interval of its mean.

    Args:
        data: `Store.invariance_by_concept`, in the order to draw.
        run: the run's row: model, images, n_layers, d_mlp.
        method: the ranking.
        k: units compared.
        subset: which concepts were compared, as words for the subtitle.
    """
    require(data.columns, CONCEPT_COLUMNS)
    size = k_text(k, int(run["n_layers"]) * int(run["d_mlp"]))
    rows = with_words(data, ".1%", "ratio_").rename(columns={"lemma": "concept", "floor_other_noun": "floor"})
    title = alt.TitleParams(
        frame="bounds",
        text=f"Shuffled image tokens, concept by concept: {method}, k = {size}",
        subtitle=[
            f"{of_run(run)}, {counted(len(rows), 'concept')} in {span(data['n_images'], 'picture')} each; {subset}",
            f"{interval_note('line', data['n_images'])}; means over pictures, then permutations",
            f"dot: {SAME}; tick: {OTHER}; dotted: {CHANCE}",
            *(f"{line}; others hollow" for line in told_tests(data)),
        ],
    )
    tips = [
        interval_tip("ratio_"),
        alt.Tooltip("floor:Q", title="another noun", format=".1%"),
        alt.Tooltip("n_images:Q", title="pictures", format=",d"),
    ]
    return dots(rows, "share of the top k in both", method, tips, dotted=float(rows["floor_random"].mean())).properties(
        title=title
    )


def kept_by_layer(
    data: pd.DataFrame, run: Mapping[str, Any], method: str, k: int, subset: str = "all concepts"
) -> alt.TopLevelMixin:
    """Bars per layer: the share of its top units that are top units under shuffling, too, over chance.

    Args:
        data: `Store.kept_by_layer`.
        run: the run's row: model, images, n_layers, d_mlp.
        method: the ranking.
        k: units compared.
        subset: which concepts were compared, as words for the subtitle.
    """
    require(data.columns, LAYER_COLUMNS)
    rows = with_words(data, ".1%", "share_")
    base = alt.Chart(rows).encode(
        layer_axis(),
        tooltip=[
            alt.Tooltip("layer:O"),
            alt.Tooltip("share:Q", title="kept", format=".1%"),
            interval_tip("share_"),
            alt.Tooltip("chance:Q", title="random units of these layers", format=".1%"),
            alt.Tooltip("n_units:Q", title="units compared", format=",d"),
            alt.Tooltip("n_images:Q", title="pictures with units there", format=",d"),
        ],
    )
    y: dict[str, Any] = {
        "scale": alt.Scale(domain=[0, 1]),
        "axis": SHARE_AXIS,
        "title": "share of the layer's top units that stay",
    }
    bars = base.mark_bar(color=method_colours([method])[0]).encode(
        alt.Y("share:Q", **y), opacity=alt.condition(alt.datum.n_images >= N_LEAST, alt.value(0.9), alt.value(0.35))
    )
    ends = with_ends(base, "share_low").mark_rule(strokeWidth=1.2, color=MUTED)
    ends = ends.encode(alt.Y("share_low:Q", **y), alt.Y2("share_high"))
    chance = base.mark_tick(thickness=2, color=MUTED, opacity=1).encode(alt.Y("chance:Q", **y))
    size = k_text(k, int(run["n_layers"]) * int(run["d_mlp"]))
    told = f"n = {counted(data['of_images'].max(), 'picture')}, all their permutations together; {subset}; k = {size}"
    legend = (
        f"{interval_note('line', data['n_images'], 'pale')}; tick: random units in the layers of the shuffled ranking"
    )
    named = {SAME: (BAR, method_colours([method])[0]), "random units of these layers": (FLAT_TICK, MUTED)}
    return alt.layer(bars, ends, chance, key(base, named)).properties(
        height=200,
        title=alt.TitleParams(
            frame="bounds",
            text=f"Top units that stay, layer by layer: {method}",
            subtitle=[f"{of_run(run)}, {told}", legend],
        ),
    )


def with_ends(base: alt.Chart, low: str) -> alt.Chart:
    """The marks that have an interval: a missing end would be drawn at 0."""
    return base.transform_filter(f"isValid(datum.{low})")


def dots(rows: pd.DataFrame, x_title: str, method: str, tips: list[alt.Tooltip], dotted: float | None = None) -> Any:
    """A row per concept: its floor as a tick, its ratio as a dot, its interval as a line; hollow: no discovery."""
    x: dict[str, Any] = {"scale": alt.Scale(domain=[0, 1]), "axis": SHARE_AXIS, "title": x_title}
    ratio = [
        alt.Tooltip("concept:N"),
        alt.Tooltip("ratio:Q", title="in common", format=".1%"),
    ]
    colour = method_colours([method])[0]
    order = list(rows["concept"])
    base = alt.Chart(rows).encode(
        alt.Y("concept:N", sort=order, title=None, axis=alt.Axis(labelOverlap=False, grid=True)), tooltip=ratio + tips
    )
    lines = with_ends(base, "ratio_low").mark_rule(strokeWidth=1.4, color=colour)
    lines = lines.encode(alt.X("ratio_low:Q", **x), alt.X2("ratio_high"))
    filled = alt.condition(alt.datum.is_discovery, alt.value(colour), alt.value("transparent"))
    dots = base.mark_point(size=34, opacity=1, stroke=colour, strokeWidth=1.2).encode(
        alt.X("ratio:Q", **x), fill=filled
    )
    ticks = base.mark_tick(thickness=2, size=9, color=MUTED, opacity=1).encode(alt.X("floor:Q", **x))
    chance = []
    if dotted is not None:
        rule = alt.Chart(pd.DataFrame({"at": [dotted]})).mark_rule(strokeDash=_DOTTED, color=MUTED)
        chance = [rule.encode(alt.X("at:Q", **x))]
    floors = {"random units, same layers": (TICK, MUTED)}
    if dotted is not None:
        floors = {OTHER: (TICK, MUTED), CHANCE: (DOTTED, MUTED)}
    named = {SAME if dotted is not None else "top units in common": (DOT, colour), **floors}
    return alt.layer(*chance, ticks, lines, dots, key(base, named)).properties(height=alt.Step(15))


def _both(field: str) -> alt.Y:
    return alt.Y(f"{field}:Q", title="share of the top k in both", axis=SHARE_AXIS, scale=alt.Scale(domain=[0, 1]))


def _long(data: pd.DataFrame, n_units: int) -> pd.DataFrame:
    """A row for each point: kind (the noun itself, or a floor), method, share with low and high. Chance once for all
    methods that rank as many units: attribution leaves out the last layer, and so has a `line` of its own.
    """
    rows = data.assign(k_label=[k_text(int(k), n_units) for k in data["k"]])
    found = []
    for name, kind in (("ratio", SAME), ("floor_other_noun", OTHER), ("floor_random", CHANCE)):
        is_told = f"{name}_low" in rows
        ends = {end: rows[f"{name}_{end}"] if is_told else None for end in ("low", "high")}
        part = rows.assign(kind=kind, share=rows[name], line=rows["method"], **ends)
        if kind == CHANCE:
            part = part.assign(line=part.groupby("k")["share"].rank(method="dense").astype(str), method=CHANCE)
            part = part.drop_duplicates(["k", "line"])
        found.append(part)
    every = pd.concat(found).dropna(subset=["share"]).astype({"low": float, "high": float})
    every["interval"] = [_interval(row) for row in every.itertuples()]
    return every[
        ["kind", "method", "line", "k", "k_label", "share", "low", "high", "interval", "n_images", "n_concepts"]
    ]


def _interval(row: Any) -> str:
    """Fewer pictures may have another noun than have the noun itself, so why a floor has no interval is not known."""
    if row.kind == CHANCE:
        return "none, it is exact"
    if row.kind == OTHER and pd.isna(row.low) and row.n_images >= N_LEAST:
        return "none: too few pictures have another noun, or all are alike"
    return interval_words(row.low, row.high, row.n_images, ".1%")


def _curve_tips() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("kind:N", title="share"),
        alt.Tooltip("method:N"),
        alt.Tooltip("k_label:N", title="k"),
        alt.Tooltip("share:Q", title="mean", format=".1%"),
        interval_tip(),
        alt.Tooltip("n_images:Q", title="pictures", format=",d"),
        alt.Tooltip("n_concepts:Q", title="concepts", format=",d"),
    ]

"""Do the same units write a noun when the picture's places are shuffled?

P2, figure 3 (arXiv 2311.07470). A ratio alone says little: another noun of the same picture shares many top units, too.
So that floor is in every chart, and chance beside it (METHODS: Region ratio).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.counts import counted
from mmn.figures.axes import interval_tip
from mmn.figures.theme import MUTED, method_colours, method_shapes
from mmn.figures.wording import k_text, of_run, parts_word, require, sample_of_each, span
from mmn.statistics.interval_words import interval_note, interval_words, with_words
from mmn.statistics.intervals import N_LEAST
from mmn.statistics.many_tests import survivors_line
from mmn.studies.invariance.marks import SHARE_AXIS, concept_dots, k_words, layer_bars, titled

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
IN_EXPERTS: Final = "chance, random units of the same experts"  # in a mixture of experts
IN_BOTH: Final = "share of the top k in both"


def curves(data: pd.DataFrame, run: Mapping[str, Any], subset: str = "all concepts") -> alt.TopLevelMixin:
    """Lines against k, one per method: the share of top units that stay, with its interval, its floor and chance.

    Args:
        data: `InvarianceQueries.curves`; one row per method and k.
        run: the run's row: model, images, n_layers, d_mlp.
        subset: which concepts were compared, as words for the subtitle.
    """
    require(data.columns, CURVE_COLUMNS)
    n_units, chance = int(run["n_layers"]) * int(run["d_mlp"]), _chance(run)
    methods = list(dict.fromkeys(data["method"]))
    scale = alt.Scale(domain=[*methods, chance], range=[*method_colours(methods), MUTED])
    shapes = alt.Scale(domain=[*methods, chance], range=[*method_shapes(methods), "circle"])
    named = alt.Legend(title=None, orient="top", columns=3, values=methods, labelLimit=260, symbolOpacity=1)
    stroke: dict[str, Any] = {"title": None, "labelLimit": 260, "symbolType": "stroke", "symbolSize": 260}
    colour = alt.Color("method:N", scale=scale, legend=named)
    kinds = alt.Scale(domain=[SAME, OTHER, chance], range=[[1, 0], [5, 3], [1, 2]])
    told = alt.Legend(orient="bottom", columns=3, symbolStrokeColor=MUTED, **stroke)
    dashes = alt.StrokeDash("kind:N", sort=[SAME, OTHER, chance], scale=kinds, legend=told)
    base = alt.Chart(_long(data, n_units, chance)).encode(
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
    lines = base.mark_line(strokeWidth=1.5).encode(_both("share"), dashes, alt.Detail("line:N"))
    points = base.mark_point(size=20, filled=True, opacity=1).encode(
        _both("share"),
        alt.Shape("method:N", scale=shapes, legend=named),
        size=alt.condition(ratio, alt.value(22), alt.value(6)),
        tooltip=_curve_tips(),
    )
    of = f"{of_run(run)}, {sample_of_each(data['n_images'], data['n_concepts'])}; {subset}"
    means = f"{interval_note('band', data['n_images'])}; means over a picture's concepts, pictures, permutations"
    title = titled("Top units that stay when the image tokens are shuffled", of, means)
    return alt.layer(band, lines, points).properties(height=240, title=title)


def by_concept(
    data: pd.DataFrame, run: Mapping[str, Any], method: str, k: int, subset: str = "all concepts"
) -> alt.TopLevelMixin:
    """Dots per concept: the share of top units that stay when image tokens are shuffled, from floor to interval.

    Args:
        data: `InvarianceQueries.by_concept`, in the order to draw.
        run: the run's row: model, images, n_layers, d_mlp.
        method: the ranking.
        k: units compared.
        subset: which concepts were compared, as words for the subtitle.
    """
    require(data.columns, CONCEPT_COLUMNS)
    rows = with_words(data, ".1%", "ratio_").rename(columns={"lemma": "concept", "floor_other_noun": "floor"})
    title = titled(
        f"Shuffled image tokens, concept by concept: {method}, {k_words(k, run)}",
        f"{of_run(run)}, {counted(len(rows), 'concept')} in {span(data['n_images'], 'picture')} each; {subset}",
        f"{interval_note('line', data['n_images'])}; means over pictures, then permutations",
        f"dot: {SAME}; tick: {OTHER}; dotted: {_chance(run)}",
        *(f"{line}; others hollow" for line in survivors_line(data, "n_images")),
    )
    tips = [
        interval_tip("ratio_"),
        alt.Tooltip("floor:Q", title="another noun", format=".1%"),
        alt.Tooltip("n_images:Q", title="pictures", format=",d"),
    ]
    chance = (_chance(run), float(rows["floor_random"].mean()))
    return concept_dots(rows, IN_BOTH, method, tips, SAME, OTHER, chance).properties(title=title)


def by_layer(
    data: pd.DataFrame, run: Mapping[str, Any], method: str, k: int, subset: str = "all concepts"
) -> alt.TopLevelMixin:
    """Bars per layer: the share of its top units that are top units under shuffling, too, over chance.

    Args:
        data: `InvarianceQueries.by_layer`.
        run: the run's row: model, images, n_layers, d_mlp.
        method: the ranking.
        k: units compared.
        subset: which concepts were compared, as words for the subtitle.
    """
    require(data.columns, LAYER_COLUMNS)
    y = {"scale": alt.Scale(domain=[0, 1]), "axis": SHARE_AXIS, "title": "share of the layer's top units that stay"}
    where = parts_word(run)
    tips = [
        alt.Tooltip("share:Q", title="kept", format=".1%"),
        interval_tip("share_"),
        alt.Tooltip("chance:Q", title=f"random units of these {where}", format=".1%"),
        alt.Tooltip("n_units:Q", title="units compared", format=",d"),
        alt.Tooltip("n_images:Q", title="pictures with units there", format=",d"),
    ]
    opacity = alt.condition(alt.datum.n_images >= N_LEAST, alt.value(0.9), alt.value(0.35))
    n = f"n = {counted(data['of_images'].max(), 'picture')}, all their permutations together"
    lines = interval_note("line", data["n_images"], "pale")
    title = titled(
        f"Top units that stay, layer by layer: {method}",
        f"{of_run(run)}, {n}; {subset}; {k_words(k, run)}",
        f"{lines}; tick: random units in the {where} of the shuffled ranking",
    )
    rows, names = with_words(data, ".1%", "share_"), (SAME, f"random units of these {where}")
    return layer_bars(rows, method, "chance", y, tips, opacity, names, "share").properties(title=title)


def _both(field: str) -> alt.Y:
    return alt.Y(f"{field}:Q", title=IN_BOTH, axis=SHARE_AXIS, scale=alt.Scale(domain=[0, 1]))


def _chance(run: Mapping[str, Any]) -> str:
    return IN_EXPERTS if parts_word(run) == "experts" else CHANCE


def _long(data: pd.DataFrame, n_units: int, chance: str) -> pd.DataFrame:
    """A row for each point: kind (the noun itself, or a floor), method, share with low and high. Chance once for all
    methods that rank as many units: attribution leaves out the last layer, and so has a `line` of its own.
    """
    rows = data.assign(k_label=[k_text(int(k), n_units) for k in data["k"]])
    found = []
    for name, kind in (("ratio", SAME), ("floor_other_noun", OTHER), ("floor_random", chance)):
        is_told = f"{name}_low" in rows
        ends = {end: rows[f"{name}_{end}"] if is_told else None for end in ("low", "high")}
        part = rows.assign(kind=kind, share=rows[name], line=rows["method"], **ends)
        if kind == chance:
            part = part.assign(line=part.groupby("k")["share"].rank(method="dense").astype(str), method=chance)
            part = part.drop_duplicates(["k", "line"])
        found.append(part)
    every = pd.concat(found).dropna(subset=["share"]).astype({"low": float, "high": float})
    every["interval"] = [_interval(row) for row in every.itertuples()]
    return every[
        ["kind", "method", "line", "k", "k_label", "share", "low", "high", "interval", "n_images", "n_concepts"]
    ]


def _interval(row: Any) -> str:
    """Fewer pictures may have another noun than have the noun itself, so why a floor has no interval is not known."""
    if row.kind not in (SAME, OTHER):
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

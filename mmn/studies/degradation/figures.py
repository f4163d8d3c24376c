"""What happens to a noun, and to the caption, when units are zeroed, multiplied or put under noise? Curves
against k, sigma or the factor.

P1 figures 6 and S.3 (arXiv 2308.01544) for ablation, P2 (arXiv 2311.07470) for noise; multiplying is
OURS. The horizontal axes are symlog, so that 0 is on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.figures.axes import interval_tip, layer_axis
from mmn.figures.theme import MUTED, SHAPES, method_colours, method_shapes, ordered_colours
from mmn.figures.wording import k_text, of_run, require, sample
from mmn.names import ANOTHER, COLUMN_NORM, EVERYWHERE, IMAGE_TOKENS, INTERPRETABLE, RANDOM, RANDOM_PICTURE, TOP
from mmn.statistics.interval_words import interval_note, with_words
from mmn.studies.degradation.curves import COLUMNS, OF_TEXT, POSITION_WORDS, SELECTION_COLOURS, SELECTION_WORDS

MEASURES: Final[Mapping[str, tuple[str, str, str]]] = {  # measure -> title, vertical axis, number format
    "prob": ("Probability of the noun", "probability of the noun", ".2~f"),
    "relative": ("Probability of the noun", "share of the untouched probability", "~%"),
    "logit": ("Logit of the noun", "logit of the noun", "~r"),
    "similarity": ("Similarity of the new caption", "similarity", ".2~f"),
    "lost": ("Captions that lose the noun", "share of captions without it", "~%"),
    "share": ("The noun's share among all nouns", "share of all nouns' probability", ".2~f"),
    "perplexity": ("Perplexity of plain English", "perplexity per token", "~s"),
    "perplexity-captions": ("Perplexity of the run's captions, without a picture", "perplexity per token", "~s"),
}
LAYER_COLUMNS: Final = ("selection", "layer", "n_units", "share")
_BOUNDED: Final = ("prob", "lost", "share")  # from 0 to 1 on every page
_DASHES: Final = {  # of an ablation by several methods: whose units, and where
    (TOP, EVERYWHERE): [1, 0],
    (ANOTHER, EVERYWHERE): [6, 2],
    (TOP, IMAGE_TOKENS): [2, 2],
    (ANOTHER, IMAGE_TOKENS): [1, 4],
}
_AT_ONE: Final = {POSITION_WORDS[EVERYWHERE]: [1, 0], POSITION_WORDS[IMAGE_TOKENS]: [3, 2]}  # by one method


def degradation(
    data: pd.DataFrame, run: Mapping[str, Any], measure: str = "prob", subset: str = "all concepts", metric: str = ""
) -> alt.TopLevelMixin:
    """Curves of a measure against the number of zeroed units, with their bands; the controls are other units.

    Args:
        data: `curves.curves` of an ablation. One method: a line for each selection; several: a line for each
            method's top units, one for those of another picture's noun, and one for each one's random units. Dashed
            where they were zeroed at image tokens only, or of several methods are another picture's.
        run: the run's row: model, images, n_layers, d_mlp; n_images and n_concepts that enter.
        measure: a key of `MEASURES`.
        subset: which concepts, as words for the subtitle.
        metric: of the similarity, with its version.
    """
    require(data, COLUMNS)
    n_units = int(run["n_layers"]) * int(run["d_mlp"])
    methods = list(dict.fromkeys(data["method"]))
    rows, colours = _labelled(data, methods)
    rows = _with_words(rows, n_units, measure)
    base = alt.Chart(rows).encode(
        _k_axis(rows["k"], n_units, "zeroed units"), _colour("label", colours), alt.Detail("line:N")
    )
    title = MEASURES[measure][0] + f" after ablation, {methods[0] if len(methods) == 1 else 'top units'}"
    shapes = dict(zip(colours, method_shapes(list(colours)), strict=True))
    dash = _ablation_dash(rows, methods)
    layers = _curve(base, measure, metric, _tooltip(measure), _shape("label", shapes), *dash)
    return layers.properties(height=210, title=_title(title, rows, run, subset, measure))


def perturbation(
    data: pd.DataFrame,
    run: Mapping[str, Any],
    measure: str = "lost",
    against: str = "sigma",
    unit: str = COLUMN_NORM,
    subset: str = "all concepts",
    metric: str = "",
) -> alt.TopLevelMixin:
    """Curves of a measure against the size of the noise for each k, or against k for each size; dashed: random units.

    Args:
        data: `curves.curves` of a perturbation by one method.
        run: as `degradation`.
        measure: a key of `MEASURES`.
        against: `sigma` or `k`; the other one is the colour.
        unit: of sigma, as `effect.sigma_unit`.
        subset: which concepts, as words for the subtitle.
        metric: of the similarity, with its version.
    """
    noise = _Size("sigma", 0.0, "σ", "units under noise", "under noise", lambda values: _sigma_axis(values, unit))
    return _sized(data, run, measure, against, noise, subset, metric)


def scaling(
    data: pd.DataFrame,
    run: Mapping[str, Any],
    measure: str = "prob",
    against: str = "factor",
    subset: str = "all concepts",
    metric: str = "",
) -> alt.TopLevelMixin:
    """Curves of a measure against the factor that units are multiplied by for each k, or against k for each factor.

    Args:
        data: `curves.curves` of scaled units by one method; a factor of 1 is the untouched model.
        run: as `degradation`.
        measure: a key of `MEASURES`.
        against: `factor` or `k`; the other one is the colour.
        subset: which concepts, as words for the subtitle.
        metric: of the similarity, with its version.
    """
    scaled = _Size("factor", 1.0, "×", "multiplied units", "with units multiplied", _factor_axis)
    return _sized(data, run, measure, against, scaled, subset, metric)


@dataclass(frozen=True)
class _Size:
    """How large a change is: its column, what it is for the untouched model, and its words."""

    column: str
    untouched: float
    sign: str
    of_units: str
    words: str
    axis: Callable[[pd.Series], alt.X]


def _sized(
    data: pd.DataFrame,
    run: Mapping[str, Any],
    measure: str,
    against: str,
    size: _Size,
    subset: str,
    metric: str,
) -> alt.TopLevelMixin:
    """Curves of one method against the size of a change or the number of units; dashed: other units."""
    require(data, COLUMNS)
    assert against in (size.column, "k"), against
    n_units = int(run["n_layers"]) * int(run["d_mlp"])
    rows = _with_words(data if against == size.column else _from_no_units(data, size), n_units, measure)
    rows = rows.assign(label=rows["selected"])
    if against == size.column:
        axis, other, field, legend = size.axis(rows[size.column]), "k", "k_label", "k"
    else:
        axis, other = _k_axis(rows["k"], n_units, size.of_units), size.column
        field, legend = f"{size.column}_label", size.sign
    order = list(dict.fromkeys(rows.sort_values(other)[field]))
    colours = dict(zip(order, ordered_colours(len(order)), strict=True))
    line = rows["selection"] + " " + rows["positions"] + " " + rows[field]
    base = alt.Chart(rows.assign(line=line)).encode(axis, _colour(field, colours, legend), alt.Detail("line:N"))
    (method,) = set(rows["method"])
    shapes = dict(zip(order, SHAPES, strict=False))
    layers = _curve(base, measure, metric, _tooltip(measure), _shape(field, shapes, legend), _dash(rows))
    title = f"{MEASURES[measure][0]} {size.words}, {method}"
    return layers.properties(height=210, title=_title(title, rows, run, subset, measure))


def ablated_layers(
    data: pd.DataFrame, run: Mapping[str, Any], k: int, method: str, subset: str = "all concepts"
) -> alt.TopLevelMixin:
    """Bars: in which layers a noun's top k units lie, the mean over the nouns. Random units have the same layers.

    Beside them those of another picture's noun, whose layers are its own.

    Args:
        data: selection (`top`, `another`), layer, n_units (mean number), share (of the k).
        run: the run's row: model, images, n_layers, d_mlp.
        k: how many units.
        method: the score that selects them.
        subset: which concepts, as words for the subtitle.
    """
    require(data, LAYER_COLUMNS)
    k_label = k_text(k, int(run["n_layers"]) * int(run["d_mlp"]))
    tooltip = [
        alt.Tooltip("units:N"),
        alt.Tooltip("layer:O"),
        alt.Tooltip("n_units:Q", title="units of a noun (mean)", format=".1f"),
        alt.Tooltip("share:Q", title="share of the k", format=".1%"),
    ]
    there = [one for one in (TOP, ANOTHER) if one in set(data["selection"])]
    colours = {SELECTION_WORDS[one]: SELECTION_COLOURS[one] for one in there}
    return (
        alt.Chart(data.assign(units=data["selection"].map(SELECTION_WORDS)))
        .mark_bar()
        .encode(
            layer_axis(),
            _colour("units", colours),
            alt.XOffset("units:N", sort=list(colours)),
            alt.Y("share:Q", title="share of the k", axis=alt.Axis(format="~%", tickCount=5)),
            tooltip=tooltip,
        )
        .properties(
            height=160,
            title=alt.TitleParams(
                "Layers of the zeroed units",
                subtitle=[f"{of_run(run)}, {method}, k = {k_label}, {subset}"],
            ),
        )
    )


def _labelled(data: pd.DataFrame, methods: list[str]) -> tuple[pd.DataFrame, dict[str, str]]:
    """`data` with `line`, `label` and `dash`, and each label's colour: by selection for one method, else by method."""
    data = data.assign(dash=[_dash_of(one.selection, one.positions, len(methods)) for one in data.itertuples()])
    if len(methods) == 1:
        there = set(data["selection"])
        known = {words: SELECTION_COLOURS[name] for name, words in SELECTION_WORDS.items() if name in there}
        line = data["selection"] + " " + data["positions"]
        return data.assign(label=data["selection"].map(SELECTION_WORDS), line=line), known
    rows = data[data["selection"].isin([TOP, ANOTHER, RANDOM])]
    random = SELECTION_WORDS[RANDOM]
    is_random = rows["selection"] == RANDOM
    known = dict(zip(methods, method_colours(methods), strict=True))
    line = rows["method"] + " " + rows["selection"] + " " + rows["positions"]
    return (
        rows.assign(label=rows["method"].where(~is_random, random), line=line),
        known | ({random: SELECTION_COLOURS[RANDOM]} if is_random.any() else {}),
    )


def _dash_of(selection: str, positions: str, n_methods: int) -> str:
    """What a line's dashes stand for; of one method the colour tells whose the units are."""
    if n_methods == 1:
        return POSITION_WORDS[positions]
    return f"{SELECTION_WORDS[ANOTHER] if selection == ANOTHER else 'own'}, {POSITION_WORDS[positions]}"


def _ablation_dash(rows: pd.DataFrame, methods: list[str]) -> list[alt.StrokeDash]:
    """None where all lines are solid."""
    several = {
        _dash_of(selection, positions, len(methods)): _DASHES[selection, positions] for selection, positions in _DASHES
    }
    there = [one for one in dict.fromkeys(several) if one in set(rows["dash"])]
    if there == [_dash_of(TOP, EVERYWHERE, len(methods))]:
        return []
    dashes = [_AT_ONE[one] if len(methods) == 1 else several[one] for one in there]
    legend = alt.Legend(
        title=None, orient="top", symbolType="stroke", symbolStrokeColor=MUTED, columns=2, labelLimit=260
    )
    return [alt.StrokeDash("dash:N", sort=there, scale=alt.Scale(domain=there, range=dashes), legend=legend)]


def _from_no_units(data: pd.DataFrame, size: _Size) -> pd.DataFrame:
    """`data` with the untouched model as the first point (k = 0) of every size, instead of as the size that it has."""
    is_first = data[size.column] == size.untouched
    changed, untouched = data[~is_first], data[is_first]
    sizes = changed[[size.column]].drop_duplicates()
    firsts = untouched.drop_duplicates(["method", "selection", "positions"])
    first = firsts.assign(k=0).drop(columns=size.column).merge(sizes, how="cross")
    return pd.concat([first, changed], ignore_index=True)


def _with_words(rows: pd.DataFrame, n_units: int, measure: str) -> pd.DataFrame:
    form = ".1%" if MEASURES[measure][2] == "~%" else ",.4g" if measure in OF_TEXT else ".3f"
    return with_words(rows, form, n="n").assign(
        k_label=[k_text(int(k), n_units) for k in rows["k"]],
        sigma_label=["" if pd.isna(sigma) else f"{sigma:g}" for sigma in rows["sigma"]],
        factor_label=["" if pd.isna(factor) else f"{factor:g}" for factor in rows["factor"]],
        selected=rows["selection"].map(SELECTION_WORDS),
        at=rows["positions"].map(POSITION_WORDS),
    )


def _curve(
    base: alt.Chart, measure: str, metric: str, tooltip: list[alt.Tooltip], shape: alt.Shape, *dash: alt.StrokeDash
) -> Any:
    _, title, form = MEASURES[measure]
    scale = _scale(measure)
    axis = alt.Axis(format=form, tickCount=5)
    y = alt.Y("mean:Q", title=f"{title}, {metric}" if metric else title, axis=axis, scale=scale)
    band = base.mark_area(opacity=0.16, line=False).encode(
        alt.Y("low:Q", scale=scale, title=f"{title}, {metric}" if metric else title, axis=axis), alt.Y2("high:Q")
    )
    line = base.mark_line(strokeWidth=1.4).encode(y, *dash)
    return alt.layer(band, line, base.mark_point(size=22, filled=True, opacity=1).encode(y, shape, tooltip=tooltip))


def _scale(measure: str) -> alt.Scale:
    if measure in OF_TEXT:
        return alt.Scale(type="log", nice=True)
    return alt.Scale(domain=[0, 1]) if measure in _BOUNDED else alt.Scale(zero=measure == "relative", nice=True)


def _dash(rows: pd.DataFrame) -> alt.StrokeDash:
    """Solid for the top units, dashed for others."""
    dashes = {TOP: [1, 0], INTERPRETABLE: [6, 2], ANOTHER: [8, 3], RANDOM: [2, 2], RANDOM_PICTURE: [1, 3]}
    there = [one for one in SELECTION_WORDS if one in set(rows["selection"])]
    scale = alt.Scale(domain=[SELECTION_WORDS[one] for one in there], range=[dashes[one] for one in there])
    legend = alt.Legend(title=None, orient="top", symbolType="stroke", symbolStrokeColor=MUTED)
    return alt.StrokeDash("label:N", scale=scale, legend=legend)


def _colour(field: str, colours: Mapping[str, str], title: str | None = None) -> alt.Color:
    return alt.Color(**_named(field, colours, title))


def _shape(field: str, shapes: Mapping[str, str], title: str | None = None) -> alt.Shape:
    return alt.Shape(**_named(field, shapes, title))


def _named(field: str, looks: Mapping[str, str], title: str | None) -> dict[str, Any]:
    """What a legend says of a column's values; colours and shapes of the same values are one legend."""
    legend = alt.Legend(title=title, orient="top", columns=3, symbolOpacity=1, symbolStrokeWidth=1, symbolDash=[1, 0])
    scale = alt.Scale(domain=list(looks), range=list(looks.values()))
    return {"field": field, "type": "nominal", "sort": list(looks), "scale": scale, "legend": legend}


def _k_axis(ks: pd.Series, n_units: int, what: str) -> alt.X:
    values = sorted({int(k) for k in ks})
    least = next((k for k in values if k > 0), 1)
    label = f"datum.value == 0 ? '0' : [format(100 * datum.value / {n_units}, '.2~r') + ' %', format(datum.value, ',')]"
    return alt.X(
        "k:Q",
        title=[f"{what}:", f"share of all {n_units:,}, and number"],
        scale=alt.Scale(type="symlog", constant=least, nice=False, zero=True),
        axis=alt.Axis(values=values, labelExpr=label, grid=False, labelOverlap="greedy", labelSeparation=3),
    )


def _sigma_axis(sigmas: pd.Series, unit: str) -> alt.X:
    values = sorted({float(sigma) for sigma in sigmas})
    least = next((sigma for sigma in values if sigma > 0), 1.0)
    of = "relative to each unit's column norm" if unit == COLUMN_NORM else "in the unit of the weights"
    return alt.X(
        "sigma:Q",
        title=["σ of the noise,", of],
        scale=alt.Scale(type="symlog", constant=least, nice=False, zero=True),
        axis=alt.Axis(values=values, format="~r", grid=False, labelOverlap="greedy", labelSeparation=3),
    )


def _factor_axis(factors: pd.Series) -> alt.X:
    values = sorted({float(factor) for factor in factors})
    return alt.X(
        "factor:Q",
        title="what the units are multiplied by (1: untouched)",
        scale=alt.Scale(type="symlog", constant=1, nice=False, zero=True),
        axis=alt.Axis(values=values, format="~r", grid=False, labelOverlap="greedy", labelSeparation=3),
    )


def _tooltip(measure: str) -> list[alt.Tooltip]:
    _, title, form = MEASURES[measure]
    form = ".1%" if form == "~%" else ".4~g" if measure in OF_TEXT else ".3f"
    return [
        alt.Tooltip("method:N"),
        alt.Tooltip("selected:N", title="selection"),
        alt.Tooltip("at:N", title="changed"),
        alt.Tooltip("k_label:N", title="k"),
        alt.Tooltip("sigma_label:N", title="σ"),
        alt.Tooltip("factor_label:N", title="×"),
        alt.Tooltip("mean:Q", title=title, format=form),
        interval_tip(),
        alt.Tooltip("n:Q", title="pictures", format=",d"),
        alt.Tooltip("n_draws:Q", title="draws of each"),
    ]


def _title(text: str, rows: pd.DataFrame, run: Mapping[str, Any], subset: str, measure: str) -> alt.TitleParams:
    of = f"{of_run(run)}, {sample(run['n_images'], run['n_concepts'])}, {subset}"
    uneven = "" if rows["n"].min() == rows["n"].max() else f"; {rows['n'].min():,} to {rows['n'].max():,} by point"
    n_draws = int(rows["n_draws"].max())
    draws = f", draws (up to {n_draws})" if n_draws > 1 else ""
    means = f"means over a picture's concepts{draws}, then pictures"
    if measure in OF_TEXT:
        means = "geometric means over pictures, under the units of each one's first noun"
    return alt.TitleParams(text, subtitle=[of + uneven, f"{interval_note('band', rows['n'])}; {means}"])

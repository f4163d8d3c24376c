"""Does a noun's top unit write that noun alone? Heat maps as P2's figure 5 (arXiv 2311.07470) and P1's figure S.2
(arXiv 2308.01544), and what they come to over all pictures, beside random units.

Shares have one scale everywhere: −1 to 1 around zero, darker is further from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.figures.axes import interval_tip
from mmn.figures.theme import INK, MUTED, method_colours
from mmn.figures.wording import counted, of_run, require, sample_of_each, span
from mmn.interval_words import interval_note, with_words
from mmn.intervals import N_LEAST

PICTURE_COLUMNS: Final = ("unit_noun", "noun", "layer", "unit", "score", "share", "is_control")
CONCEPT_COLUMNS: Final = ("unit_lemma", "lemma", "share", "n_images", "is_control")
SUMMARY_COLUMNS: Final = ("method", "is_control", "is_own", "share", "share_low", "share_high", "n_images", "n")
HIGHEST_COLUMNS: Final = ("method", "is_control", "share", "share_low", "share_high", "chance", "n_images", "n")
CLASS_COLUMNS: Final = ("unit_noun", "noun", "is_control", "value", "share", "n_units", "n_images")
KINDS: Final = {False: "top units", True: "random units of the same layers"}
_OTHER, _RANDOM = "top unit, other nouns", "random unit of its layer"
_NUMBERED, _PLAIN = 26, 16  # height of a cell with a number in it, and without, in points
_FULL: Final = alt.value(1)  # opacity
_MOST_NUMBERED: Final = 12  # nouns; cells of more are too small for numbers


def specificity_of_picture(data: pd.DataFrame, run: Mapping[str, Any], method: str, of: str) -> alt.TopLevelMixin:
    """A heat map: x the picture's nouns, y each noun's top unit, colour its score as a share of that for its noun.

    Args:
        data: rows of `Store.specificity_of_picture`; those of the control are a panel of their own.
        run: the run's row: model, images.
        method: the ranking whose top unit it is.
        of: the caption and picture, as words for the subtitle.

    Returns:
        A chart whose click selection `unit` holds layer and unit.
    """
    require(data.columns, PICTURE_COLUMNS)
    units = [f"L{row.layer}.u{row.unit} {row.unit_noun}" for row in data.itertuples()]
    rows = data.assign(row=units, column=data["noun"], owner=data["unit_noun"])
    tips = [
        alt.Tooltip("row:N", title="unit, top for"),
        alt.Tooltip("noun:N"),
        alt.Tooltip("share:Q", title="share of its score for its own noun", format=".2f"),
        alt.Tooltip("score:Q", title="score", format=".3g"),
    ]
    titles = ("noun of the caption", "top unit of each noun")
    title = alt.TitleParams(
        frame="bounds",
        text=f"What each noun's top unit does for the others: {method}",
        subtitle=[f"{of_run(run)}, {of}, n = {counted(data['noun'].nunique(), 'noun')}", _legend_of(data)],
    )
    return _maps(rows, titles, tips, ["layer", "unit"]).properties(title=title)


def specificity_by_concept(
    data: pd.DataFrame, run: Mapping[str, Any], method: str, subset: str = "all concepts"
) -> alt.TopLevelMixin:
    """A heat map over pictures: x lemmas, y lemmas whose top units they are, colour the mean share.

    Args:
        data: `Store.specificity_by_concept`, most frequent lemmas first.
        run: the run's row: model, images, and as n_images the pictures that enter.
        method: the ranking whose top units they are.
        subset: which concepts and layers, as words for the subtitle.
    """
    require(data.columns, CONCEPT_COLUMNS)
    rows = data.assign(row=data["unit_lemma"], column=data["lemma"], owner=data["unit_lemma"])
    tips = [
        alt.Tooltip("row:N", title="top units of"),
        alt.Tooltip("column:N", title="for"),
        alt.Tooltip("share:Q", title="mean share", format=".2f"),
        alt.Tooltip("n_images:Q", title="pictures that say both", format=",d"),
    ]
    title = alt.TitleParams(
        frame="bounds",
        text=f"Mean share of top units for other concepts: {method}",
        subtitle=[
            f"{of_run(run)}, n = {counted(run['n_images'], 'picture')}, the most frequent concepts; {subset}",
            _legend_of(data),
            f"means over the {span(data['n_images'], 'picture')} that say both (on hover); pale: under {N_LEAST}",
        ],
    )
    pale = alt.condition(alt.datum.n_images < N_LEAST, alt.value(0.4), alt.value(1))
    return _maps(rows, ("concept", "whose top units"), tips, ["row", "column"], pale).properties(title=title)


def selectivity(data: pd.DataFrame, run: Mapping[str, Any], method: str) -> alt.TopLevelMixin:
    """A heat map of classes: y whose units, x the class of held-out pictures, colour their mean activation as a share
    of its largest; the control as a second panel.

    Args:
        data: `Store.selectivity`.
        run: the run's row: model, images.
        method: the ranking that found the units.
    """
    require(data.columns, CLASS_COLUMNS)
    rows = data.assign(row=data["unit_noun"], column=data["noun"], owner=data["unit_noun"])
    tips = [
        alt.Tooltip("row:N", title="units of"),
        alt.Tooltip("column:N", title="pictures of"),
        alt.Tooltip("share:Q", title="share of the largest", format=".2f"),
        alt.Tooltip("value:Q", title="mean activation", format=".3g"),
        alt.Tooltip("n_images:Q", title="held-out pictures", format=",d"),
    ]
    held_out = counted(data["n_images"].max(), "held-out picture")
    title = alt.TitleParams(
        frame="bounds",
        text=f"Activation of classes' units in held-out pictures: {method}",
        subtitle=[
            f"{of_run(run)}, {counted(data['n_units'].max(), 'unit')} a class, {held_out} each at most",
            "mean activation ÷ its largest over the classes (P1); empty: no such picture, or no positive activation",
        ],
    )
    return _maps(rows, ("class of the pictures", "whose units"), tips, ["row", "column"]).properties(title=title)


def specificity_summary(data: pd.DataFrame, run: Mapping[str, Any], subset: str = "all concepts") -> alt.TopLevelMixin:
    """Dots with intervals per score: the mean share of top units for the picture's other nouns, and of random units.

    Args:
        data: `Store.specificity_summary`; top units for their own noun, 1 by definition, are left out.
        run: the run's row: model, images.
        subset: which concepts and layers, as words for the subtitle.
    """
    require(data.columns, SUMMARY_COLUMNS)
    rows = data[data["is_control"] | ~data["is_own"]]
    kinds = {(False, False): _OTHER, (True, True): "random unit, own noun", (True, False): "random unit, other nouns"}
    rows = rows.assign(who=[kinds[row.is_control, row.is_own] for row in rows.itertuples()])
    title = alt.TitleParams(
        frame="bounds",
        text="Top units' share for the picture's other nouns",
        subtitle=[
            f"{of_run(run)}, {sample_of_each(data['n_images'], data['n'])}; {subset}",
            f"share: score ÷ the top unit's score for its own noun; {interval_note('lines', rows['n_images'])}",
            "means over the pairs of a picture's concepts, then pictures",
        ],
    )
    return _points(rows, list(kinds.values()), "mean share", ".2f").properties(title=title)


def highest_for_own_noun(data: pd.DataFrame, run: Mapping[str, Any], subset: str = "all concepts") -> alt.TopLevelMixin:
    """Dots with intervals per score: how often a unit scores highest for the noun that it was taken for, over chance.

    Args:
        data: `Store.highest_for_own_noun`.
        run: the run's row: model, images.
        subset: which concepts and layers, as words for the subtitle.
    """
    require(data.columns, HIGHEST_COLUMNS)
    rows = data.assign(who=[_RANDOM if is_control else "top unit" for is_control in data["is_control"]])
    chance = alt.Chart(pd.DataFrame({"at": [float(data["chance"].mean())]})).mark_rule(strokeDash=[1, 2], color=MUTED)
    title = alt.TitleParams(
        frame="bounds",
        text="Units whose own noun is their highest of the picture",
        subtitle=[
            f"{of_run(run)}, {sample_of_each(data['n_images'], data['n'])}; {subset}",
            f"pictures of two or more nouns; {interval_note('lines', data['n_images'])}",
            "means over a picture's concepts, then pictures; dotted: chance, one in so many nouns",
        ],
    )
    points = _points(rows, ["top unit", _RANDOM], "share of concepts", "~%", [0, 1])
    return alt.layer(chance.encode(alt.X("at:Q")), points).properties(title=title)


def _maps(
    rows: pd.DataFrame, titles: tuple[str, str], tips: list[alt.Tooltip], fields: list[str], opacity: Any = _FULL
) -> Any:
    """One heat map, or one above the other for top units and their control."""
    if rows["is_control"].nunique() == 1:
        return _map(rows, titles, tips, fields, opacity)
    kinds = rows.assign(kind=[KINDS[is_control] for is_control in rows["is_control"]])
    header = alt.Header(labelFontWeight="bold", labelPadding=4)
    facet = alt.Facet("kind:N", title=None, sort=list(KINDS.values()), header=header)
    return (
        _map(kinds, titles, tips, fields, opacity)
        .facet(facet=facet, columns=1)
        .resolve_scale(y="independent", x="shared")
    )


def _map(rows: pd.DataFrame, titles: tuple[str, str], tips: list[alt.Tooltip], fields: list[str], opacity: Any) -> Any:
    """Cells of a share each, with its number where there is room."""
    lines = list(dict.fromkeys(rows["row"]))
    columns = list(dict.fromkeys([*rows["owner"], *rows["column"]]))  # the diagonal from the upper left
    is_numbered = len(columns) <= _MOST_NUMBERED
    clicked = alt.selection_point(name="unit", fields=fields, on="click")
    base = alt.Chart(rows).encode(
        alt.X("column:N", sort=columns, title=titles[0], axis=alt.Axis(labelAngle=-35, labelOverlap=False)),
        alt.Y("row:N", sort=lines, title=titles[1], axis=alt.Axis(labelOverlap=False, labelLimit=170)),
        tooltip=tips,
    )
    cells = base.mark_rect().encode(
        alt.Color(
            "share:Q",
            scale=alt.Scale(scheme="blueorange", reverse=True, domain=[-1, 1], domainMid=0, clamp=True),
            legend=alt.Legend(title="share", format=".1f", gradientLength=110, orient="right"),
        ),
        opacity=opacity,
    )
    layers = [cells.add_params(clicked)]
    if is_numbered:
        form = ".2f" if len(columns) <= 6 else ".1f"
        dark = alt.expr.abs(alt.datum.share) > 0.6
        ink = alt.condition(dark, alt.value("white"), alt.value(INK))
        text = base.mark_text(fontSize=10).encode(alt.Text("share:Q", format=form), color=ink, opacity=opacity)
        layers.append(text)
    return alt.layer(*layers).properties(height=alt.Step(_NUMBERED if is_numbered else _PLAIN))


def _points(rows: pd.DataFrame, kinds: list[str], x_title: str, form: str, domain: list[float] | None = None) -> Any:
    """A line per score: coloured dots of top units, grey ones of their control, with intervals."""
    methods = list(dict.fromkeys(rows["method"]))
    method = alt.Color("method:N", scale=alt.Scale(domain=methods, range=method_colours(methods)), legend=None)
    colour = alt.condition("datum.is_control", alt.value(MUTED), method)
    scale = alt.Scale(domain=domain) if domain else alt.Scale(zero=True)
    x: dict[str, Any] = {"title": x_title, "scale": scale, "axis": alt.Axis(format=form, tickCount=5)}
    offset = alt.YOffset("who:N", sort=kinds, scale=alt.Scale(domain=kinds, paddingOuter=0.3))
    base = alt.Chart(with_words(rows, ".3f", "share_")).encode(
        alt.Y("method:N", sort=methods, title=None, axis=alt.Axis(labelLimit=200, grid=False)),
        offset,
        color=colour,
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("who:N", title="units"),
            alt.Tooltip("share:Q", title="mean", format=".3f"),
            interval_tip("share_"),
            alt.Tooltip("n_images:Q", title="pictures", format=",d"),
            alt.Tooltip("n:Q", title="concepts", format=",d"),
        ],
    )
    shapes = ["circle", "square", "diamond"] if len(kinds) > 2 else ["circle", "diamond"]
    legend = alt.Legend(title=None, orient="top", columns=1, labelLimit=260, symbolFillColor=MUTED, symbolStrokeWidth=0)
    shape = alt.Shape("who:N", sort=kinds, scale=alt.Scale(domain=kinds, range=shapes), legend=legend)
    ends = base.transform_filter("isValid(datum.share_low)").mark_rule(strokeWidth=1.4)
    ends = ends.encode(alt.X("share_low:Q", **x), alt.X2("share_high"))
    dots = base.mark_point(size=40, filled=True, opacity=1).encode(alt.X("share:Q", **x), shape)
    return alt.layer(ends, dots).properties(height=alt.Step(14, **{"for": "offset"}))


def _legend_of(data: pd.DataFrame) -> str:
    control = "; the control's, too" if data["is_control"].any() else ""
    return f"colour: score ÷ the top unit's score for its own noun{control}"

"""Does a noun's top unit write only that noun? Heat maps as P2's figure 5 (arXiv 2311.07470), of one picture and of
concepts, and their means over all pictures, beside random units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.counts import counted
from mmn.figures.axes import interval_tip
from mmn.figures.heat_map import share_maps
from mmn.figures.theme import MUTED, method_colours
from mmn.figures.wording import of_run, require, sample_of_each, span
from mmn.names import HELD_OUT, SAME_PICTURE
from mmn.statistics.interval_words import interval_note, with_words
from mmn.statistics.intervals import N_LEAST
from mmn.statistics.many_tests import survivors_line
from mmn.studies.specificity.kinds import HIGHEST, SUMMARY

PICTURE_COLUMNS: Final = ("unit_noun", "noun", "layer", "unit", "score", "share", "is_control", "selection")
CONCEPT_COLUMNS: Final = ("unit_lemma", "lemma", "share", "n_images", "is_control", "p", "is_discovery")
_MEAN: Final = ("share", "share_low", "share_high", "n_images", "n")
SUMMARY_COLUMNS: Final = ("method", "selection", "is_control", "is_own", *_MEAN)
HIGHEST_COLUMNS: Final = ("method", "selection", "is_control", "chance", *_MEAN)
FOUND_ON: Final = {HELD_OUT: "found on another picture (held out)", SAME_PICTURE: "found on the same picture (P2)"}


def specificity(
    data: pd.DataFrame,
    run: Mapping[str, Any],
    method: str,
    subset: str = "all concepts",
    selection: str = HELD_OUT,
    picture: str = "",
) -> alt.TopLevelMixin:
    """The heat map of one picture, or of the most frequent concepts; the control is a panel of its own.

    Args:
        data: `SpecificityQueries.of_picture` where `picture` says of which, else `by_concept`.
        run: the run's row: model, images, and as n_images the pictures that enter.
        method: the ranking whose top units they are.
        subset: which concepts and layers, as words for the subtitle.
        selection: where the units were found.
        picture: the picture and its caption, as words for the subtitle.
    """
    return (
        _of_picture(data, run, method, selection, picture)
        if picture
        else _by_concept(data, run, method, subset, selection)
    )


def _of_picture(
    data: pd.DataFrame, run: Mapping[str, Any], method: str, selection: str, picture: str
) -> alt.TopLevelMixin:
    """One picture: x its nouns, y each noun's unit, colour its score as a share of the noun's top score here.

    The click selection `unit` holds layer and unit.
    """
    require(data.columns, PICTURE_COLUMNS)
    units = [f"L{row.layer}.u{row.unit} {row.unit_noun}" for row in data.itertuples()]
    rows = data.assign(row=units, column=data["noun"], owner=data["unit_noun"])
    tips = [
        alt.Tooltip("row:N", title="unit, found for"),
        alt.Tooltip("noun:N"),
        alt.Tooltip("share:Q", title="share of the noun's top score here", format=".2f"),
        alt.Tooltip("score:Q", title="score", format=".3g"),
    ]
    titles = ("noun of the caption", "unit of each noun")
    title = alt.TitleParams(
        frame="bounds",
        text=f"What each noun's top unit does for the others: {method}",
        subtitle=[
            f"{of_run(run)}, {picture}, n = {counted(data['noun'].nunique(), 'noun')}",
            f"units {FOUND_ON[selection]}",
            _legend_of(data),
        ],
    )
    return share_maps(rows, titles, tips, ["layer", "unit"]).properties(title=title)


def _by_concept(
    data: pd.DataFrame, run: Mapping[str, Any], method: str, subset: str, selection: str
) -> alt.TopLevelMixin:
    """Over pictures: x lemmas, y lemmas whose units they are, colour the mean share; bold what survives."""
    require(data.columns, CONCEPT_COLUMNS)
    rows = data.assign(row=data["unit_lemma"], column=data["lemma"], owner=data["unit_lemma"])
    tips = [
        alt.Tooltip("row:N", title="top units of"),
        alt.Tooltip("column:N", title="for"),
        alt.Tooltip("share:Q", title="mean share", format=".2f"),
        alt.Tooltip("n_images:Q", title="pictures that say both", format=",d"),
        alt.Tooltip("p:Q", title="p against the control", format=".2g"),
        alt.Tooltip("is_discovery:N", title="survives Benjamini–Hochberg"),
    ]
    title = alt.TitleParams(
        frame="bounds",
        text=f"Mean share of top units for other concepts: {method}",
        subtitle=[
            f"{of_run(run)}, n = {counted(run['n_images'], 'picture')}, the most frequent concepts; {subset}",
            f"units {FOUND_ON[selection]}; {_legend_of(data)}; empty: no picture says both",
            f"means over the {span(data['n_images'], 'picture')} that say both (on hover); pale: under {N_LEAST}",
            *(f"bold: {line}" for line in survivors_line(data, "n_images")),
        ],
    )
    pale = alt.datum.n_images < N_LEAST
    return share_maps(rows, ("concept", "whose top units"), tips, ["row", "column"], pale).properties(title=title)


def specificity_summary(data: pd.DataFrame, run: Mapping[str, Any], subset: str = "all concepts") -> alt.TopLevelMixin:
    """Dots with intervals per score: the mean share of each noun's unit for its noun and for the others, beside its
    control; and of units chosen on the picture itself, beside the null of that choice.

    Args:
        data: `SpecificityQueries.summary`; what is 1 by definition is left out.
        run: the run's row: model, images, and as n_of_one_picture the nouns without a held-out unit, where counted.
        subset: which concepts and layers, as words for the subtitle.
    """
    require(data.columns, SUMMARY_COLUMNS)
    rows, kinds = _of_kinds(data, ["selection", "is_control", "is_own"], SUMMARY)
    title = alt.TitleParams(
        frame="bounds",
        text="A noun's unit scored for the picture's nouns",
        subtitle=[
            f"{of_run(run)}, {sample_of_each(rows['n_images'], rows['n'])}; {subset}",
            "share: score ÷ score of the noun's top unit on this picture",
            f"means over a picture's nouns, then pictures; {interval_note('lines', rows['n_images'])}",
            *_alone(run),
        ],
    )
    return _points(rows, kinds, "mean share", ".2f").properties(title=title)


def highest_for_own_noun(data: pd.DataFrame, run: Mapping[str, Any], subset: str = "all concepts") -> alt.TopLevelMixin:
    """Dots with intervals per score: how often a unit scores highest for the noun that it was found for, found on
    another picture beside random units, and on this one beside the null of that choice.

    Args:
        data: `SpecificityQueries.highest_for_own_noun`.
        run: the run's row: model, images, and as n_of_one_picture the nouns without a held-out unit, where counted.
        subset: which concepts and layers, as words for the subtitle.
    """
    require(data.columns, HIGHEST_COLUMNS)
    rows, kinds = _of_kinds(data, ["selection", "is_control"], HIGHEST)
    chance = alt.Chart(pd.DataFrame({"at": [float(data["chance"].mean())]})).mark_rule(strokeDash=[1, 2], color=MUTED)
    title = alt.TitleParams(
        frame="bounds",
        text="Units whose own noun is their highest of the picture",
        subtitle=[
            f"{of_run(run)}, {sample_of_each(rows['n_images'], rows['n'])}; {subset}",
            f"pictures of two or more nouns; {interval_note('lines', rows['n_images'])}",
            "means over a picture's nouns, then pictures; dotted: one in so many nouns",
            "chosen on this picture, a unit's own noun is its highest by selection: see its null",
            *_alone(run),
        ],
    )
    points = _points(rows, kinds, "share of concepts", "~%", [0, 1])
    return alt.layer(chance.encode(alt.X("at:Q")), points).properties(title=title)


def _of_kinds(
    data: pd.DataFrame, by: list[str], kinds: Mapping[Any, tuple[str, str]]
) -> tuple[pd.DataFrame, dict[str, str]]:
    """The rows of the kinds that are shown, each with `who` they are of; and the shape of each that occurs."""
    keys = list(data[by].itertuples(index=False, name=None))
    rows = data[[key in kinds for key in keys]]
    rows = rows.assign(who=[kinds[key][0] for key in keys if key in kinds])
    return rows, {who: shape for who, shape in kinds.values() if who in set(rows["who"])}


def _alone(run: Mapping[str, Any]) -> list[str]:
    n = int(run.get("n_of_one_picture", 0))
    return [f"{counted(n, 'noun')} said of one picture only: no other picture to find a unit on"] if n else []


def _points(
    rows: pd.DataFrame, shape_of: Mapping[str, str], x_title: str, form: str, domain: list[float] | None = None
) -> Any:
    """A line per score: coloured marks of units, grey ones of their control, with intervals."""
    kinds = list(shape_of)
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
    legend = alt.Legend(title=None, orient="top", columns=1, labelLimit=260, symbolFillColor=MUTED, symbolStrokeWidth=0)
    shape = alt.Shape("who:N", sort=kinds, scale=alt.Scale(domain=kinds, range=list(shape_of.values())), legend=legend)
    ends = base.transform_filter("isValid(datum.share_low)").mark_rule(strokeWidth=1.4)
    ends = ends.encode(alt.X("share_low:Q", **x), alt.X2("share_high"))
    dots = base.mark_point(size=40, filled=True, opacity=1).encode(alt.X("share:Q", **x), shape)
    return alt.layer(ends, dots).properties(height=alt.Step(14, **{"for": "offset"}))


def _legend_of(data: pd.DataFrame) -> str:
    control = "; the control's, too" if data["is_control"].any() else ""
    return f"colour: score ÷ score of the row's noun's top unit on this picture{control}"

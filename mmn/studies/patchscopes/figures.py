"""Layer by layer, how much of a state can be read: beside the logit lens, another picture's state and a random one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.figures.axes import interval_tip
from mmn.figures.theme import FIRST, MUTED, SECOND, THIRD
from mmn.figures.wording import counted, of_run, require
from mmn.statistics.interval_words import interval_note, with_words
from mmn.studies.patchscopes.rows import COMPANY, ELSEWHERE, LINES, ON_OBJECT

COLUMNS: Final = ("line", "layer", "mean", "low", "high", "n")
_READ: Final = (*LINES.values(), ON_OBJECT, ELSEWHERE)
_COLOURS: Final = (FIRST, SECOND, THIRD, MUTED, "#009E73", "#56B4E9")
_COMPANY_COLOURS: Final = (FIRST, "#56B4E9", THIRD, MUTED, "#6b6054")
_DASHES: Final = ([1, 0], [5, 2], [2, 2], [7, 2, 1, 2], [9, 2], [1, 3])


def noun_precision(data: pd.DataFrame, run: Mapping[str, Any], setting: str, subset: str) -> alt.TopLevelMixin:
    """After each layer, the share of nouns that their state says first.

    Args:
        data: `rows.nouns_read`.
        run: the run's row: model, images.
        setting: the prompt, and the layer that is written into.
        subset: the nouns, in words.
    """
    title, sample = "Nouns that their state says", _sample(run, data, f"{setting}; {subset}")
    return _lines(data, "share of nouns, precision@1", "~%", ".1%", [title, *sample])


def noun_surprisal(data: pd.DataFrame, run: Mapping[str, Any], setting: str, subset: str) -> alt.TopLevelMixin:
    """After each layer, how surprising the noun is to who reads its state (arguments as `noun_precision`)."""
    title, sample = "Surprisal of a noun, read from its state", _sample(run, data, f"{setting}; {subset}")
    return _lines(data, "−log p of the noun, nats", "~g", ".2f", [title, *sample])


def image_tokens(data: pd.DataFrame, run: Mapping[str, Any], setting: str) -> alt.TopLevelMixin:
    """After each layer, the share of image tokens whose state says a noun of the caption.

    Args:
        data: `rows.image_tokens_read`.
        run: the run's row.
        setting: the prompt, and the layer that is written into.
    """
    title, sample = "Image tokens that say a noun of the caption", _sample(run, data, setting)
    return _lines(data, "share of image tokens", "~%", ".1%", [title, *sample])


def company(data: pd.DataFrame, run: Mapping[str, Any]) -> alt.TopLevelMixin:
    """After each layer, the share of image tokens that have a word of their picture nearest.

    Args:
        data: `rows.neighbours`.
        run: the run's row.
    """
    said = "words in sentences, nearest by cosine after the same layer; without texts of the picture itself"
    title = "Image tokens near a word of their picture"
    return _lines(data, "share of image tokens", "~%", ".1%", [title, *_sample(run, data, said)], COMPANY)


def _lines(
    data: pd.DataFrame, y: str, axis: str, form: str, titles: list[str], order: tuple[str, ...] = _READ
) -> alt.TopLevelMixin:
    """A line with a band for each of `line`, over the layers; `titles` begin with the title."""
    require(data.columns, COLUMNS)
    lines = [line for line in order if line in set(data["line"])]
    colours = dict(zip(order, _COMPANY_COLOURS if order is COMPANY else _COLOURS, strict=False))
    dashes = dict(zip(order, _DASHES, strict=False))
    legend = alt.Legend(
        title=None,
        orient="top",
        columns=1,
        labelLimit=300,
        symbolType="stroke",
        symbolSize=200,
        symbolStrokeWidth=1.3,
        symbolOpacity=1,
    )
    base = alt.Chart(with_words(data, form, n="n")).encode(
        alt.X("layer:Q", title="after decoder layer (from 0)", axis=alt.Axis(tickMinStep=1, format="d", grid=False)),
        alt.Color("line:N", scale=alt.Scale(domain=lines, range=[colours[one] for one in lines]), legend=legend),
    )
    dash = alt.StrokeDash("line:N", scale=alt.Scale(domain=lines, range=[dashes[one] for one in lines]), legend=legend)
    tooltip = [
        alt.Tooltip("line:N", title="read by"),
        alt.Tooltip("layer:Q"),
        alt.Tooltip("mean:Q", title="mean", format=form),
        interval_tip(),
        alt.Tooltip("n:Q", title="pictures", format=",d"),
    ]
    height = alt.Y("mean:Q", title=y, axis=alt.Axis(format=axis, tickCount=5))
    band = base.mark_area(opacity=0.15).encode(alt.Y("low:Q", title=y), alt.Y2("high:Q"))
    line = base.mark_line(strokeWidth=1.3, point={"size": 18}).encode(height, dash, tooltip=tooltip)
    title = alt.TitleParams(titles[0], subtitle=titles[1:])
    return alt.layer(band, line).properties(height=200, title=title)


def _sample(run: Mapping[str, Any], data: pd.DataFrame, told: str) -> list[str]:
    return [
        f"{of_run(run)}, n = {counted(data['n'].max(), 'picture')}",
        told,
        f"{interval_note('band', data['n'])}; means of a picture's, then over pictures",
    ]

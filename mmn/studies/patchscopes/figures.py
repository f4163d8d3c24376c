"""Layer by layer, how much of a state can be read: beside the logit lens, another picture's state and a random one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.counts import counted
from mmn.figures.layer_lines import BROWN, GREEN, SKY, layer_lines
from mmn.figures.theme import FIRST, MUTED, SECOND, THIRD
from mmn.figures.wording import of_run
from mmn.statistics.interval_words import interval_note
from mmn.studies.patchscopes.rows import COMPANY, ELSEWHERE, LINES, ON_OBJECT

_READ: Final = dict(
    zip((*LINES.values(), ON_OBJECT, ELSEWHERE), (FIRST, SECOND, THIRD, MUTED, GREEN, SKY), strict=True)
)
_COMPANY: Final = dict(zip(COMPANY, (FIRST, SKY, THIRD, MUTED, BROWN), strict=True))


def noun_precision(data: pd.DataFrame, run: Mapping[str, Any], setting: str, subset: str) -> alt.TopLevelMixin:
    """After each layer, the share of nouns that their state says first.

    Args:
        data: `rows.nouns_read`.
        run: the run's row: model, images.
        setting: the prompt, and the layer that is written into.
        subset: the nouns, in words.
    """
    title, sample = "Nouns that their state says", _sample(run, data, f"{setting}; {subset}")
    return layer_lines(data, [title, *sample], "share of nouns, precision@1", ".1%", _READ)


def noun_surprisal(data: pd.DataFrame, run: Mapping[str, Any], setting: str, subset: str) -> alt.TopLevelMixin:
    """After each layer, how surprising the noun is to who reads its state (arguments as `noun_precision`)."""
    title, sample = "Surprisal of a noun, read from its state", _sample(run, data, f"{setting}; {subset}")
    return layer_lines(data, [title, *sample], "−log p of the noun, nats", ".2f", _READ)


def image_tokens(data: pd.DataFrame, run: Mapping[str, Any], setting: str) -> alt.TopLevelMixin:
    """After each layer, the share of image tokens whose state says a noun of the caption.

    Args:
        data: `rows.image_tokens_read`.
        run: the run's row.
        setting: the prompt, and the layer that is written into.
    """
    title, sample = "Image tokens that say a noun of the caption", _sample(run, data, setting)
    return layer_lines(data, [title, *sample], "share of image tokens", ".1%", _READ)


def company(data: pd.DataFrame, run: Mapping[str, Any]) -> alt.TopLevelMixin:
    """After each layer, the share of image tokens that have a word of their picture nearest.

    Args:
        data: `rows.neighbours`.
        run: the run's row.
    """
    said = "words in sentences, nearest by cosine after the same layer; without texts of the picture itself"
    title = "Image tokens near a word of their picture"
    return layer_lines(data, [title, *_sample(run, data, said)], "share of image tokens", ".1%", _COMPANY)


def _sample(run: Mapping[str, Any], data: pd.DataFrame, told: str) -> list[str]:
    return [
        f"{of_run(run)}, n = {counted(data['n'].max(), 'picture')}",
        told,
        f"{interval_note('band', data['n'])}; means of a picture's, then over pictures",
    ]

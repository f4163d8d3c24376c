"""The rows of the figures of image tokens, and the words for their sets, targets and measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pandas as pd

from mmn.figures.figure import Asked, Rows
from mmn.figures.pairing import Pictures
from mmn.figures.wording import concepts_in_words
from mmn.store import Store
from mmn.studies.image_tokens.queries import LOST, WRONG, ImageTokenQueries
from mmn.studies.image_tokens.tables import (
    ALL,
    ELSEWHERE,
    GRADIENTS,
    LAST_ROW,
    OBJECT,
    OTHERS,
    POSITION,
    REGISTERS,
    RING_1,
    RING_2,
    TEXT,
)

SET_WORDS: Final[Mapping[str, str]] = {
    OBJECT: "object",
    RING_1: "object + 1",
    RING_2: "object + 2",
    ELSEWHERE: "its shape elsewhere",
    GRADIENTS: "gradients",
    REGISTERS: "registers",
    OTHERS: "all others",
    LAST_ROW: "last row",
    ALL: "all",
}
TARGET_WORDS: Final[Mapping[str, str]] = {POSITION: "p(c)", TEXT: "text", LAST_ROW: "last row"}
MEASURE_WORDS: Final[Mapping[str, str]] = {WRONG: "nouns that turn wrong", LOST: "probability lost"}
_ENDS: Final = ("", "_low", "_high")


def token_loss(store: Store, asked: Asked) -> Rows:
    """What nouns lose with each set of image tokens, by both measures, a row for each; beside random tokens.

    Raises:
        UsageError: nothing was measured, or the filters leave nothing.
    """
    found = store.ask(ImageTokenQueries).token_sets(asked.run_id, asked.view.concepts)
    return Rows(_by_measure(found), asked.run, _words(store, asked))


def token_share(store: Store, asked: Asked) -> Rows:
    """What nouns lose with more and more of the tokens of highest integrated gradients (raises as `token_loss`)."""
    found = store.ask(ImageTokenQueries).sizes(asked.run_id, asked.view.concepts)
    return Rows(_by_measure(found), asked.run, {"subset": concepts_in_words(asked.view.concepts)})


def knockout(store: Store, asked: Asked) -> Rows:
    """What nouns lose without attention, a row for each source, target and window, and for its control.

    Raises:
        UsageError: nothing was measured, or the filters leave nothing.
    """
    found = store.ask(ImageTokenQueries).knockouts(asked.run_id, asked.view.concepts)
    rows = [f"{SET_WORDS[row.source]} → {TARGET_WORDS[row.target]}" for row in found.itertuples()]
    columns = [_window_words(row.layer_window, row.first_layer, row.last_layer) for row in found.itertuples()]
    found = found.assign(row=rows, column=columns, owner=columns)
    shown = [found.assign(share=found[name], is_control=name != LOST) for name in (LOST, f"{LOST}_control")]
    data = pd.concat(shown, ignore_index=True).dropna(subset=["share"])
    return Rows(data, asked.run, {"subset": concepts_in_words(asked.view.concepts)})


def pictures(store: Store, asked: Asked) -> Pictures:
    """Each picture's values behind the figure of sets (raises as `token_loss`)."""
    data = store.ask(ImageTokenQueries).by_picture(asked.run_id, asked.view.concepts)
    return Pictures(data, ("measure", "token_set"), "token_set", "lost with the tokens")


def _words(store: Store, asked: Asked) -> dict[str, object]:
    counts = store.ask(ImageTokenQueries).counts(asked.run_id)
    told = {name: int(counts[name]) for name in ("n_outlined", "n_nouns")}
    return told | {"subset": concepts_in_words(asked.view.concepts)}


def _by_measure(found: pd.DataFrame) -> pd.DataFrame:
    """A row for each measure: value, control and difference of it, with their ends."""
    parts = []
    for measure in MEASURE_WORDS:
        names = {f"{measure}{end}": f"value{end}" for end in _ENDS}
        names |= {f"{measure}_{what}{end}": f"{what}{end}" for what in ("control", "difference") for end in _ENDS}
        kept = [name for name in found.columns if name in names or not name.startswith((LOST, WRONG))]
        parts.append(found[kept].rename(columns=names).assign(measure=measure))
    return pd.concat(parts, ignore_index=True)


def _window_words(window: str, first: int, last: int) -> str:
    layers = f"{first}" if first == last else f"{first}–{last}"
    return f"{window}, {layers}"

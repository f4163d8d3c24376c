"""The rows of the figures: of what share of states is a noun read, layer by layer, beside the logit lens and controls?

    patchscopes             states at p(c): precision@1 of the noun's token
    patchscopes-surprisal   the same states: −log p of that token, nats
    patchscopes-image       image tokens that say a noun of the caption; on its object and elsewhere where outlines are
                            known
    neighbours              image tokens whose nearest word in a sentence is a word of their picture, beside chance

A picture's value is the mean over its nouns, or image tokens; intervals are by picture (METHODS: Intervals).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from mmn.errors import UsageError
from mmn.figures.figure import Asked, Rows
from mmn.figures.pairing import Pictures
from mmn.figures.wording import concepts_in_words
from mmn.statistics.intervals import SHARE, Range, interval_table
from mmn.store import Store
from mmn.studies.lens.rows import object_places
from mmn.studies.patchscopes.queries import PatchscopeQueries
from mmn.studies.patchscopes.tables import IMAGE, LENS, OTHER, PATCH, RANDOM

LINES: Final = {
    PATCH: "patchscope",
    LENS: "logit lens",
    OTHER: "another picture's state",
    RANDOM: "random state",
}
ON_OBJECT, ELSEWHERE = "patchscope, its noun on the object", "patchscope, its noun elsewhere"
NEAREST, OTHERS, CHANCE = "the nearest word", "another picture's nearest", "a random word"
ANY, ANY_CHANCE = "one of the five nearest", "one of five random words"
COMPANY: Final = (NEAREST, ANY, OTHERS, CHANCE, ANY_CHANCE)
_COLUMNS: Final = ["image_id", "line", "layer", "value"]
SURPRISALS: Final = (0.0, np.inf)


def nouns_read(store: Store, asked: Asked) -> Rows:
    """Precision@1 of states at p(c).

    Raises:
        UsageError: nothing was read, or nothing of these nouns; another setting than those that were.
    """
    return _of_noun_states(store, asked, "is_top", SHARE)


def surprisals(store: Store, asked: Asked) -> Rows:
    """Mean surprisal of the noun's token from states at p(c), nats (raises as `nouns_read`)."""
    return _of_noun_states(store, asked, "surprisal", SURPRISALS)


def image_tokens_read(store: Store, asked: Asked) -> Rows:
    """The share of image tokens that say a noun of the caption (raises as `nouns_read`)."""
    setting = _setting(store, asked)
    return Rows(_means(_image_tokens(store, asked.run_id, setting), SHARE), asked.run, {"setting": setting})


def neighbours(store: Store, asked: Asked) -> Rows:
    """The share of image tokens with a word of their picture nearest.

    Raises:
        UsageError: no neighbours were looked for.
    """
    data = _matches(store, asked.run_id)
    if data.empty:
        command = f"mmn patchscopes {asked.run_id} --neighbours"
        raise UsageError(f"no neighbours of {asked.run_id}'s image tokens were looked for; {command} does that")
    return Rows(_means(data, SHARE), asked.run)


def noun_pictures(store: Store, asked: Asked) -> Pictures:
    """Each picture's precision."""
    data = _nouns(store, asked, _setting(store, asked), "is_top")
    return Pictures(data, ("line", "layer"), "layer", "nouns that are said", ".1%")


def surprisal_pictures(store: Store, asked: Asked) -> Pictures:
    """Each picture's mean surprisal."""
    data = _nouns(store, asked, _setting(store, asked), "surprisal")
    return Pictures(data, ("line", "layer"), "layer", "surprisal of the noun, nats")


def image_pictures(store: Store, asked: Asked) -> Pictures:
    """Each picture's share of image tokens that say a noun."""
    data = _image_tokens(store, asked.run_id, _setting(store, asked))
    return Pictures(data, ("line", "layer"), "layer", "image tokens that say a noun", ".1%")


def neighbour_pictures(store: Store, asked: Asked) -> Pictures:
    """Each picture's share of image tokens with a word of it nearest."""
    data = _matches(store, asked.run_id)
    return Pictures(data, ("line", "layer"), "layer", "image tokens near a word of the picture", ".1%")


def _setting(store: Store, asked: Asked) -> str:
    there = store.ask(PatchscopeQueries).settings(asked.run_id)
    if not there:
        raise UsageError(f"no state of {asked.run_id} was read in a prompt; mmn patchscopes {asked.run_id} does that")
    return asked.one("setting", "setting", there, asked.view.setting)


def _of_noun_states(store: Store, asked: Asked, value: str, within: Range) -> Rows:
    setting = _setting(store, asked)
    data = _nouns(store, asked, setting, value)
    if data.empty:
        raise UsageError(f"none of the nouns {', '.join(asked.view.concepts)} was read in run {asked.run_id}")
    words = {"setting": setting, "subset": concepts_in_words(asked.view.concepts)}
    return Rows(_means(data, within), asked.run, words)


def _nouns(store: Store, asked: Asked, setting: str, value: str) -> pd.DataFrame:
    """Returns image_id, line, layer, value."""
    found = store.ask(PatchscopeQueries).noun_readings(asked.run_id, setting, asked.view.concepts)
    return _lined(found, value)


def _image_tokens(store: Store, run_id: str, setting: str) -> pd.DataFrame:
    """Returns image_id, line, layer, value; with lines of objects where their outlines are known."""
    read = store.ask(PatchscopeQueries).image_readings(run_id, setting)
    parts = [_lined(read, "share")]
    places = object_places(store, run_id, list(dict.fromkeys(read["image_id"])))
    if len(places):
        found = store.ask(PatchscopeQueries).object_readings(run_id, setting, places)
        line = np.where(found["is_on"], ON_OBJECT, ELSEWHERE)
        parts.append(found.assign(line=line, value=found["share"])[_COLUMNS])
    return pd.concat(parts, ignore_index=True)


def _lined(found: pd.DataFrame, value: str) -> pd.DataFrame:
    return found.assign(line=found["reading"].map(LINES), value=found[value])[_COLUMNS]


def _matches(store: Store, run_id: str) -> pd.DataFrame:
    """Returns image_id, line, layer, value."""
    found = store.ask(PatchscopeQueries).matches(run_id)
    own, other = found[found["reading"] == IMAGE], found[found["reading"] == OTHER]
    lines = {NEAREST: (own, "is_match"), OTHERS: (other, "is_match"), CHANCE: (own, "chance")}
    lines |= {ANY: (own, "is_any_match"), ANY_CHANCE: (own, "chance_any")}
    parts = [rows.assign(line=line, value=rows[column])[_COLUMNS] for line, (rows, column) in lines.items()]
    return pd.concat(parts, ignore_index=True)


def _means(data: pd.DataFrame, within: Range) -> pd.DataFrame:
    """Returns line, layer, mean, low, high, n (pictures)."""
    order = {line: place for place, line in enumerate((*LINES.values(), ON_OBJECT, ELSEWHERE, *COMPANY))}
    found = interval_table(data, ["line", "layer"], "value", within=within)
    return found.sort_values("line", key=lambda lines: lines.map(order), kind="stable", ignore_index=True)

"""Metrics that need no model: the words that two texts share."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mmn.reading.nouns import lemma_of

_WORD: Final = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_EDGE: Final = re.compile(r"^[\W_]+|[\W_]+$")  # punctuation around a word, not inside it (t-shirt)
FUNCTION_WORDS: Final = frozenset(
    """
    a an the this that these those there here some any no every each all both few many much more most other another
    such one its it's it he she they them his her hers their theirs we us our you your i me my him who whom whose
    which what where when while how why and or nor but so if than then as because not of in on at by to for from
    with without into onto upon over under above below up down out off about around across along among between
    behind before after during through near next against toward towards inside outside beside besides within per via
    am is are was were be been being isn't aren't has have had having do does did doing will would can could may
    might shall should must s t very too also just only own same again
    """.split()  # noqa: SIM905 - a list would be a page of quotes
)


@dataclass(frozen=True)
class WordF1:
    """F1 of the words that two texts share, counted with repeats; 0 to 1, and 1 for two texts without words."""

    name: str = "word-f1-v1"

    def compare(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        return [_f1(words(one), words(other)) for one, other in zip(candidates, references, strict=True)]


@dataclass(frozen=True)
class Lexical:
    """1 where a content word of the reference is among the candidate's words, else 0 (OURS): a mean is a share.

    Words are compared in lower case, as they are and by their noun lemma. A token that is a mere piece of a word
    ("gir" of "giraffe") is not that word. Function words never count.
    """

    name: str = "lexical-v1"

    def compare(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        return [
            float(not _forms(one).isdisjoint(_forms(other))) for one, other in zip(candidates, references, strict=True)
        ]


def words(text: str) -> Counter[str]:
    """The words of a text, lower case, with how often each occurs."""
    return Counter(_WORD.findall(text.lower()))


def _f1(ours: Counter[str], theirs: Counter[str]) -> float:
    total = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / total if total else 1.0


@functools.lru_cache(maxsize=65_536)  # a unit's words are compared with many pictures
def _forms(text: str) -> frozenset[str]:
    """The content words of a text and their lemmas."""
    stripped = {_EDGE.sub("", word).removesuffix("'s") for word in text.lower().replace("’", "'").split()}
    content = {word for word in stripped if word and not word.isdigit() and word not in FUNCTION_WORDS}
    return frozenset(content | {lemma_of(word) for word in content})

"""The tables of HanTa and lemminflect in a tenth of their memory, with the same answers.

Both keep theirs as dictionaries of Python objects: 64 MB for 3 MB of text and 2 MB of numbers. Each has one place
where it looks its table up, and there a mapping of the same content is put; every rule stays theirs. A version of
theirs that keeps its tables elsewhere, or of another form, is left as it is: larger, and not wrong.
"""

from __future__ import annotations

import gzip
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmn.reading.sorted_lines import BEHIND_KEY, SortedEntries

State = tuple[int, int]  # the tags of two words that follow each other


class Transitions(Mapping[State, dict[int, float]]):
    """log p(tag | the two tags before it) of every state; all have the same tags, whose numbers lie in one array."""

    def __init__(self, rows: Mapping[State, Mapping[int, float]]) -> None:
        self._tags = tuple(next(iter(rows.values())))
        assert all(tuple(row) == self._tags for row in rows.values()), "states of different tags"
        self._starts = {(before, last): index * len(self._tags) for index, (before, last) in enumerate(rows)}
        self._values = array("d", (value for row in rows.values() for value in row.values()))

    def __getitem__(self, state: State) -> dict[int, float]:
        start = self._starts[state]
        return dict(zip(self._tags, self._values[start : start + len(self._tags)], strict=True))

    def __iter__(self) -> Iterator[State]:
        return iter(self._starts)

    def __len__(self) -> int:
        return len(self._starts)


def shrink_hanta(tagger: Any) -> None:
    """Packs the two large tables of a `HanoverTagger`: its transitions, and the tags of frequent words."""
    if len({tuple(row) for row in getattr(tagger, "LP_trans_word", {}).values()}) == 1:
        tagger.LP_trans_word = Transitions(tagger.LP_trans_word)
    if getattr(tagger, "cache", {}):
        tagger.cache = known_words(tagger.cache)


def known_words(known: Mapping[str, list[tuple[int, float]]]) -> SortedEntries[list[tuple[int, float]]]:
    """The tags of each frequent word, with their log probabilities, in the order that HanTa has them in."""

    def read(parts: list[str]) -> list[tuple[int, float]]:
        numbers = parts[0].split()
        return [(int(tag), float(value)) for tag, value in zip(numbers[::2], numbers[1::2], strict=True)]

    def told(tags: list[tuple[int, float]]) -> str:
        return " ".join(f"{tag} {float(value)!r}" for tag, value in tags)

    return SortedEntries((f"{word}{BEHIND_KEY}{told(tags)}" for word, tags in known.items()), read)


def shrink_lemminflect(package: Any) -> None:
    """Gives lemminflect's one lemmatizer its dictionary packed; it would read it when first asked for a lemma."""
    lemmatizer = package.Lemmatizer()
    if hasattr(lemmatizer, "lemma_lu_fn") and not hasattr(lemmatizer, "lemma_dict"):
        lemmatizer.lemma_dict = known_lemmas(Path(lemmatizer.lemma_lu_fn))


def known_lemmas(path: Path) -> SortedEntries[dict[str, tuple[str, ...]]]:
    """The lemmas that lemminflect has of each form, by class, from its file of lines `FORM,class,LEMMA/LEMMA`."""
    from lemminflect.core.LexicalUtils import categoryToUPos

    def read(parts: list[str]) -> dict[str, tuple[str, ...]]:
        of_each = (part.split(",") for part in parts)
        return {categoryToUPos(category): tuple(lemmas.split("/")) for category, lemmas in of_each}

    with gzip.open(path, "rt", encoding="utf-8") as file:
        return SortedEntries((line.strip().replace(",", BEHIND_KEY, 1) for line in file), read)

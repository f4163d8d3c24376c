"""A long table of words in few bytes: its lines in one string, sorted, found by halving.

A set of 66,000 words takes 9 MB, a dictionary of 80,000 entries 31 MB and more; their lines take 0.6 and 2. A look-up
takes microseconds instead of a fraction of one, which is nothing beside a caption.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import accumulate
from typing import Final, TypeVar

Entry = TypeVar("Entry")
BEHIND_KEY: Final = "\t"  # sorts before every character of a key, so that sorted lines are sorted by key


class SortedLines(Sequence[str]):
    """The lines in the order of their code points, a read-only sequence; UTF-8 keeps that order."""

    def __init__(self, lines: Iterable[str]) -> None:
        encoded = sorted(line.encode() for line in lines)
        self._text = b"".join(encoded)
        self._ends = array("I", accumulate(map(len, encoded)))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # slices are nobody's need
        if not 0 <= index < len(self._ends):
            raise IndexError(index)
        start = self._ends[index - 1] if index else 0
        return self._text[start : self._ends[index]].decode()

    def beginning_with(self, prefix: str) -> Iterator[str]:
        """The lines that begin with `prefix`, in order."""
        index = bisect_left(self, prefix)
        while index < len(self) and (line := self[index]).startswith(prefix):
            yield line
            index += 1


class SortedWords(Set[str]):
    """A read-only set of words."""

    def __init__(self, words: Iterable[str]) -> None:
        self._lines = SortedLines(words)

    def __contains__(self, word: object) -> bool:
        if not isinstance(word, str):
            return False
        index = bisect_left(self._lines, word)
        return index < len(self._lines) and self._lines[index] == word

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)


class SortedEntries(Mapping[str, Entry]):
    """A read-only mapping of words to what `read` makes of the parts of their lines, each time that it is asked.

    Args:
        lines: `WORD<tab>PART`; the parts of a word's several lines come in the order of their code points.
        read: of all parts of a word.
    """

    def __init__(self, lines: Iterable[str], read: Callable[[list[str]], Entry]) -> None:
        self._lines = SortedLines(lines)
        self._read = read

    def __getitem__(self, word: str) -> Entry:
        key = word + BEHIND_KEY
        parts = [line[len(key) :] for line in self._lines.beginning_with(key)]
        if not parts:
            raise KeyError(word)
        return self._read(parts)

    def __iter__(self) -> Iterator[str]:
        words = (line.partition(BEHIND_KEY)[0] for line in self._lines)
        return iter(dict.fromkeys(words))

    def __len__(self) -> int:
        return sum(1 for _ in self)

"""How alike are two texts? One interface for every caption metric; a metric's name carries its model and version.

`WordF1` needs no model and is the default: the F1 of the two texts' words, as multisets of lower-case words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

_WORD: Final = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


class TextMetric(Protocol):
    """Compares texts pair by pair."""

    @property
    def name(self) -> str:
        """What the tables and charts say: the metric with its model, layer and version."""
        ...

    def compare(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """The similarity of `candidates[i]` to `references[i]`, one number for each; higher is more alike."""
        ...


@dataclass(frozen=True)
class WordF1:
    """F1 of the words that two texts share, counted with repeats; 0 to 1, and 1 for two texts without words."""

    name: str = "word-f1-v1"

    def compare(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        return [_f1(words(one), words(other)) for one, other in zip(candidates, references, strict=True)]


def words(text: str) -> Counter[str]:
    """The words of a text, lower case, with how often each occurs."""
    return Counter(_WORD.findall(text.lower()))


def _f1(ours: Counter[str], theirs: Counter[str]) -> float:
    total = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / total if total else 1.0

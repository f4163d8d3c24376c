"""Which pictures and nouns the benchmark is of: the same whatever was scored before, whoever asks.

    a source with object masks ─► the nouns that are in most of its pictures
      ─► each noun's pictures in the order of a hash ─► the first are judged, the next are built on

A picture that is judged for one noun is built on for none. The order is a hash of protocol and picture alone, as that
of `runs.held_out`, so that neither batches nor other pictures change it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mmn.core import Example
from mmn.errors import UsageError
from mmn.studies.bench.usual import N_BUILT, N_JUDGED, N_NOUNS
from mmn.units.masks import MaskSource

PROTOCOL: Final = "bench-1"  # another name when the same inputs would give other numbers


@dataclass(frozen=True)
class Split:
    """The nouns whose units are planted, the pictures that methods are judged on, and those that units are built on."""

    nouns: tuple[str, ...]
    judged: tuple[Example, ...]
    built: tuple[Example, ...]

    @property
    def identity(self) -> tuple[tuple[str, ...], ...]:
        """Nouns and pictures, these by what they are and not by where they lie."""
        return self.nouns, tuple(one.image_id for one in self.judged), tuple(one.image_id for one in self.built)


def split(
    examples: Sequence[Example],
    masks: MaskSource,
    n_nouns: int = N_NOUNS,
    n_judged: int = N_JUDGED,
    n_built: int = N_BUILT,
) -> Split:
    """The pictures of the protocol.

    Args:
        examples: all pictures of the source.
        masks: of its objects, by lemma.
        n_nouns: how many nouns units are planted for.
        n_judged: pictures of each noun that methods are judged on.
        n_built: pictures of each noun that its units are built on; fewer where there are fewer.

    Raises:
        UsageError: too few pictures show one object.
    """
    shown = {example.image_id: frozenset(masks.find(example)) for example in examples}
    counts = Counter(noun for nouns in shown.values() for noun in nouns)
    nouns = sorted(counts, key=lambda noun: (-counts[noun], noun))[:n_nouns]
    least = n_judged + max(2, n_built // 2)
    if len(nouns) < n_nouns or counts[nouns[-1]] < least:
        there = ", ".join(f"{noun} in {counts[noun]}" for noun in nouns) or "none in any"
        raise UsageError(
            f"{masks.spec} has too few pictures of one object: {least} are needed of each of {n_nouns} (judged, and at "
            f"least half of --build), and there are {there}; give more pictures with masks, or smaller numbers to "
            "--nouns, --pictures and --build"
        )
    ordered = sorted(examples, key=lambda example: place(example.image_id))
    judged = _first(ordered, shown, nouns, n_judged, frozenset())
    built = _first(ordered, shown, nouns, n_built, frozenset(judged))
    by_id = {example.image_id: example for example in examples}
    return Split(tuple(nouns), tuple(by_id[one] for one in judged), tuple(by_id[one] for one in built))


def place(image_id: str) -> str:
    """Where a picture stands in the protocol's order."""
    return hashlib.sha256(f"{PROTOCOL}\0{image_id}".encode()).hexdigest()


def _first(
    ordered: Sequence[Example], shown: Mapping[str, frozenset[str]], nouns: Sequence[str], n: int, taken: frozenset[str]
) -> tuple[str, ...]:
    """The first n pictures of each noun that are not taken, without repeats."""
    chosen: dict[str, None] = {}
    for noun in nouns:
        own = [one.image_id for one in ordered if noun in shown[one.image_id] and one.image_id not in taken]
        chosen |= dict.fromkeys(own[:n])
    return tuple(chosen)

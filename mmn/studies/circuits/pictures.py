"""Which pictures is a circuit found on, and which is it judged by? Those of a run that say the noun, split.

    found     the circuit is found on them: at most half of the noun's pictures, drawn by a hash of seed and picture
    judged    others that say the noun; the circuit has not seen them
    mean      pictures of the run, whatever they say, whose mean activations stand for what a circuit leaves out

Where only one picture says the noun, or a circuit of one picture is asked for, it is judged by its own, too, which is
told (`is_held_out`). A noun is a lemma, and each picture's own first token of it is looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow.compute as pc

from mmn import names
from mmn.core import Example
from mmn.errors import UsageError
from mmn.reading.nouns import lemma_of
from mmn.runs import reopen, shards
from mmn.runs.reopen import ScoredRun
from mmn.runs.teacher_forcing import stored_concepts

N_LISTED: Final = 12  # nouns that an error message names
_TABLES: Final = ("image", "caption", "concept")


@dataclass(frozen=True)
class Saying:
    """A picture whose caption says a noun: the caption's tokens before it, and its own first token."""

    example: Example
    lemma: str
    before: tuple[int, ...]
    token_id: int


@dataclass(frozen=True)
class Said:
    """What the captions of a run say: every picture with its caption's tokens, and the pictures of each noun."""

    captions: Mapping[str, tuple[Example, tuple[int, ...]]]
    sayings: Mapping[str, tuple[Saying, ...]]

    def of(self, noun: str) -> tuple[Saying, ...]:
        """The pictures that say a noun, any form of it.

        Raises:
            UsageError: none does; the message names the nouns that most pictures say.
        """
        found = self.sayings.get(noun) or self.sayings.get(lemma_of(noun))
        if not found:
            known = ", ".join(self.frequent()[:N_LISTED])
            raise UsageError(f"no caption of this run says {noun!r}; most pictures say: {known}")
        return found

    def nouns_of(self, image: str) -> list[str]:
        """The nouns that a picture's caption says, in its order.

        Raises:
            UsageError: no picture's id begins so, or more than one's.
        """
        ids = [image_id for image_id in self.captions if image_id.startswith(image)]
        if len(ids) != 1:
            raise UsageError(f"--image {image}: {len(ids) or 'no'} pictures of this run begin so")
        found = {
            one.lemma: len(one.before) for of in self.sayings.values() for one in of if one.example.image_id == ids[0]
        }
        if not found:
            raise UsageError(f"--image {image}: its caption says no noun")
        return sorted(found, key=lambda lemma: found[lemma])

    def frequent(self) -> list[str]:
        """Nouns by how many pictures say them."""
        return sorted(self.sayings, key=lambda lemma: (-len(self.sayings[lemma]), lemma))

    def another(self, pictures: Sequence[str]) -> str | None:
        """The most frequent noun that none of these pictures says."""
        by_lemma = {lemma: {one.example.image_id for one in said} for lemma, said in self.sayings.items()}
        return next((lemma for lemma in self.frequent() if not by_lemma[lemma] & set(pictures)), None)

    def drawn(self, n_most: int, seed: int) -> list[tuple[Example, tuple[int, ...]]]:
        """At most so many pictures of the run with their captions, whatever these say."""
        order = sorted(self.captions, key=lambda image_id: _draw(seed, "mean", image_id))
        return [self.captions[image_id] for image_id in order[:n_most]]


@dataclass(frozen=True)
class Split:
    """The pictures of a circuit by role."""

    found: tuple[Saying, ...]
    judged: tuple[Saying, ...]

    def is_held_out(self, saying: Saying) -> bool:
        return saying not in self.found


def read_said(scored: ScoredRun) -> Said:
    """Reads it from the run's shards: the pictures as they are, and the nouns of their own captions."""
    captions: dict[str, tuple[Example, tuple[int, ...]]] = {}
    sayings: dict[str, list[Saying]] = {}
    for batch in reopen.batches(scored):
        tables = shards.read_shard(scored.path / batch, _TABLES)
        examples = list(reopen.examples(tables))
        rows = tables["caption"].filter(pc.equal(tables["caption"]["variant"], names.ORIGINAL)).to_pylist()
        tokens = {row["image_id"]: tuple(row["tokens"]) for row in rows}
        captions |= {one.image_id: (one, tokens[one.image_id]) for one in examples if one.image_id in tokens}
        for said in stored_concepts(tables, examples):
            concept, before = said.concept, tokens[said.example.image_id][: said.concept.position]
            sayings.setdefault(concept.lemma, []).append(Saying(said.example, concept.lemma, before, concept.token_id))
    return Said(captions, {lemma: tuple(_once(found)) for lemma, found in sayings.items()})


def split(sayings: Sequence[Saying], n_found: int, n_judged: int, seed: int, image: str = "") -> Split:
    """Splits the pictures of a noun.

    Args:
        sayings: of the noun.
        n_found: at most half of them, at least one.
        n_judged: at most.
        seed: of the split, which depends on the pictures alone besides.
        image: an id, or its beginning, of the one picture to find the circuit on.

    Raises:
        UsageError: no such picture says the noun, or more than one begins so.
    """
    order = sorted(sayings, key=lambda one: _draw(seed, one.lemma, one.example.image_id))
    if image:
        own = [one for one in order if one.example.image_id.startswith(image)]
        if len(own) != 1:
            ids = ", ".join(one.example.image_id[:12] for one in order[:N_LISTED])
            raise UsageError(
                f"--image {image}: {len(own) or 'no'} pictures of {sayings[0].lemma!r} begin so; it is said of {ids}"
            )
        others = [one for one in order if one not in own]
        return Split(tuple(own), (*own, *others[:n_judged]))
    n = max(1, min(n_found, len(order) // 2))
    found, others = order[:n], order[n:]
    return Split(tuple(found), tuple(others[:n_judged] or found))


def _once(sayings: Sequence[Saying]) -> Iterator[Saying]:
    """Each picture once: where it says two forms of a noun, by the first."""
    seen: set[str] = set()
    for one in sayings:
        if one.example.image_id not in seen:
            seen.add(one.example.image_id)
            yield one


def _draw(seed: int, *of: str) -> str:
    return hashlib.sha256("\0".join([str(seed), *of]).encode()).hexdigest()

"""What do the captions of a run say? Its nouns, for their share of a probability and for another picture's units.

    share of t(c)       p(t(c)) / Σ p(t) at p(c), over the first tokens t of all nouns of the run's captions
    another's noun      for each picture one other picture, for each noun one of that picture's: below

General damage lowers every noun alike, the share of one among all it leaves. And the first units of a noun that the
picture does *not* say are as many, found by the same method, and not this noun's: what zeroing them takes away is
damage to any noun. The other picture is the first one, in an order that a hash of seed and both pictures gives, of
whose nouns one is not said here, neither as a word nor by its first token; the noun is drawn likewise. OURS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Int
from torch import Tensor

from mmn import names
from mmn.reading.plain_text import Text
from mmn.runs import reopen, shards
from mmn.runs.reopen import ScoredRun

N_CAPTIONS: Final = 32  # of the run, as a text
_TABLES: Final = ("image", "caption", "concept")


@dataclass(frozen=True)
class Said:
    """A noun of a picture's caption."""

    image_id: str
    noun: str
    lemma: str
    token_id: int


@dataclass(frozen=True)
class Told:
    """The pictures, captions and nouns of a whole run (variant `original`, words that the user chose left out)."""

    tables: Mapping[str, pa.Table]
    nouns: Mapping[str, tuple[Said, ...]]  # by picture, those that say any

    @classmethod
    def of(cls, scored: ScoredRun) -> Told:
        """Reads it from the run's shards."""
        read = [shards.read_shard(scored.path / batch, _TABLES) for batch in reopen.batches(scored)]
        tables = {name: pa.concat_tables([one[name] for one in read if name in one]) for name in _TABLES}
        for name in ("caption", "concept"):
            tables[name] = tables[name].filter(pc.equal(tables[name]["variant"], names.ORIGINAL))
        tables["concept"] = tables["concept"].filter(pc.is_null(tables["concept"]["target_at"]))
        nouns: dict[str, list[Said]] = {}
        for row in tables["concept"].select(["image_id", "noun", "lemma", "token_id"]).to_pylist():
            nouns.setdefault(row["image_id"], []).append(Said(**row))
        return cls(tables, {image_id: tuple(said) for image_id, said in nouns.items()})

    @property
    def token_ids(self) -> Int[Tensor, " nouns"]:
        """The first tokens of all nouns, each once, in order."""
        return torch.tensor(sorted({one.token_id for said in self.nouns.values() for one in said}))

    @property
    def digest(self) -> str:
        """Stands for all pictures and nouns: a run that goes on has others to draw from."""
        every = sorted(f"{one.image_id} {one.lemma}" for said in self.nouns.values() for one in said)
        return hashlib.sha256("\n".join(every).encode()).hexdigest()[:12]

    def of_pictures(self, image_ids: Collection[str]) -> dict[str, pa.Table]:
        """The tables of some pictures alone."""
        wanted = pa.array(sorted(image_ids), pa.string())
        return {name: table.filter(pc.is_in(table["image_id"], wanted)) for name, table in self.tables.items()}

    def others(self, image_id: str, seed: int) -> Iterator[str]:
        """The pictures that say a noun which this one does not, in drawn order."""
        drawn = sorted(self.nouns, key=lambda other: _draw(seed, "another", image_id, other))
        return (other for other in drawn if self._foreign(image_id, other))

    def another(self, image_id: str, other: str, lemma: str, seed: int) -> Said:
        """The drawn noun of the picture `other` for the noun `lemma` of this one."""
        return min(self._foreign(image_id, other), key=lambda one: _draw(seed, image_id, lemma, one.lemma))

    def captions_without(self, lemmas: Collection[str], n_most: int, seed: int, prefix: Sequence[int]) -> list[Text]:
        """Distinct captions that say none of some nouns, in drawn order, after the tokens `prefix`."""
        said = {image_id for image_id, nouns in self.nouns.items() if {one.lemma for one in nouns} & set(lemmas)}
        rows = self.tables["caption"].select(["image_id", "tokens"]).to_pylist()
        distinct = {tuple(row["tokens"]): row["image_id"] for row in rows if row["image_id"] not in said}
        drawn = sorted(distinct, key=lambda tokens: _draw(seed, "caption", distinct[tokens]))
        return [Text(tuple(prefix), tokens) for tokens in drawn if tokens][:n_most]

    def _foreign(self, image_id: str, other: str) -> list[Said]:
        """Nouns of the picture `other` that this one does not say."""
        here = self.nouns.get(image_id, ())
        lemmas, token_ids = {one.lemma for one in here}, {one.token_id for one in here}
        return [one for one in self.nouns[other] if one.lemma not in lemmas and one.token_id not in token_ids]


def _draw(seed: int, *of: str) -> str:
    return hashlib.sha256("\0".join([str(seed), *of]).encode()).hexdigest()

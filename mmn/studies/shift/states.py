"""What each of two models has of the nouns that are asked for: read while it is loaded, kept when it is gone.

a model ─► at p(c) of each picture, with the same captions: residual, activations of all units      Read
the first one, before it is let go ─► its columns of W_out                                         Columns
                                      its tokens, and the concepts of each noun with their words   Said
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmn.counts import counted
from mmn.errors import UsageError
from mmn.models.model import Model
from mmn.runs import reopen
from mmn.studies.dictionaries.grounding import words_of
from mmn.studies.dictionaries.measure import gram, n_concepts
from mmn.studies.dictionaries.solvers import in_span, k_means
from mmn.studies.dictionaries.usual import LEAST
from mmn.studies.dictionaries.vectors import ACTIVATIONS, Pictures, Vectors, checked_sites, read_vectors


@dataclass(frozen=True)
class Wanted:
    """What is asked for; the site of the residual is behind a layer, or behind the final norm."""

    layer: int | None = None
    k: int = 20
    limit: int = 200
    alpha: float = 1.0


@dataclass(frozen=True)
class Columns:
    """W_out of a model, on the CPU, by layer."""

    by_layer: tuple[Float[Tensor, "d m"], ...]

    @classmethod
    def of(cls, model: Model) -> Columns:
        return cls(tuple(model.anatomy.w_out(layer).cpu().clone() for layer in range(model.anatomy.n_layers)))


@dataclass(frozen=True)
class Awake:
    """Units, by their flat indices layer · m + i, ascending, and a of each in n pictures; all others have 0.

    Without experts that is every unit of the model; a unit whose expert sleeps in some of the pictures has 0 there.
    """

    flat: Int[Tensor, " k"]
    values: Float[Tensor, "n k"]

    @classmethod
    def of(cls, values: Float[Tensor, "n units"]) -> Awake:
        """From the vectors of `ACTIVATIONS`."""
        if not values.is_sparse:
            return cls(torch.arange(values.shape[1]), values)
        flat = values.coalesce().indices()[1].unique()
        return cls(flat, values.index_select(1, flat).to_dense())

    def at(self, flat: Int[Tensor, " k2"]) -> Float[Tensor, "n k2"]:
        """Returns a of these units, among which all that are awake are."""
        found = self.values.new_zeros(len(self.values), len(flat))
        found[:, torch.searchsorted(flat, self.flat)] = self.values
        return found


@dataclass(frozen=True)
class Read:
    """What one model has of a noun: residuals (n, d), and a of the units that are awake in some picture."""

    vectors: Vectors
    site: str
    awake: Awake

    @property
    def residual(self) -> Float[Tensor, "n d"]:
        return self.vectors.values[self.site]


@dataclass(frozen=True)
class Pair:
    """Both models' states of one noun; `model` is the other one, which is loaded.

    Attributes:
        other: the run that the first is compared with.
        noun: a lemma.
        first: what the first model has.
        second: what the other one has.
        columns: W_out of the first one.
        model: the other one.
        alpha: how much of a delta is added.
        seed: of the first run.
    """

    other: str
    noun: str
    first: Read
    second: Read
    columns: Columns
    model: Model
    alpha: float
    seed: int

    @property
    def key(self) -> dict[str, str]:
        """The columns that every row begins with."""
        return {"other": self.other, "noun": self.noun, "site": self.first.site}

    @cached_property
    def flat(self) -> Int[Tensor, " k"]:
        """The units that are awake in some picture, in one of the models: `Awake.flat`."""
        return torch.cat([self.first.awake.flat, self.second.awake.flat]).unique()

    @property
    def both(self) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
        """Their a in the first model, and in the second."""
        return self.first.awake.at(self.flat), self.second.awake.at(self.flat)

    @property
    def image_ids(self) -> list[str]:
        """The pictures, which both models read."""
        ours, theirs = ([one.image_id for one in read.vectors.examples] for read in (self.first, self.second))
        assert ours == theirs, "the two models read other pictures"
        return ours


@dataclass(frozen=True)
class FirstWords:
    """The concepts of one noun, which pictures are whose, and what each says."""

    centres: Float[np.ndarray, "k d"]
    own: Int[np.ndarray, " n"]
    words: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Said:
    """What is kept of the first model when it is gone: its shape, its tokens, the words of its concepts and units."""

    name: str
    tokens: dict[str, int]
    words: dict[str, FirstWords]


def read_first(
    load: Callable[[], Model],
    run_path: Path,
    pictures: Sequence[Pictures],
    wanted: Wanted,
    told: Callable[[int], None],
) -> tuple[dict[str, Read], Columns, Said]:
    """What the first model has of every noun, its columns, and its words."""
    scored = reopen.open_run(load(), run_path)
    model = scored.model
    reads = {one.lemma: read_model(model, scored.run.prompt, run_path, one, wanted, told) for one in pictures}
    seed = scored.run.settings.seed
    words = {noun: _first_words(model, read, wanted.k, seed) for noun, read in reads.items()}
    return reads, Columns.of(model), Said(model.facts.name, model.tokenizer.get_vocab(), words)


def read_model(
    model: Model, prompt: str, run_path: Path, pictures: Pictures, wanted: Wanted, told: Callable[[int], None]
) -> Read:
    """What one model has of a noun, reading the first run's captions.

    Raises:
        UsageError: too few pictures still open.
    """
    (site,) = checked_sites(model, ("residual",), wanted.layer)
    found = read_vectors(model, prompt, run_path, pictures, (site, ACTIVATIONS), told)
    if len(found.examples) < LEAST:
        raise UsageError(
            f"only {counted(len(found.examples), 'picture')} of {pictures.lemma!r} still open: put the others back"
        )
    return Read(found, site, Awake.of(found.values[ACTIVATIONS]))


def _first_words(model: Model, read: Read, k: int, seed: int) -> FirstWords:
    z = read.residual.double()
    coordinates, axes = in_span(gram(read.residual))
    found = k_means(coordinates, n_concepts(k, len(coordinates)), seed)
    own = found.coefficients(coordinates).argmax(1)
    order = np.argsort(-np.bincount(own, minlength=len(found.concepts)), kind="stable")
    centres = (found.concepts[order] @ axes) @ z.numpy()
    said = words_of(model, torch.from_numpy(centres).float(), read.site)
    return FirstWords(centres, np.argsort(order)[own], tuple(one.words for one in said))

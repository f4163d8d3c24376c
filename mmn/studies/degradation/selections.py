"""Which units does an intervention take? For each concept: a ranking's best, its best interpretable ones, random ones.

    top             the first units of the full ranking by a score (recomputed: beyond the stored top k)
    interpretable   the first interpretable ones of the same ranking (METHODS: Ablation)
    random          the control: units drawn from the same layers as the ranking's (P1), or from all layers (P2)
    random-picture  P2's control as its code draws it: from all layers, once for all nouns of a picture
    another         the first units of another picture's noun by the same score (`controls`)

A choice is ordered, best first, and the first k of it are taken, so that every k holds the smaller ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Int
from torch import Tensor

from mmn import names
from mmn.core import Neuron
from mmn.models.model import Model
from mmn.runs import shards
from mmn.runs.reopen import ScoredRun
from mmn.scores.equations import rank_matched, rank_units, uniform_draw
from mmn.scores.methods import Measured, Scored
from mmn.scores.methods import draws as drawn_scores
from mmn.scores.rows import ConceptAt
from mmn.studies.annotate.measure import MANY_UNITS, NEURONS_SHARD
from mmn.units.decoding import decode_units

BLOCK: Final = 4096  # units of a ranking that are decoded at a time, where not all are


@dataclass(frozen=True)
class Choice:
    """Units that one concept's intervention takes, best first; each is a flat index, layer · m + i.

    `other` is the picture and the noun whose units they are, where they are not the concept's own.
    """

    said: ConceptAt
    selection: str
    method: str
    draw: int
    units: Int[Tensor, " n"]
    other: tuple[str, str] | None = None


@dataclass(frozen=True)
class Row:
    """One row of a batch: the first `k` units of a choice, and the size of the noise on them, or what they are
    multiplied by, where that is asked.
    """

    choice: Choice
    k: int
    sigma: float | None = None
    factor: float | None = None


class Interpretable:
    """Which units of a model are interpretable; what the run has not decoded yet is decoded when first asked for."""

    def __init__(self, model: Model, decoded: Iterable[pa.Table] = ()) -> None:
        self._model = model
        self._known = np.full(model.facts.n_units, -1, np.int8)  # 1 interpretable, 0 not, -1 not known
        for table in decoded:
            self._note(table)

    @classmethod
    def of(cls, scored: ScoredRun) -> Interpretable:
        """Begins with what `mmn annotate` has decoded."""
        decoded = sorted(name for name in shards.finished_shards(scored.path) if name.startswith(NEURONS_SHARD))
        return cls(scored.model, (shards.read_shard(scored.path / name)["neuron"] for name in decoded))

    def first(self, ranking: Int[Tensor, " n"], n_most: int) -> Int[Tensor, " most"]:
        """The first `n_most` interpretable units of a ranking, or as many as it has."""
        found: list[np.ndarray] = []
        flat = ranking.cpu().numpy()
        for start in range(0, len(flat), BLOCK):
            block = flat[start : start + BLOCK]
            self._learn(block)
            found.append(block[self._known[block] == 1])
            if sum(map(len, found)) >= n_most:
                break
        return torch.from_numpy(np.concatenate(found)[:n_most]).to(ranking.device)

    def _learn(self, units: Int[np.ndarray, " n"]) -> None:
        """Of a model of few units all are decoded at once: a vocabulary takes longer to read than they do."""
        few = self._model.facts.n_units <= MANY_UNITS
        wanted = np.arange(len(self._known)) if few and (self._known[units] < 0).any() else units
        missing = wanted[self._known[wanted] < 0]
        if len(missing):
            d_mlp = self._model.facts.d_mlp
            self._note(decode_units(self._model, [Neuron(*divmod(int(one), d_mlp)) for one in missing]))

    def _note(self, table: pa.Table) -> None:
        flat = table["layer"].to_numpy().astype(np.int64) * self._model.facts.d_mlp + table["unit"].to_numpy()
        self._known[flat] = table["is_interpretable"].to_numpy()


Control = Callable[[Measured, Scored, Int[Tensor, "n k"], str, int], Int[Tensor, "n k"]]  # of and to places in scores


def choose(
    measured: Measured,
    scored: Mapping[str, Scored],
    selections: Sequence[str],
    n_most: int,
    interpretable: Interpretable,
    control: Control,
    draws: Mapping[str, int],
) -> Iterator[Choice]:
    """Yields every concept's choices by every method: concepts in their order, then methods, selections, draws.

    Args:
        measured: the concepts.
        scored: every unit's score by each method; layers that a method leaves out are missing at the end.
        selections: of `names.ALL_SELECTIONS`.
        n_most: units of a choice; less where a ranking has no more.
        interpretable: of the model.
        control: draws the `random` units; those of `random-picture` are drawn alike whatever it is.
        draws: how often each selection is drawn.
    """
    found: list[list[Choice]] = [[] for _ in measured.said]
    for method, of_method in scored.items():
        n_ranked = of_method.score[0].numel() if names.INTERPRETABLE in selections else n_most
        places = rank_units(of_method.score, n_ranked, is_unit=of_method.is_ranked).unit
        ranked = of_method.flat(places, measured.model.facts.d_mlp)  # -1 behind those that image tokens wake
        for selection in selections:
            for draw in range(draws[selection]):
                drawn = _drawn(selection, control, measured, of_method, places[:, :n_most], method, draw)
                for index, said in enumerate(measured.said):
                    units = drawn[index, :n_most]
                    if selection == names.INTERPRETABLE:
                        units = interpretable.first(ranked[index][ranked[index] >= 0], n_most)
                    found[index].append(Choice(said, selection, method, draw, units[units >= 0].clone()))
    for choices in found:
        yield from choices


def _drawn(
    selection: str, control: Control, measured: Measured, of: Scored, places: Int[Tensor, "n k"], method: str, draw: int
) -> Int[Tensor, "n k"]:
    """The units of a selection, best first, as flat indices; the interpretable ones are chosen from the ranking."""
    if selection == names.RANDOM_PICTURE:
        return one_for_the_picture(measured, places.shape[1], draw)
    if selection == names.RANDOM:
        places = control(measured, of, places, method, draw)
    return of.flat(places, measured.model.facts.d_mlp)


def same_layers(
    measured: Measured, of: Scored, ranked: Int[Tensor, "n k"], method: str, draw: int
) -> Int[Tensor, "n k"]:
    """P1's control: rank for rank in the layer of the ranking's unit, so that every k has its counts per layer."""
    return rank_matched(drawn_scores(measured, f"{names.RANDOM_MATCHED}:{method}", of, draw), ranked).unit


def all_layers(
    measured: Measured, of: Scored, ranked: Int[Tensor, "n k"], _method: str, draw: int
) -> Int[Tensor, "n k"]:
    """P2's control: a uniform draw over all layers, whatever the ranking."""
    return rank_units(drawn_scores(measured, names.RANDOM, of, draw), ranked.shape[1], is_unit=of.is_unit).unit


def one_for_the_picture(measured: Measured, k: int, draw: int) -> Int[Tensor, "n k"]:
    """P2's control as its code draws it: the same units of all layers for every noun of a picture, whatever its top.

    In a mixture of experts of all experts, since at each noun others are awake. Flat indices.
    """
    facts, seed = measured.model.facts, measured.settings.seed
    drawn = [
        uniform_draw(seed, one.example.image_id, names.ORIGINAL, "", names.RANDOM, facts.n_units, draw)
        for one in measured.said
    ]
    values = torch.stack(drawn).to(measured.a.device).view(len(drawn), facts.n_layers, facts.d_mlp)
    widths = torch.tensor(measured.model.anatomy.widths, device=values.device)
    is_unit = torch.arange(facts.d_mlp, device=values.device) < widths[:, None]
    return rank_units(values, k, is_unit=is_unit.expand_as(values)).unit

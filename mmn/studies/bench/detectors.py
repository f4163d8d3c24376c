"""Rows of W_gate and W_up for a unit that is active at some positions and at no others (OURS).

    what the layer's FFN reads at every position of some pictures ─► ridge regression on ±1 ─► W_gate[i] = s·w
    the same on 1 everywhere ─► W_up[i]

so that a = act(s·w·x)·1: about s where w·x is 1, next to nothing where it is −1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmn.core import Concept, Neuron
from mmn.counts import counted
from mmn.errors import ModelError
from mmn.models.float64 import wide
from mmn.models.gates import Readers, readers
from mmn.models.model import Model
from mmn.reading.hooks import ablate
from mmn.reading.hooks.streams import Replayed, capture_streams, replay_now
from mmn.studies.bench.roles import SEER, Role
from mmn.studies.bench.told import Told

RIDGE: Final = 3e-2  # of the mean variance of what an FFN reads
At = tuple[Told, Concept]  # a picture and the noun of its caption


@dataclass(frozen=True)
class Site:
    """A layer, and what its FFN reads, and what it hands on, at every position of the pictures to build on."""

    model: Model
    layer: int
    built: Sequence[Told]
    reads: tuple[Float[Tensor, "_ d"], ...]
    streams: tuple[Float[Tensor, "_ d"], ...]
    passes: Mapping[str, Replayed]
    now: dict[str, Replayed] = field(default_factory=dict)

    @classmethod
    def read(cls, model: Model, layer: int, built: Sequence[Told], passes: Mapping[str, Replayed]) -> Site:
        """The layer as it is now; `passes` are the pictures' as they were before anything was planted."""
        found = [read_at(model, layer, passes[told.example.image_id]) for told in built]
        reads, streams = (tuple(one[part] for one in found) for part in (0, 1))
        return cls(model, layer, built, reads, streams, passes)

    @property
    def readers(self) -> Readers:
        return readers(self.model)[self.layer]

    def replayed(self, told: Told) -> Replayed:
        """A picture's pass, to be gone again from this layer or an earlier one: what they read is written already."""
        image_id = told.example.image_id
        if image_id not in self.now:
            self.now[image_id] = replay_now(self.passes[image_id])
        return self.now[image_id]

    def saying(self, noun: str) -> list[At]:
        """The pictures with the object whose captions say it.

        Raises:
            ModelError: fewer than two.
        """
        found = [(told, concept) for told in self.built if (concept := told.saying(noun)) is not None]
        if len(found) < 2:
            raise ModelError(
                f"{self.model.facts.name} says {noun!r} of {counted(len(found), 'picture')} to build on, and "
                "2 are needed; "
                "give more pictures with masks, or another model"
            )
        return found


@torch.no_grad()
def read_at(
    model: Model, layer: int, replayed: Replayed, without: Neuron | None = None
) -> tuple[Float[Tensor, "positions d"], Float[Tensor, "positions d"]]:
    """What a layer's FFN reads and what the layer hands on; with a unit zeroed, where one is given."""
    switched_off = nullcontext() if without is None else ablate(model, one_unit(model, without))
    with switched_off, capture_streams(model, {layer: readers(model)[layer].gate}) as found:
        replayed.again(1)
    return found.reads[layer][0].float().clone(), found.streams[layer][0].float().clone()


def one_unit(model: Model, *units: Neuron | None) -> Bool[Tensor, "rows L m"]:
    """The mask of one unit in each row, of none where it is None."""
    mask = torch.zeros(len(units), model.anatomy.n_layers, model.anatomy.d_mlp, dtype=torch.bool, device=model.device)
    for row, unit in enumerate(units):
        if unit is not None:
            mask[row, unit.layer, unit.unit] = True
    return mask


def where_active(told: Told, noun: str, role: Role) -> Bool[Tensor, " positions"]:
    """Where a unit is to be active: at the object's image tokens, or where the noun is about to be said."""
    found = torch.zeros(told.n_prompt + len(told.caption.token_ids), dtype=torch.bool)
    if role == SEER:
        places = told.is_image.nonzero()[:, 0].cpu()
        if noun in told.on:
            found[places[torch.from_numpy(told.on[noun])]] = True
    elif (concept := told.saying(noun)) is not None:
        found[told.at(concept)] = True
    return found


def detector(site: Site, noun: str, role: Role) -> Float[Tensor, " d"]:
    """W_gate's row of a role for a noun."""
    wanted = torch.cat([where_active(told, noun, role) for told in site.built])
    return separate(torch.cat(site.reads), wanted, role.loudness)


def detector_of(site: Site, noun: str, unit: Neuron, loudness: float) -> Float[Tensor, " d"]:
    """W_gate's row of a unit that sees whether another one, of an earlier layer, wrote: the same places without it are
    among those where it is not to be active.
    """
    role = Role("seen", 0.0, 0.0)
    wanted = torch.cat([where_active(told, noun, role) for told in site.built])
    without = [
        read_at(site.model, site.layer, site.replayed(told), unit)[0][where_active(told, noun, role)]
        for told, _ in site.saying(noun)
    ]
    x = torch.cat([*site.reads, *without])
    return separate(x, torch.cat([wanted, torch.zeros(len(x) - len(wanted), dtype=torch.bool)]), loudness)


def separate(
    x: Float[Tensor, "positions d"], wanted: Bool[Tensor, " positions"], loudness: float
) -> Float[Tensor, " d"]:
    """Ridge regression of ±1, both classes weighing the same; `loudness` on average where it is wanted."""
    wanted = wanted.to(x.device)
    weight = torch.where(wanted, 0.5 / wanted.sum(), 0.5 / (~wanted).sum())
    found = _ridge(x, weight, torch.where(wanted, 1.0, -1.0))
    return found * (loudness / (x[wanted] @ found).mean())


def constant(site: Site) -> Float[Tensor, " d"]:
    """The row whose product with what the FFN reads is nearest to 1 at every position."""
    x = torch.cat(site.reads)
    ones = torch.ones(len(x), device=x.device)
    return _ridge(x, ones / len(x), ones)


def _ridge(
    x: Float[Tensor, "positions d"], weight: Float[Tensor, " positions"], target: Float[Tensor, " positions"]
) -> Float[Tensor, " d"]:
    home, x, weight, target = x.device, wide(x), wide(weight), wide(target)
    gram = (x * weight[:, None]).T @ x
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + ridge, (x * (weight * target)[:, None]).sum(0)).float().to(home)

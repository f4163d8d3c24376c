"""What is really lost without a unit: the measurement that rankings are held against.

    everywhere   y − y(a_i := 0 at every position of prompt and caption), in logits, of the planted units and of a
                 sample of all others; the sample is a hash of the protocol, the same for all pictures
    curves       p / p(untouched) with the first k units of a ranking set to 0, or to their mean, at every position,
                 beside random units of the same layers; the area between the two, over k in equal steps of log k

OURS; ablation curves are P1's (figure 6), the mean instead of 0 because a unit at 0 may be one that never is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmn.core import Concept, Neuron
from mmn.models.float64 import place_of_wide, wide
from mmn.models.gates import readers
from mmn.models.model import Model
from mmn.reading.hooks import ablate, hold
from mmn.reading.hooks.streams import Replayed, capture_streams, replay
from mmn.studies.bench.pictures import PROTOCOL
from mmn.studies.bench.told import Told

ROWS_AT_ONCE: Final = 64
SHARES: Final = (0.001, 0.0032, 0.01, 0.032)  # of all units: the k of curves
KINDS: Final = ("zero", "mean")


def sampled(n_layers: int, d_mlp: int, n: int) -> tuple[Neuron, ...]:
    """So many units, as many of each layer, by a hash of the protocol."""
    digest = hashlib.sha256(f"{PROTOCOL}\0units".encode()).digest()
    generator = np.random.Generator(np.random.Philox(int.from_bytes(digest[:8], "big")))
    each = min(d_mlp, -(-n // n_layers))
    return tuple(
        Neuron(layer, int(unit)) for layer in range(n_layers) for unit in sorted(generator.permutation(d_mlp)[:each])
    )


@torch.inference_mode()
def effects(
    replayed: Replayed, told: Told, concepts: Sequence[Concept], units: Sequence[Neuron]
) -> Float[np.ndarray, "concepts units"]:
    """What zeroing each unit at every position takes from the logits of a picture's nouns (before a soft cap)."""
    model = replayed.model
    found = np.zeros((len(concepts), len(units)))
    for layer in sorted({one.layer for one in units}):
        places = [place for place, one in enumerate(units) if one.layer == layer]
        for start in range(0, len(places), ROWS_AT_ONCE - 1):
            some = places[start : start + ROWS_AT_ONCE - 1]
            final = replayed.without(layer, [-1, *(units[place].unit for place in some)])
            y = wide(_logits(model, final, told, concepts)).cpu().numpy()
            found[:, some] = (y[:1] - y[1:]).T
    return found


@dataclass(frozen=True)
class Curves:
    """What is left of a noun's probability, by kind of ablation: over k, of the first units and of their control."""

    own: dict[str, Float[np.ndarray, " ks"]]
    control: dict[str, Float[np.ndarray, " ks"]]

    def area(self, kind: str) -> float:
        """How far the curve of the first units lies below its control's: 1 is all of the probability at every k."""
        return float(np.mean(self.control[kind] - self.own[kind]))


def ks(n_units: int) -> tuple[int, ...]:
    """The k of curves."""
    return tuple(sorted({max(1, round(share * n_units)) for share in SHARES}))


@torch.inference_mode()
def curves(
    replayed: Replayed,
    told: Told,
    concept: Concept,
    units: Int[Tensor, " k"],
    control: Int[Tensor, " k"],
    means: Float[Tensor, "L m"],
) -> Curves:
    """The curves of one ranking.

    Args:
        replayed: the picture.
        told: likewise.
        concept: the noun.
        units: the ranking's first ones, as flat indices; as many as the largest k.
        control: random ones of the same layers, rank for rank.
        means: of each unit, to be set to.
    """
    model, sizes = replayed.model, ks(replayed.model.facts.n_units)
    masks = torch.stack(
        [_mask(model, units[:0]), *(_mask(model, some[:k]) for some in (units, control) for k in sizes)]
    )
    found: dict[str, np.ndarray] = {}
    for kind in KINDS:
        with _changed(model, masks, kind, means, told):
            final = replayed.again(len(masks))
        y = logits_of(model, final[:, told.at(concept)])
        p = wide(y).softmax(-1)[:, concept.token_id].cpu().numpy()
        found[kind] = p[1:] / p[0]
    n = len(sizes)
    return Curves({kind: one[:n] for kind, one in found.items()}, {kind: one[n:] for kind, one in found.items()})


@torch.inference_mode()
def mean_activations(model: Model, built: Sequence[Told]) -> Float[Tensor, "L m"]:
    """Each unit's mean over all positions of the pictures to build on: what it is set to instead of 0."""
    every = {layer: one.gate for layer, one in enumerate(readers(model))}
    shape = (model.anatomy.n_layers, model.anatomy.d_mlp)
    total = torch.zeros(shape, dtype=torch.float64, device=place_of_wide(model.device))
    for told in built:
        with capture_streams(model, every) as found:
            model.module(**told.whole(model), use_cache=False)
        for layer, one in enumerate(readers(model)):
            x = found.reads[layer][0]
            a = model.anatomy.activations[layer](one.gate(x)) * one.up(x)
            total[layer] += wide(a).mean(0)
    return (total / len(built)).float().to(model.device)


def read_again(model: Model, told: Told) -> Replayed:
    """A picture's pass, to be gone through again."""
    return replay(model, told.whole(model))


def _changed(
    model: Model, masks: Bool[Tensor, "rows L m"], kind: str, means: Float[Tensor, "L m"], told: Told
) -> AbstractContextManager[None]:
    if kind == "zero":
        return ablate(model, masks)
    everywhere = torch.zeros(told.n_prompt + len(told.caption.token_ids), dtype=torch.long, device=model.device)
    return hold(model, masks, means[None], everywhere)


def _mask(model: Model, units: Int[Tensor, " k"]) -> Bool[Tensor, "L m"]:
    mask = torch.zeros(model.facts.n_units, dtype=torch.bool, device=model.device)
    mask[units] = True
    return mask.view(model.anatomy.n_layers, -1)


def _logits(
    model: Model, final: Float[Tensor, "rows positions d"], told: Told, concepts: Sequence[Concept]
) -> Float[Tensor, "rows concepts"]:
    """Before a soft cap, as scores are."""
    found = [model.anatomy.uncapped(logits_of(model, final[:, told.at(one)]))[:, one.token_id] for one in concepts]
    return torch.stack(found, dim=1)


def logits_of(model: Model, stream: Float[Tensor, "rows d"]) -> Float[Tensor, "rows V"]:
    """The logits of what goes into the final norm."""
    return model.anatomy.logits(model.anatomy.unembedding(model.anatomy.final_norm(stream)).float())

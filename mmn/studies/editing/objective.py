"""What change of W_out makes the target token likelier than the source token? Directions, sizes, and when to stop.

P2 (arXiv 2311.07470) changes the columns w of selected units alone. Summed over the pictures of the edit,

    loss(Δ) = Σ_i [ a_i (w_i+Δ_i)·W_U[t0] − a_i (w_i+Δ_i)·W_U[t1] ] + β‖Δ‖₂

with a_i the unit's activation at p(c), t0 the source's token and t1 the target's. Its first term is linear in Δ and
unbounded below, so it gives a direction, never a size: the size comes from stopping on success (p(t1) > p(t0) at p(c),
by a forward pass) and from a cap on ‖Δ_i‖ / ‖w_i‖. Two solvers: `grow` follows the closed form's direction in sizes
that grow by a fixed factor; `descend` takes Adam's steps on the loss. Adam is also what FiNE uses, the same first
author's later method; its loss (NLL of the target, KL on the prompt, repetition, norm of all deltas) is another one.

The control `rank_one_direction` changes a whole layer as ROME (arXiv 2202.05262) does, without its covariance: the
smallest update W + (v* − W k) kᵀ/(kᵀk) that writes v* = W k + s·direction for the mean activation k. In a mixture of
experts W is that of all experts side by side (OURS): k is 0 for what sleeps at all of the nouns, so that the update is
of the columns that are awake at one of them, and no other expert is touched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from mmn.core import Neuron
from mmn.models.adapters import Anatomy
from mmn.models.deltas import Columns, Part, RankOne, added, column_norms, relative_norm
from mmn.models.model import Model

SUCCESS, CAP, STEPS = "success", "cap", "steps"  # why a solver stopped
SMALLEST: Final = 0.02  # the first size that `grow` tries, as ‖Δ_i‖ / ‖w_i‖
GROWTH: Final = 1.15  # the next size; a size is at most this much larger than needed
CHECK_EVERY: Final = 5  # steps of Adam between two looks whether the edit succeeded


@dataclass(frozen=True)
class Aim:
    """What an edit wants at p(c) of n pictures: `towards` = W_U[t1] − W_U[t0], from units with activations `a`."""

    a: Float[Tensor, "n L m"]
    towards: Float[Tensor, " d"]

    def strength(self, layer: int) -> Float[Tensor, " m"]:
        """Σ of a layer's activations over the pictures, which the linear term of the loss depends on alone."""
        return self.a[:, layer].sum(0)


@dataclass(frozen=True)
class Solution:
    """The change that was found, why the search stopped (`success`, `cap` or `steps`) and after how many tries."""

    parts: tuple[Part, ...]
    stop: str
    n_tries: int


def p2_direction(anatomy: Anatomy, aim: Aim, units: Sequence[Neuron]) -> tuple[Columns, ...]:
    """The closed form: Δ_i = ‖w_i‖ · sign(Σ a_i) · (W_U[t1] − W_U[t0]) / ‖W_U[t1] − W_U[t0]‖, of relative size 1.

    Of all Δ_i with that norm it lowers the loss the most. The norm is the same share of each column (OURS), so that
    the cap is one number.
    """
    unit_length = aim.towards / aim.towards.norm()
    parts = []
    for layer, chosen in _by_layer(units).items():
        length = anatomy.columns(layer, torch.tensor(chosen)).float().norm(dim=0)
        sign = aim.strength(layer)[list(chosen)].sign()
        parts.append(Columns(layer, chosen, torch.outer(unit_length, sign * length)))
    return tuple(parts)


def rank_one_direction(anatomy: Anatomy, aim: Aim, layer: int) -> tuple[Part, ...]:
    """The update s · (W_U[t1] − W_U[t0]) kᵀ / kᵀk, k the layer's mean activation; s makes its relative size 1."""
    k = aim.a[:, layer].mean(0)
    u, v = aim.towards / aim.towards.norm(), k / k.square().sum()
    part: Part = RankOne(layer, u, v)
    if anatomy.mixtures:
        awake = k.nonzero()[:, 0]
        part = Columns(layer, tuple(awake.tolist()), torch.outer(u, v[awake]))
    return (part.times(1 / relative_norm(anatomy, [part])),)


def usual_layer(units: Sequence[Neuron]) -> int:
    """The layer with most of the units; of several, the highest."""
    counts = Counter(one.layer for one in units)
    return max(counts, key=lambda layer: (counts[layer], layer))


def grow(model: Model, direction: Sequence[Part], max_norm: float, is_success: Callable[[], bool]) -> Solution:
    """The smallest tried size of `direction` (of relative size 1) that succeeds, or its size at the cap.

    Args:
        model: is edited while `is_success` is called.
        direction: parts whose largest ‖Δ_i‖ / ‖w_i‖ is 1.
        max_norm: the cap; the last size that is tried.
        is_success: called under the edited model.
    """
    sizes = [SMALLEST * GROWTH**power for power in range(1000) if SMALLEST * GROWTH**power < max_norm] + [max_norm]
    for n_tries, size in enumerate(sizes, start=1):
        parts = tuple(part.times(size) for part in direction)
        if _succeeds(model, parts, is_success):
            return Solution(parts, SUCCESS, n_tries)
    return Solution(parts, CAP, len(sizes))


def descend(
    model: Model,
    aim: Aim,
    units: Sequence[Neuron],
    settings: Adam,
    max_norm: float,
    is_success: Callable[[], bool],
) -> Solution:
    """Adam's steps on `p2_loss` from Δ = 0; a column that grows beyond the cap is cut to it after every step."""
    layers = _by_layer(units)
    shape = (len(aim.towards), 1)
    values = [torch.zeros(shape[0], len(chosen), device=aim.a.device) for chosen in layers.values()]
    optimizer = torch.optim.Adam([value.requires_grad_(True) for value in values], lr=settings.lr)
    for step in range(1, settings.n_steps + 1):
        optimizer.zero_grad()
        p2_loss(model.anatomy, aim, _columns(layers, values), settings.beta).backward()
        optimizer.step()
        _cut(model.anatomy, layers, values, max_norm)
        parts = tuple(
            Columns(part.layer, part.units, part.values.detach().clone()) for part in _columns(layers, values)
        )
        if step % CHECK_EVERY == 0 or step == settings.n_steps:
            if _succeeds(model, parts, is_success):
                return Solution(parts, SUCCESS, step)
            if min(float(column_norms(model.anatomy, part).min()) for part in parts) >= max_norm * 0.999:
                return Solution(parts, CAP, step)
    return Solution(parts, STEPS, settings.n_steps)


@dataclass(frozen=True)
class Adam:
    """The settings of `descend`, OURS: P2's are not public. FiNE's are: lr 1e-3 (5e-3 for one model), 50 epochs."""

    lr: float = 1e-3
    n_steps: int = 500
    beta: float = 0.1


def p2_loss(anatomy: Anatomy, aim: Aim, parts: Sequence[Columns], beta: float) -> Float[Tensor, ""]:
    """P2's loss, summed over the pictures; its first term in logits before the final norm, ‖Δ‖ over all columns."""
    linear = torch.zeros((), device=aim.a.device)
    square = torch.zeros((), device=aim.a.device)
    for part in parts:
        written = anatomy.columns(part.layer, torch.tensor(part.units)).float() + part.values
        linear = linear - (aim.strength(part.layer)[list(part.units)] * (aim.towards @ written)).sum()
        square = square + part.values.square().sum()
    return linear + beta * square.clamp(min=1e-24).sqrt()  # ‖Δ‖ has no gradient at 0


def _succeeds(model: Model, parts: Sequence[Part], is_success: Callable[[], bool]) -> bool:
    with added(model, parts):
        return is_success()


def _by_layer(units: Sequence[Neuron]) -> dict[int, tuple[int, ...]]:
    ordered = sorted(units)
    return {
        layer: tuple(one.unit for one in ordered if one.layer == layer)
        for layer in sorted({one.layer for one in ordered})
    }


def _columns(layers: dict[int, tuple[int, ...]], values: Sequence[Tensor]) -> list[Columns]:
    return [Columns(layer, units, value) for (layer, units), value in zip(layers.items(), values, strict=True)]


@torch.no_grad()
def _cut(anatomy: Anatomy, layers: dict[int, tuple[int, ...]], values: Sequence[Tensor], max_norm: float) -> None:
    for part, value in zip(_columns(layers, values), values, strict=True):
        value.mul_((max_norm / column_norms(anatomy, part).clamp(min=1e-12)).clamp(max=1.0))

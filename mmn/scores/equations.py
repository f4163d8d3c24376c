"""One pure function per score, and the ranking of units by it. Definitions: METHODS, P1 and P2.

`a` are activations at p(c), the forward pass that predicts concept c, for n concepts at once; `rows` are rows of the
unembedding W_U, one for each concept. Everything is float32. The product W_U[t] · W_out is only ever formed for the
tokens t of the concepts at hand, never for the vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from mmn.models.adapters import Anatomy, Norm, norms

UNITS_AT_ONCE = 1 << 18  # that are ranked: each takes 40 bytes meanwhile

# For all layers, for each, or for each layer's routed experts and for the matrix beside them.
Rows = Float[Tensor, "n d"] | Float[Tensor, "n L d"] | Float[Tensor, "n L 2 d"]


def contribution(
    anatomy: Anatomy, a: Float[Tensor, "n L m"], rows: Rows, chosen: Sequence[Int[Tensor, "n _"]] = ()
) -> Float[Tensor, "n L m"]:
    """What each unit adds to the logit of its concept: a_i · (W_U[t] · W_out[:, i]). P2's equation; signed, in logits.

    With plain rows of W_U all norms are left out, as in P2, and so are the factors of a decoder that has some. With
    `written_rows` the scores of all units and the other terms add up to the logit. With act(gate) for `a` it is what
    P2's released code computed at publication.

    Args:
        anatomy: of the model.
        a: activations; compact in a model with experts (`adapters/experts.py`), and so are the scores.
        rows: of W_U, for all layers or for each.
        chosen: of each layer the experts that a is of, in a model with experts.
    """
    scores = torch.empty_like(a)
    for layer in range(anatomy.n_layers):
        row = rows if rows.ndim == 2 else rows[:, layer]
        if anatomy.mixtures:
            product = anatomy.mixtures[layer].products(row, chosen[layer])
            scores[:, layer] = pad(product, (0, a.shape[2] - product.shape[1])) * a[:, layer]
            continue
        torch.mul(anatomy.products(layer, row), a[:, layer], out=scores[:, layer])
    return scores


def centred_rows(rows: Float[Tensor, "n d"], mean: Float[Tensor, " d"]) -> Float[Tensor, "n d"]:
    """W_U[t] − mean over tokens of W_U (`models.token_rows`): what a logit is above the mean logit of all tokens.

    OURS. Softmax takes any constant over tokens away, so what a unit adds to all of them alike moves no probability:
    `contribution` counts it, and this leaves it out. Summed over all tokens, a unit's centred contributions are 0; the
    difference of two tokens' is that of their plain ones. A bias of the head is no unit's, nor is its mean.
    """
    return rows - mean


def folded_rows(anatomy: Anatomy, rows: Float[Tensor, "n d"], final: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """W_U[t] with the final norm at residual `final` folded in: γ and 1/rms (LayerNorm: centred, too).

    OURS. Linear in the residual stream once its rms (or deviation) is fixed at what it was, so that
    logit = folded_row · final + `norm_bias`. The factor of the head is in it, too.
    """
    return _behind(anatomy.final_norm, anatomy.norm, rows, final) * anatomy.head_factor


def written_rows(
    anatomy: Anatomy, folded: Float[Tensor, "n d"], ffn: Float[Tensor, "n L d"] | Float[Tensor, "n L 3 d"] | None
) -> Rows:
    """What a unit's output is multiplied by to give its part of the logit: `folded_rows` behind what follows W_out.

    OURS. A norm after the FFN is folded as the final norm is, at the scale that it had for `ffn`, what W_out wrote.

    Args:
        anatomy: of the model.
        folded: `folded_rows`.
        ffn: each layer's FFN output before the norm after it; None where there is no such norm. Where experts and the
            matrix beside them have norms of their own, behind it what each of both wrote, before its norm.
    """
    gains = anatomy.gains.ffn
    if not anatomy.post_ffns:
        same = len(set(gains)) == 1
        return folded * gains[0] if same else folded[:, None] * torch.tensor(gains, device=folded.device)[:, None]
    assert ffn is not None, "a norm follows the FFN, and its input was not captured"
    layers = [
        _behind(norm, anatomy.post_norm, folded * gains[layer], ffn[:, layer] if ffn.ndim == 3 else ffn[:, layer, 0])
        for layer, norm in enumerate(anatomy.post_ffns)
    ]
    if ffn.ndim == 3:
        return torch.stack(layers, dim=1)
    inner = [one.inner_norms for one in anatomy.mixtures]
    both = [
        [_behind(norm, anatomy.post_norm, row, ffn[:, layer, part]) for part, norm in enumerate(inner[layer], start=1)]
        for layer, row in enumerate(layers)
    ]
    return torch.stack([torch.stack(parts, dim=1) for parts in both], dim=1)


def norm_bias(anatomy: Anatomy, rows: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """What the final norm's own bias β adds to each logit: W_U[t] · β; zero for a norm without one."""
    bias = getattr(anatomy.final_norm, "bias", None)
    if anatomy.norm is Norm.LAYER and bias is not None:
        return anatomy.head_factor * (rows @ bias.float())
    return torch.zeros(len(rows), device=rows.device)


def uniform_draw(
    seed: int, image_id: str, variant: str, lemma: str, method: str, n_units: int, draw: int = 0
) -> Tensor:
    """The random control's scores: uniform in [0, 1), from a hash of what they are for, so independent of batches."""
    key = "\0".join([str(seed), image_id, variant, lemma, method, str(draw)])
    generator = np.random.Generator(np.random.Philox(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")))
    return torch.from_numpy(generator.random(n_units, dtype=np.float32))


def attribution(
    values: Float[Tensor, "n p m"], gradients: Float[Tensor, "n p m"], is_picture: Bool[Tensor, "n p"]
) -> tuple[Float[Tensor, "n m"], Int[Tensor, "n m"]]:
    """P1 equation 2, value · gradient at each image token: its signed maximum over them, and at which position.

    With z (the pre-activation) for the values it is `attribution`, with a `attribution-act`: the first-order estimate
    of what zeroing the unit at that token does, with the sign turned.
    """
    product = (values * gradients).masked_fill(~is_picture[..., None], -torch.inf)
    best, position = product.max(dim=1)
    return best, position


def by_row(values: Tensor, n_rows: int) -> Float[Tensor, "batch positions m"]:
    """Captured values in float32, without their graph; some families hand their FFN all rows' positions as one list."""
    return values.detach().reshape(n_rows, -1, values.shape[-1]).float()


@dataclass(frozen=True)
class Ranked:
    """Chosen units of n concepts, by `rank` from 1 (suppressors: -1 is the most negative, -2 the next)."""

    rank: Int[Tensor, " k"]
    unit: Int[Tensor, "n k"]  # flat index, layer · m + i
    score: Float[Tensor, "n k"]


def rank_units(
    scores: Float[Tensor, "n L m"], top_k: int, bottom_k: int = 0, is_unit: Bool[Tensor, "n L m"] | None = None
) -> Ranked:
    """The `top_k` highest and the `bottom_k` most negative of all L·m units, both cut to how many there are.

    Ties go to the lower layer, then the lower unit. Suppressors are negative: there may be none, so a rank is only
    given to units with a score below 0, and missing ones have index -1.

    Args:
        scores: of all units, or of those of a concept that are awake (`Scored.units`).
        top_k: how many of the highest.
        bottom_k: how many of the most negative.
        is_unit: where there is one, if not everywhere; a concept that has fewer than the next has -1 behind them.
    """
    flat = scores.flatten(1)
    n_units = flat.shape[1] if is_unit is None else int(is_unit.flatten(1).sum(1).max())
    top_k, bottom_k = min(top_k, n_units), min(bottom_k, n_units)
    unit = torch.cat([_best(_of_units(flat, is_unit), top_k), _best(_of_units(-flat, is_unit), bottom_k)], dim=1)
    score = flat.gather(1, unit)
    if is_unit is not None:
        unit = unit.where(is_unit.flatten(1).gather(1, unit), -1)
    unit[:, top_k:] = unit[:, top_k:].where(score[:, top_k:] < 0, -1)
    return Ranked(torch.cat([torch.arange(1, top_k + 1), -torch.arange(1, bottom_k + 1)]), unit, score)


def _of_units(flat: Float[Tensor, "n units"], is_unit: Bool[Tensor, "n L m"] | None) -> Float[Tensor, "n units"]:
    return flat if is_unit is None else flat.masked_fill(~is_unit.flatten(1), -torch.inf)


def _best(flat: Float[Tensor, "n units"], k: int) -> Int[Tensor, "n k"]:
    """Indices of each row's k largest values, ties to the lower index: 1.7 to 4 times as fast as a stable sort.

    A float's bits, read as an integer, are in the float's order once those of the negative ones are turned round;
    with the index below them, no two keys are equal.
    """
    n_rows = max(1, UNITS_AT_ONCE // max(1, flat.shape[1]))
    return torch.cat([_best_of_few(some, k) for some in flat.split(n_rows)])


def _best_of_few(flat: Float[Tensor, "n units"], k: int) -> Int[Tensor, "n k"]:
    n_units = flat.shape[1]
    bits = (flat + 0.0).view(torch.int32)  # adding 0 makes -0.0 equal to 0.0
    ordered = bits ^ (bits >> 31 & 0x7FFFFFFF)
    countdown = torch.arange(n_units - 1, -1, -1, device=flat.device)
    return n_units - 1 - ((ordered.long() << 32 | countdown).topk(k, dim=1).values & 0xFFFFFFFF)


def rank_matched(draws: Float[Tensor, "n L m"], reference: Int[Tensor, "n k"]) -> Ranked:
    """Random units that lie, rank for rank, in the layers of a reference ranking (flat indices, best first).

    So the top k has the reference's number of units in each layer for every k, not only for the last. Within a layer
    units come in the order of their draw, without replacement; the reference's own units are not excluded. Where the
    reference has none any more (-1), neither has the control.
    """
    n, _, d_mlp = draws.shape
    order = draws.argsort(dim=2, descending=True, stable=True)
    is_missing, reference = reference < 0, reference.clamp(min=0)
    layer = reference // d_mlp
    earlier = torch.nn.functional.one_hot(layer, draws.shape[1]).cumsum(1).gather(2, layer[..., None])[..., 0] - 1
    concept = torch.arange(n, device=layer.device)[:, None]
    unit = layer * d_mlp + order[concept, layer, earlier.clamp(max=d_mlp - 1)]
    score = draws.flatten(1).gather(1, unit)
    return Ranked(torch.arange(1, unit.shape[1] + 1), unit.masked_fill(is_missing, -1), score)


def _behind(norm: nn.Module, form: Norm, rows: Float[Tensor, "n d"], at: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows that read a norm's output, as rows that read its input `at`: its gain, and its scale as it was there."""
    scaled = rows * norms.gain(form, norm).to(rows.device)
    if form is Norm.LAYER:
        scaled = scaled - scaled.mean(dim=-1, keepdim=True)
    return scaled / norms.scale(form, norm, at)

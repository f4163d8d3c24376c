"""Attribution in a mixture of experts: that of the units of experts that the picture's tokens go through.

    attribution-act  a_i^p · ∂y/∂a_i^p = a_i^p · (g^p · W_out[e][:, i])    g^p: ∂y/∂(what the experts wrote at p)
    attribution      z_i^p · ∂y/∂z_i^p = z_i^p · ∂a_i^p/∂z_i^p · (g^p · W_out[e][:, i])

a carries the router's weight, as everywhere; the weight does not depend on z, and what later routers weigh is part of
the total derivative. Which experts a token goes through is no matter of slopes: it stays. At a token that does not go
through its expert a unit's a is 0, and so is its product: the maximum over image tokens counts those as 0.

One expert after the other is computed again from what it was given, so that memory follows the experts that some image
token goes through; units of others have no score. Shared experts, and layers without a mixture, are as a single FFN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from mmn import names
from mmn.errors import UsageError
from mmn.models.adapters.experts import Mixture
from mmn.models.model import Model
from mmn.reading.hooks import ExpertGraph
from mmn.reading.hooks.experts import Call
from mmn.scores.equations import attribution, by_row


def own_experts_read_images(model: Model) -> bool:
    """Whether image tokens go through experts that no other token goes through."""
    return any(one.routed is not None and one.routed.block is not None for one in model.anatomy.mixtures)


def require_units_at_image_tokens(model: Model, what: str) -> None:
    """Raises `UsageError` for a mixture whose image tokens go through experts of their own, which are no units."""
    if own_experts_read_images(model):
        raise UsageError(
            f"{what} is not there for {model.facts.name}: its image tokens go through experts of their own, which "
            "write nothing where words are predicted and are no units"
        )


def require_z(model: Model, what: str) -> None:
    """As `require_units_at_image_tokens`; or where z, which a gate is given, cannot be told."""
    require_units_at_image_tokens(model, what)
    for layer, one in enumerate(model.anatomy.mixtures):
        is_mixed_up = one.routed is not None and not getattr(one.routed.module, "is_concatenated", True)
        if is_mixed_up or (one.plain is not None and one.activation is None):
            raise UsageError(
                f"{what} is not there for {model.facts.name}: what the gate of layer {layer} is given is not known; "
                f"{names.ATTRIBUTION_ACT} needs only what it gives"
            )


class Best(NamedTuple):
    """Of units: the score, the image token that it is read at, the activation there, and which of its layer each is."""

    score: Tensor
    token_position: Tensor
    activation: Tensor
    units: Tensor


def best_of_experts(
    mixtures: Sequence[Mixture],
    graph: ExpertGraph,
    y: Float[Tensor, ""],
    keep: bool,
    mask: Bool[Tensor, "batch n"],
    rows: list[int],
    of_activation: bool,
) -> Best:
    """Each row's units in all layers but the last: "r L1 w", ascending by unit, -1 throughout behind the last.

    Args:
        mixtures: of all layers.
        graph: the pass.
        y: the rows' logits, added up.
        keep: whether the graph is asked again.
        mask: which positions of the prompt are image tokens.
        rows: of the batch, each once.
        of_activation: `attribution-act` rather than `attribution`.
    """
    routed = {layer: value for layer, value in graph.routed.items() if layer < len(mixtures) - 1}
    own = {layer: value for layer, value in graph.own(of_activation).items() if layer < len(mixtures) - 1}
    gradients = iter(torch.autograd.grad(y, [*routed.values(), *own.values()], retain_graph=keep))
    of_routed, of_own = ({layer: next(gradients) for layer in part} for part in (routed, own))

    def of_layer(layer: int, row: int) -> Best:
        parts, places = [_none(y)], mask[row].nonzero()[:, 0]
        if layer in routed:
            there = places.to(of_routed[layer].device)
            parts += _of_routed(graph.calls[layer], of_routed[layer], row, there, of_activation)
        if layer in own:
            at = (len(mask), row, places.to(own[layer].device))
            parts.append(_of_own(mixtures[layer], graph, layer, own[layer], of_own[layer], at))
        return Best(*(torch.cat([one.to(y.device) for one in values]) for values in zip(*parts, strict=True)))

    return Best(*side_by_side([[of_layer(layer, row) for layer in range(len(mixtures) - 1)] for row in rows]))


def slopes_of_layer(mixture: Mixture, graph: ExpertGraph, layer: int, y: Float[Tensor, ""]) -> Float[Tensor, " units"]:
    """Σ a · ∂y/∂a of a layer's units over all tokens: the slope of y along a factor on the unit, at 1."""
    found = y.new_zeros(mixture.n_units)
    if mixture.routed is not None:
        call = graph.calls[layer]
        (gradient,) = torch.autograd.grad(y, graph.routed[layer], retain_graph=True)
        for expert in call.chosen.unique().tolist():
            token, _, a = call.of(expert)
            products = a * (gradient[call.in_output(expert, token)] @ mixture.routed.w_out(expert).to(gradient))
            found[expert * mixture.routed.d_expert :][: mixture.routed.d_expert] = products.sum(0)
    if mixture.plain is not None:
        (gradient,) = torch.autograd.grad(y, graph.a[layer])
        found[mixture.start :] = (graph.a[layer] * gradient).flatten(0, -2).sum(0)
    return found.detach()


def _none(like: Tensor) -> Best:
    nothing, no_number = like.detach().float().new_empty(0), torch.empty(0, dtype=torch.long, device=like.device)
    return Best(nothing, no_number, nothing, no_number)


def side_by_side(found: Sequence[Sequence[tuple[Tensor, ...]]]) -> list[Tensor]:
    """Each of several values of rows and layers as one tensor "r L w"; those of fewer units with -1 behind them."""
    width = max(len(one[0]) for row in found for one in row)
    by_value = [
        [torch.stack([pad(one[part], (0, width - len(one[part])), value=-1) for one in row]) for row in found]
        for part in range(len(found[0][0]))
    ]
    return list(map(torch.stack, by_value))


def _of_routed(
    call: Call, gradient: Float[Tensor, "t d"], row: int, places: Int[Tensor, " p"], of_activation: bool
) -> list[Best]:
    """Of each expert that an image token of the row goes through, in ascending order."""
    routed, n_tokens = call.routed, len(places)
    number = places.new_full((int(call.position.max()) + 1,), -1)
    number[places] = torch.arange(n_tokens, device=places.device)
    kept = ((call.row == row) & (number[call.position] >= 0)).nonzero()[:, 0]
    some = call.at(kept)
    found = []
    for expert in some.chosen.unique().tolist():
        token, _, a = some.of(expert)
        value = a if of_activation else some.slopes_of(expert)[2]
        slope = gradient[call.in_output(expert, kept[token])].float() @ routed.w_out(expert).to(gradient).float()
        there = number[some.position[token]]
        best, where = _best(_placed(value, there, n_tokens), _placed(slope, there, n_tokens))
        activation = _placed(a * routed.factor, there, n_tokens).gather(0, where[None])[0]
        units = expert * routed.d_expert + torch.arange(routed.d_expert, device=places.device)
        found.append(Best(best, where, activation, units))
    return found


def _placed(values: Float[Tensor, "n m"], there: Int[Tensor, " n"], n_tokens: int) -> Float[Tensor, "p m"]:
    """Values of some image tokens as of all, 0 at the others."""
    return values.new_zeros(n_tokens, values.shape[1], dtype=torch.float32).index_copy_(0, there, values.float())


def _best(values: Float[Tensor, "p m"], gradients: Float[Tensor, "p m"]) -> tuple[Tensor, Tensor]:
    """`equations.attribution` of one row whose positions are all image tokens."""
    everywhere = torch.ones(1, len(values), dtype=torch.bool, device=values.device)
    best, where = attribution(values[None], gradients[None], everywhere)
    return best[0], where[0]


def _of_own(
    mixture: Mixture,
    graph: ExpertGraph,
    layer: int,
    value: Tensor,
    gradient: Tensor,
    at: tuple[int, int, Int[Tensor, " p"]],
) -> Best:
    """Of the units beside routed experts: `value`, `gradient` are theirs; `at`: rows of the batch, row, places."""
    n_rows, row, places = at
    assert mixture.plain is not None, layer
    width = mixture.plain.in_features
    own, slope, a = (by_row(part, n_rows)[row, places, :width] for part in (value, gradient, graph.a[layer]))
    best, where = _best(own, slope)
    activation = a.gather(0, where[None])[0]
    if layer in graph.gates:
        activation = activation * by_row(graph.gates[layer], n_rows)[row, places, 0][where]
    return Best(best, where, activation, torch.arange(mixture.start, mixture.n_units, device=places.device))

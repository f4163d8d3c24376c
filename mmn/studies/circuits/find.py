"""Which units carry a noun from the picture to its logit? A few of each layer, found from the last layer down.

    y           the noun's logit at p(c)
    w_n^q       ∂y/∂a_n^q: what the noun takes of unit n at position q; held constant
    A_n         Σ_q w_n^q · a_n^q: a kept unit, as the noun sees it, in logits
    flow        a_m^p · ∂A_n/∂a_m^p, for a unit m of the layer before that has units, at position p
    edge        Σ_p flow (weight, signed) and Σ_p |flow| (size); the last layer's are into y itself
    score(m)    Σ of size over the kept units of the next layer, mean over pictures: the k highest are kept
    inputs      the same of what enters the first layer at image tokens, and at text tokens, into its kept units
    attention   Σ_p |flow − flow around attention| / (that + Σ_p |flow around attention|), of each edge and layer

Rajaram et al. (arXiv 2404.14349; read second-hand, no code): |a_m| · |∂a_n/∂a_m|, the k units of a layer that maximise
it summed over the kept ones of the next, layer by layer from the last, from a few pictures of the concept. OURS: a_n
stands at every position, and w says which of them count (in their convolutions a unit has no p(c)); so edges are in
logits, and those into several units can be added. Attention is no node, and what goes through it is told of each edge.

In a mixture of experts a unit is one of an expert, a has the router's weight and is 0 at a token that does not go
through the expert. Routing is held: which experts a token goes through is no matter of slopes. By plain gradients the
router's weights change with what they are made of, as everything does; by RelP they are constant.

Left out: edges over more than one layer (the sum of weights into a unit is not its activation), attention heads,
experts that image tokens alone go through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.scores.expert_gradients import require_units_at_image_tokens
from mmn.studies.circuits.passes import Pass, Passes, Shown, Target, passes_of
from mmn.studies.circuits.rules import Rule


@dataclass(frozen=True)
class Flows:
    """What passes from sources into one target, for each picture: signed, its size, and its size by the way.

    `far` goes through an attention, `near` around all of them; where positions cancel, size is more than |weight|.
    """

    weight: Float[Tensor, "rows sources"]
    size: Float[Tensor, "rows sources"]
    far: Float[Tensor, "rows sources"]
    near: Float[Tensor, "rows sources"]

    def of(self, sources: Int[Tensor, " n"]) -> Flows:
        """Those of some sources."""
        return Flows(*(getattr(self, name)[:, sources] for name in _FIELDS))


_FIELDS: Final = ("weight", "size", "far", "near")


@dataclass(frozen=True)
class Circuit:
    """The units of each layer, best first, of which the first `k` are kept; and what passes between the kept ones.

    Attributes:
        layers: those that have units, U of all L; `kept` and what is told of kept units are of these.
        order: units of each layer by falling score; of a layer with fewer than the widest, the missing numbers last.
        score: of each unit, in logits; mean over pictures.
        effect: Σ_p a^p · ∂y/∂a^p of each kept unit: the first-order estimate of its part in the logit by all paths.
        at_image: the share of Σ_p |a^p · ∂y/∂a^p| that is at image tokens.
        position: where that is largest, counted from the row's first token.
        from_image: the share of Σ_p |e^p · ∂A_n/∂e^p| that is at image tokens, e what enters the first layer: how much
            of a kept unit comes from the picture, by all paths, those through other units and attention included.
        into: of each of `layers` the flows into each of its kept units, from the kept units of the layer before; the
            first layer's from image tokens and from text, and behind the last layer's those into the noun.
        carried: of each of `layers`, how much of the size into the next layer's kept units the kept ones have.
        tokens: of a circuit of one picture, the flows from each of its tokens into each kept unit of the first layer.
        image_at: of a circuit of one picture, which of its tokens are the picture's, counted from the row's first.
        logit: y, of each picture.
        prob: its softmax.
    """

    k: int
    layers: tuple[int, ...]
    order: Int[Tensor, "L m"]
    score: Float[Tensor, "L m"]
    effect: Float[Tensor, "rows U k"]
    at_image: Float[Tensor, "rows U k"]
    position: Int[Tensor, "rows U k"]
    from_image: Float[Tensor, "rows U k"]
    into: tuple[tuple[Flows, ...], ...]
    carried: Float[Tensor, " U"]
    tokens: tuple[Flows, ...]
    image_at: tuple[int, ...]
    logit: Float[Tensor, " rows"]
    prob: Float[Tensor, " rows"]

    @property
    def kept(self) -> Int[Tensor, "U k"]:
        """The kept units of each of `layers`, best first."""
        return self.order[list(self.layers), : self.k]


def most_kept(model: Model) -> int:
    """How many units of each layer can be kept: as many as a token goes through in the narrowest layer with some."""
    mixtures = model.anatomy.mixtures
    return min([one.n_compact for one in mixtures if one.n_units], default=model.anatomy.d_mlp)


def require_circuits(model: Model, rule: Rule) -> None:
    """Raises `UsageError` for a model with a part that the rule is not there for, or image tokens without units."""
    require_units_at_image_tokens(model, "a circuit")
    rule.require(model)


def find_circuit(model: Model, shown: Shown, rule: Rule, k: int) -> Circuit:
    """The circuit of a noun, from pictures that say it.

    Args:
        model: its lock is held during the passes.
        shown: the pictures, padded on the left.
        rule: how derivatives are taken.
        k: units kept in each layer, at most `most_kept`.

    Raises:
        UsageError: a model without image tokens in its decoder, or whose image tokens have no units, or with a part
            that the rule is not there for.
    """
    require_circuits(model, rule)
    image_positions(model, shown.inputs)
    passes, n_layers = passes_of(model, shown, rule), model.anatomy.n_layers
    layers = tuple(layer for layer, width in enumerate(model.anatomy.widths) if width)
    k = min(k, most_kept(model))
    score = torch.zeros(n_layers, model.anatomy.d_mlp, device=model.anatomy.home)
    into: list[tuple[Flows, ...]] = []
    carried: list[Tensor] = []
    targets = [Target(n_layers, 0)]
    for layer in reversed(layers):
        found = _flows_into(passes, targets, layer)
        size = torch.stack([flows.size for flows in found]).sum(0)
        score[layer] = size.mean(0)
        kept = _by_score(score[layer])[:k]
        carried.insert(0, _share(size[:, kept].sum(), size.sum()))
        into.insert(0, tuple(flows.of(kept) for flows in found))
        targets = [Target(layer, unit) for unit in kept.tolist()]
    into.insert(0, _inputs_into(passes, targets))
    order = _by_score(score)
    all_kept = [Target(layer, unit) for layer in layers for unit in order[layer, :k].tolist()]
    told = (*_told(passes, all_kept), _from_image(passes, all_kept))
    effect, at_image, position, from_image = (values.unflatten(1, (len(layers), k)) for values in told)
    logit, prob = (torch.cat([getattr(one, name).detach() for one in passes()]) for name in ("y", "prob"))
    return Circuit(
        k,
        layers,
        order,
        score,
        effect,
        at_image,
        position,
        from_image,
        tuple(into),
        torch.stack(carried),
        *(_tokens_into(passes, targets) if len(shown.before) == 1 else ((), ())),
        logit,
        prob,
    )


def _by_score(score: Float[Tensor, "*L m"]) -> Int[Tensor, "*L m"]:
    """Units by falling score; the missing ones of a narrow layer have 0, and no score is less."""
    return score.argsort(dim=-1, descending=True, stable=True)


def _share(part: Float[Tensor, "*n"], whole: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    return torch.where(whole > 0, part / whole, 0.0)


def _flows_into(passes: Passes, targets: Sequence[Target], layer: int) -> tuple[Flows, ...]:
    """Into each target from every unit of a layer."""
    found: list[list[Flows]] = [[] for _ in targets]
    for one in passes():
        sources = [part.values for part in one.paths.a[layer]]
        add = partial(one.over_positions, layer)
        for number, target in enumerate(targets):
            found[number].append(_summed(*_flow(one, target, sources), add))
    return tuple(_joined(parts) for parts in found)


def _inputs_into(passes: Passes, targets: Sequence[Target]) -> tuple[Flows, ...]:
    """Into each target from all image tokens together, and from all others."""
    found: list[list[Flows]] = [[] for _ in targets]
    for one in passes():
        kinds = torch.stack([one.is_image, ~one.is_image], dim=-1).float()
        for number, target in enumerate(targets):
            flow, near = _input_flow(one, target)
            found[number].append(_summed([flow[..., None] * kinds], [near[..., None] * kinds], _over_rows))
    return tuple(_joined(parts) for parts in found)


def _tokens_into(passes: Passes, targets: Sequence[Target]) -> tuple[tuple[Flows, ...], tuple[int, ...]]:
    """Into each target from each token of the only picture; and which of these are its own."""
    (one,) = passes()
    found = []
    for target in targets:
        flow, near = (values[one.is_there][None, None] for values in _input_flow(one, target))
        found.append(_summed([flow], [near], _over_rows))
    return tuple(found), tuple(one.is_image[one.is_there].nonzero()[:, 0].tolist())


def _over_rows(values: Sequence[Float[Tensor, "rows p s"]]) -> Float[Tensor, "rows s"]:
    (one,) = values
    return one.sum(1)


def _flow(one: Pass, target: Target, sources: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Source times derivative at each position, by all paths, and by those around attention."""
    y = one.target(target)
    total = torch.autograd.grad(y, sources, retain_graph=True, materialize_grads=True)
    with one.paths.without_attention():
        near = torch.autograd.grad(y, sources, retain_graph=True, materialize_grads=True)
    values = [source.detach() for source in sources]
    all_paths, around = (list(map(torch.mul, values, gradients)) for gradients in (total, near))
    return all_paths, around


def _input_flow(one: Pass, target: Target) -> tuple[Float[Tensor, "rows p"], Float[Tensor, "rows p"]]:
    """The flow of what enters the first layer, at each position."""
    (flow,), (near,) = _flow(one, target, [one.paths.embedding])
    return one.by_row(flow), one.by_row(near)


def _summed(flow: list[Tensor], near: list[Tensor], add: Callable[[list[Tensor]], Tensor]) -> Flows:
    """Flows of parts, added up over positions."""
    far = [every - around for every, around in zip(flow, near, strict=True)]
    sizes = (add([part.abs() for part in parts]) for parts in (flow, far, near))
    return Flows(add(flow), *sizes)


def _joined(parts: Sequence[Flows]) -> Flows:
    return Flows(*(torch.cat([getattr(part, name) for part in parts]) for name in _FIELDS))


def _told(
    passes: Passes, kept: Sequence[Target]
) -> tuple[Float[Tensor, "rows n"], Float[Tensor, "rows n"], Int[Tensor, "rows n"]]:
    """Of each kept unit its estimated effect, how much of its size is at image tokens, and where it is largest."""
    effects, shares, positions = [], [], []
    for one in passes():
        part = torch.stack([one.at_positions(unit) for unit in kept], dim=2)
        size = part.abs()
        effects.append(part.sum(1))
        shares.append(_share((size * one.is_image[..., None]).sum(1), size.sum(1)))
        positions.append(size.argmax(1) - one.n_padding()[:, None])
    return torch.cat(effects), torch.cat(shares), torch.cat(positions)


def _from_image(passes: Passes, kept: Sequence[Target]) -> Float[Tensor, "rows n"]:
    """Of each kept unit, how much of its size at the input of the first layer is at image tokens."""
    return torch.cat([torch.stack([_image_share(one, unit) for unit in kept], dim=1) for one in passes()])


def _image_share(one: Pass, unit: Target) -> Float[Tensor, " rows"]:
    source = one.paths.embedding
    (gradient,) = torch.autograd.grad(one.target(unit), [source], retain_graph=True, materialize_grads=True)
    size = one.by_row(source.detach() * gradient).abs()
    return _share((size * one.is_image).sum(1), size.sum(1))

"""Which units carry a noun from the picture to its logit? A few of each layer, found from the last layer down.

    y           the noun's logit at p(c)
    w_n^q       ∂y/∂a_n^q: what the noun takes of unit n at position q; held constant
    A_n         Σ_q w_n^q · a_n^q: a kept unit, as the noun sees it, in logits
    flow        a_m^p · ∂A_n/∂a_m^p, for a unit m of the layer before, at position p
    edge        Σ_p flow (weight, signed) and Σ_p |flow| (size); the last layer's are into y itself
    score(m)    Σ of size over the kept units of the next layer, mean over pictures: the k highest are kept
    inputs      the same of what enters the first layer at image tokens, and at text tokens, into its kept units
    attention   Σ_p |flow − flow around attention| / (that + Σ_p |flow around attention|), of each edge and layer

Rajaram et al. (arXiv 2404.14349; read second-hand, no code): |a_m| · |∂a_n/∂a_m|, the k units of a layer that maximise
it summed over the kept ones of the next, layer by layer from the last, from a few pictures of the concept. OURS: a_n
stands at every position, and w says which of them count (in their convolutions a unit has no p(c)); so edges are in
logits, and those into several units can be added. Attention is no node, and what goes through it is told of each edge.

Left out: edges over more than one layer (the sum of weights into a unit is not its activation), attention heads,
mixtures of experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.reading.captions import with_captions
from mmn.reading.hooks import Paths, capture_paths
from mmn.scores.gradients import GRAPH_BYTES, few_logits
from mmn.studies.circuits.rules import Rule

BYTES_PER_UNIT: Final = 32  # a, act, up, gate, their products, gradients and flows, in float32


@dataclass(frozen=True)
class Shown:
    """Pictures whose caption says a noun: model inputs of their prompts, the caption's tokens before the noun, the
    noun's first token.
    """

    inputs: dict[str, Tensor]
    before: tuple[tuple[int, ...], ...]
    token_ids: tuple[int, ...]

    def part(self, rows: range) -> Shown:
        """Some of the pictures."""
        n = len(self.before)
        inputs = {name: value[list(rows)] if len(value) == n else value for name, value in self.inputs.items()}
        return Shown(inputs, self.before[rows.start : rows.stop], self.token_ids[rows.start : rows.stop])


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
        order: units of each layer by falling score.
        score: of each unit, in logits; mean over pictures.
        effect: Σ_p a^p · ∂y/∂a^p of each kept unit: the first-order estimate of its part in the logit by all paths.
        at_image: the share of Σ_p |a^p · ∂y/∂a^p| that is at image tokens.
        position: where that is largest, counted from the row's first token.
        from_image: the share of Σ_p |e^p · ∂A_n/∂e^p| that is at image tokens, e what enters the first layer: how much
            of a kept unit comes from the picture, by all paths, those through other units and attention included.
        into: of each layer the flows into each of its kept units, from the kept units of the layer before; the first
            layer's from image tokens and from text, and behind the last layer's those into the noun.
        carried: of each layer, how much of the size into the next layer's kept units the kept ones have.
        tokens: of a circuit of one picture, the flows from each of its tokens into each kept unit of the first layer.
        image_at: of a circuit of one picture, which of its tokens are the picture's, counted from the row's first.
        logit: y, of each picture.
        prob: its softmax.
    """

    k: int
    order: Int[Tensor, "L m"]
    score: Float[Tensor, "L m"]
    effect: Float[Tensor, "rows L k"]
    at_image: Float[Tensor, "rows L k"]
    position: Int[Tensor, "rows L k"]
    from_image: Float[Tensor, "rows L k"]
    into: tuple[tuple[Flows, ...], ...]
    carried: Float[Tensor, " L"]
    tokens: tuple[Flows, ...]
    image_at: tuple[int, ...]
    logit: Float[Tensor, " rows"]
    prob: Float[Tensor, " rows"]

    @property
    def kept(self) -> Int[Tensor, "L k"]:
        """The kept units of each layer, best first."""
        return self.order[:, : self.k]


def find_circuit(model: Model, shown: Shown, rule: Rule, k: int) -> Circuit:
    """The circuit of a noun, from pictures that say it.

    Args:
        model: its lock is held during the passes.
        shown: the pictures, padded on the left.
        rule: how derivatives are taken.
        k: units kept in each layer.

    Raises:
        UsageError: a mixture of experts, a model without image tokens in its decoder, or with a part that the rule is
            not there for.
    """
    model.require_one_ffn("a circuit")
    rule.require(model)
    image_positions(model, shown.inputs)
    passes = _passes(model, shown, rule)
    n_layers = model.anatomy.n_layers
    chain = [_flows_into(passes, n_layers, [0])]
    orders: list[Tensor] = []
    scores: list[Tensor] = []
    carried: list[Tensor] = []
    for layer in reversed(range(n_layers)):
        size = torch.stack([flows.size for flows in chain[0]]).sum(0)
        scores.insert(0, size.mean(0))
        orders.insert(0, scores[0].argsort(descending=True, stable=True))
        kept = orders[0][:k]
        carried.insert(0, _share(size[:, kept].sum(), size.sum()))
        chain[0] = tuple(flows.of(kept) for flows in chain[0])
        chain.insert(0, _flows_into(passes, layer, kept.tolist()) if layer else _inputs_into(passes, kept.tolist()))
    order = torch.stack(orders)
    effect, at_image, position = _told(passes, order[:, :k])
    logit, prob = (torch.cat([getattr(one, name).detach() for one in passes()]) for name in ("y", "prob"))
    return Circuit(
        min(k, order.shape[1]),
        order,
        torch.stack(scores),
        effect,
        at_image,
        position,
        _from_image(passes, order[:, :k]),
        tuple(chain),
        torch.stack(carried),
        *(_tokens_into(passes, order[0, :k].tolist()) if len(shown.before) == 1 else ((), ())),
        logit,
        prob,
    )


def _share(part: Float[Tensor, "*n"], whole: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    return torch.where(whole > 0, part / whole, 0.0)


@dataclass(frozen=True)
class _Pass:
    """One differentiable pass over some of the pictures; `taken` is w of each layer, in the form that a had."""

    paths: Paths
    taken: tuple[Tensor, ...]
    y: Float[Tensor, " rows"]
    prob: Float[Tensor, " rows"]
    is_there: Bool[Tensor, "rows positions"]
    is_image: Bool[Tensor, "rows positions"]

    def target(self, layer: int, unit: int) -> Float[Tensor, ""]:
        """Σ over pictures of A_n of a unit; of the layer behind the last one, of the logit itself."""
        if layer == len(self.taken):
            return self.y.sum()
        return (self.taken[layer][..., unit] * self.paths.a[layer][..., unit]).sum()

    def by_row(self, values: Tensor) -> Float[Tensor, "rows positions width"]:
        """Values by picture and position, 0 at padding."""
        rows = values.reshape(*self.is_there.shape, values.shape[-1]).float()
        return rows.masked_fill(~self.is_there[..., None], 0.0)


Passes = Callable[[], Iterator[_Pass]]


def _passes(model: Model, shown: Shown, rule: Rule) -> Passes:
    """The passes over all pictures, as few as fit; where they are several, each is made anew whenever it is wanted."""
    n_rows, n_prompt = shown.inputs["input_ids"].shape
    n_positions = n_prompt + max(map(len, shown.before))
    size = max(1, int(GRAPH_BYTES // (n_positions * model.facts.n_units * BYTES_PER_UNIT)))
    parts = [shown.part(range(start, min(start + size, n_rows))) for start in range(0, n_rows, size)]
    if len(parts) == 1:
        only = _run(model, parts[0], rule)
        return lambda: iter([only])
    return lambda: (_run(model, part, rule) for part in parts)


@torch.enable_grad()
def _run(model: Model, shown: Shown, rule: Rule) -> _Pass:
    inputs = with_captions(model, shown.inputs, shown.before)
    with rule.around(model), capture_paths(model) as paths:
        model.module(**inputs, use_cache=False, **few_logits(model))
    y, prob = _logits(model, paths, shown, rule)
    taken = torch.autograd.grad(y.sum(), paths.a, retain_graph=True)
    n_prompt = shown.inputs["input_ids"].shape[1]
    is_image = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    is_image[:, :n_prompt] = image_positions(model, shown.inputs)
    return _Pass(paths, taken, y, prob, _attended(inputs), is_image)


def _attended(inputs: dict[str, Tensor]) -> Bool[Tensor, "rows positions"]:
    """Where a row has tokens; all of it where there is no mask, which padding would need."""
    mask = inputs.get("attention_mask")
    return torch.ones_like(inputs["input_ids"], dtype=torch.bool) if mask is None else mask.bool()


def _logits(
    model: Model, paths: Paths, shown: Shown, rule: Rule
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """The noun's logit before a soft cap, differentiable, and its probability."""
    anatomy = model.anatomy
    rows = torch.arange(len(shown.before), device=model.device)
    places = torch.tensor([shown.inputs["input_ids"].shape[1] - 1 + len(one) for one in shown.before])
    tokens = torch.tensor(shown.token_ids, device=model.device)
    normed = rule.normed(model, paths.final[rows, places.to(model.device)])
    y = anatomy.head_factor * (normed.float() * anatomy.w_u(tokens)).sum(-1) + anatomy.logit_bias(tokens)
    with torch.no_grad():
        logits = anatomy.logits(anatomy.unembedding(normed.to(model.dtype)).float())
    return y, logits.softmax(-1)[rows, tokens]


def _flows_into(passes: Passes, layer: int, units: Sequence[int]) -> tuple[Flows, ...]:
    """Into each of `units` of a layer from every unit of the layer before; into the logit for the layer behind all."""
    found: list[list[Flows]] = [[] for _ in units]
    for one in passes():
        for number, unit in enumerate(units):
            found[number].append(_summed(*_flow(one, layer, unit)))
    return tuple(_joined(parts) for parts in found)


def _inputs_into(passes: Passes, units: Sequence[int]) -> tuple[Flows, ...]:
    """Into each of `units` of the first layer from all image tokens together, and from all others."""
    found: list[list[Flows]] = [[] for _ in units]
    for one in passes():
        kinds = torch.stack([one.is_image, ~one.is_image], dim=-1).float()
        for number, unit in enumerate(units):
            flow, near = (values.sum(-1, keepdim=True) * kinds for values in _flow(one, 0, unit))
            found[number].append(_summed(flow, near))
    return tuple(_joined(parts) for parts in found)


def _tokens_into(passes: Passes, units: Sequence[int]) -> tuple[tuple[Flows, ...], tuple[int, ...]]:
    """Into each of `units` of the first layer from each token of the only picture; and which of these are its own."""
    (one,) = passes()
    found = []
    for unit in units:
        flow, near = (values.sum(-1)[one.is_there][None, None] for values in _flow(one, 0, unit))
        found.append(_summed(flow, near))
    return tuple(found), tuple(one.is_image[one.is_there].nonzero()[:, 0].tolist())


def _flow(one: _Pass, layer: int, unit: int) -> tuple[Float[Tensor, "rows p s"], Float[Tensor, "rows p s"]]:
    """Source times derivative at each position, by all paths, and by those around attention."""
    source = one.paths.a[layer - 1] if layer else one.paths.embedding
    target = one.target(layer, unit)
    (total,) = torch.autograd.grad(target, [source], retain_graph=True, materialize_grads=True)
    with one.paths.without_attention():
        (near,) = torch.autograd.grad(target, [source], retain_graph=True, materialize_grads=True)
    values = source.detach()
    return one.by_row(values * total), one.by_row(values * near)


def _summed(flow: Float[Tensor, "rows p s"], near: Float[Tensor, "rows p s"]) -> Flows:
    return Flows(flow.sum(1), flow.abs().sum(1), (flow - near).abs().sum(1), near.abs().sum(1))


def _joined(parts: Sequence[Flows]) -> Flows:
    return Flows(*(torch.cat([getattr(part, name) for part in parts]) for name in _FIELDS))


def _told(
    passes: Passes, kept: Int[Tensor, "L k"]
) -> tuple[Float[Tensor, "rows L k"], Float[Tensor, "rows L k"], Int[Tensor, "rows L k"]]:
    """Of each kept unit its estimated effect, how much of its size is at image tokens, and where it is largest."""
    effects, shares, positions = [], [], []
    for one in passes():
        values = [
            one.by_row(a.detach() * w)[..., units] for a, w, units in zip(one.paths.a, one.taken, kept, strict=True)
        ]
        part = torch.stack(values, dim=2)
        size = part.abs()
        effects.append(part.sum(1))
        shares.append(_share((size * one.is_image[..., None, None]).sum(1), size.sum(1)))
        positions.append(size.argmax(1) - _n_padding(one.is_there)[:, None, None])
    return torch.cat(effects), torch.cat(shares), torch.cat(positions)


def _from_image(passes: Passes, kept: Int[Tensor, "L k"]) -> Float[Tensor, "rows L k"]:
    """Of each kept unit, how much of its size at the input of the first layer is at image tokens."""
    parts = []
    for one in passes():
        units = [(layer, unit) for layer, units in enumerate(kept.tolist()) for unit in units]
        shares = torch.stack([_image_share(one, layer, unit) for layer, unit in units], dim=1)
        parts.append(shares.view(len(shares), *kept.shape))
    return torch.cat(parts)


def _image_share(one: _Pass, layer: int, unit: int) -> Float[Tensor, " rows"]:
    source = one.paths.embedding
    (gradient,) = torch.autograd.grad(one.target(layer, unit), [source], retain_graph=True, materialize_grads=True)
    size = one.by_row(source.detach() * gradient).sum(-1).abs()
    return _share((size * one.is_image).sum(1), size.sum(1))


def _n_padding(is_there: Bool[Tensor, "rows positions"]) -> Int[Tensor, " rows"]:
    """How many positions of each row are before its first token."""
    return is_there.int().argmax(1)

"""RelP: how much of a concept's logit goes through each unit, by one backward pass whose rules keep the total.

    relp   Σ_p a_i^p · ∂̃y/∂a_i^p        over all positions p up to p(c)

∂̃ is the gradient of `hooks.relevance`: norms at the scale that they had, attention weights constant, act(z) as z times
a constant, a gated product's gradient shared half and half (Jafari et al. 2025, arXiv 2508.21258; the rules as in
Transluce's circuits/core/grad.py). The sum over positions is ours: relevance adds up, so the sum is what the unit hands
on wherever it is read, at the picture's tokens, in the prompt and at p(c).

By these rules nothing is lost on the way: the relevance of what enters the first layer, or a later one from outside
(pictures' features of deep stacks, attention to the picture alone), and of the biases, is the logit. What is missing
of it is the conservation residual; it is of the order of rounding where every part of the decoder has its rule.

In a mixture of experts the router's weights are constants, as attention weights are (OURS). Ranked are the units of the
experts that some token up to p(c) goes through; a is 0 at the tokens that do not, and so is their part of the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmn.errors import UsageError
from mmn.models.adapters import Anatomy
from mmn.models.float64 import wide
from mmn.models.model import Model
from mmn.reading.captions import PassContext, no_context, with_captions
from mmn.reading.hooks import Call, Relevance, frozen_norm, relevance_graph
from mmn.scores.equations import norm_bias
from mmn.scores.exactness import limit_of
from mmn.scores.expert_gradients import side_by_side
from mmn.scores.gradients import Question, below_each_other, few_logits, rounds, some_rows


@dataclass(frozen=True)
class Relevant:
    """Relevance of each unit to n concepts, in logits; `logit` and what reached the decoder's input and its biases.

    In a model with experts `units` tells which unit of its layer each is of, ascending, -1 behind the last.
    """

    score: Float[Tensor, "n L m"]
    logit: Float[Tensor, " n"]
    total: Float[Tensor, " n"]
    units: Int[Tensor, "n L m"] | None = None


def relevance(
    model: Model,
    inputs: dict[str, Tensor],
    captions: Sequence[Sequence[int]],
    questions: Sequence[Question],
    around: PassContext = no_context,
) -> Relevant:
    """The relevance of all units to `questions`, in their order; arguments as in `gradients.attribute`."""
    return some_rows(model, inputs, captions, questions, around, _relevance_of_rows)


def require_conserved(model: Model, found: Relevant, nouns: Sequence[str]) -> None:
    """Raises `UsageError` where more of a logit is lost than rounding explains, in float32.

    Of narrower formats the sum over positions and widths is rounded too much to tell.
    """
    missing = (found.logit - found.total).abs() / found.logit.abs().clamp(min=1)
    worst = int(missing.argmax())
    if model.dtype == torch.float32 and missing[worst] > limit_of(model.dtype):
        raise UsageError(
            f"relp misses {missing[worst].item():.2g} of the logit of {nouns[worst]!r}: {model.facts.name} has a part "
            "that no rule is known for; leave relp out of --methods"
        )


def _relevance_of_rows(
    model: Model, inputs: dict[str, Tensor], captions: Sequence[Sequence[int]], questions: Sequence[Question]
) -> Relevant:
    n_prompt, whole = inputs["input_ids"].shape[1], with_captions(model, inputs, captions)
    is_read = whole.get("attention_mask", torch.ones_like(whole["input_ids"])).bool()
    with torch.enable_grad():
        with relevance_graph(model) as graph:
            model.module(**whole, use_cache=False, **few_logits(model))
        products, logits = _logits(model, graph, questions, n_prompt)
        turns = rounds(questions)
        parts = []
        for index, asked in enumerate(turns):
            outside = [where for _, where in graph.outside]
            sources = [graph.stream[0], graph.bias[0], *outside, *graph.a.values(), *graph.routed.values()]
            of_asked = products[asked].sum() + 0 * graph.bias[0].sum()  # there may be no biases at all
            gradients = torch.autograd.grad(of_asked, sources, retain_graph=index < len(turns) - 1)
            parts.append(_of_round(model, graph, gradients, [questions[one] for one in asked], is_read, n_prompt))
    order = torch.tensor([one for asked in turns for one in asked]).argsort()
    score, total, *units = (below_each_other(values)[order] for values in zip(*parts, strict=True))
    return Relevant(score, wide(logits.detach()), total + wide((logits - products).detach()), *units)


def _logits(
    model: Model, graph: Relevance, questions: Sequence[Question], n_prompt: int
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """The logit of each concept before a soft cap, without and with the biases behind the last layer."""
    anatomy = model.anatomy
    rows = torch.tensor([question.row for question in questions])
    places = torch.tensor([n_prompt - 1 + question.position for question in questions])
    tokens = torch.tensor([question.token_id for question in questions], device=model.device)
    unembedding = anatomy.w_u(tokens)
    normed = frozen_norm(anatomy.norm, anatomy.final_norm, graph.final[0][rows, places])
    products = anatomy.head_factor * (normed * unembedding).sum(-1)
    return products, products + norm_bias(anatomy, unembedding) + anatomy.logit_bias(tokens)


def _of_round(
    model: Model,
    graph: Relevance,
    gradients: Sequence[Tensor],
    questions: Sequence[Question],
    is_read: Bool[Tensor, "batch positions"],
    n_prompt: int,
) -> tuple[Tensor, ...]:
    """Relevance summed over positions, the relevance of the decoder's input and of biases; of experts, the units."""
    (of_stream, of_bias), more = gradients[:2], list(gradients[2:])
    rows = [question.row for question in questions]
    entered = [(graph.stream[0].detach(), of_stream)]
    entered += [(value, more.pop(0)) for value, _ in graph.outside]
    of_a, of_routed = ({layer: more.pop(0) for layer in values} for values in (graph.a, graph.routed))
    biases = wide(of_bias)
    shares = [(wide(value) * wide(gradient)).sum((1, 2)).to(biases.device) for value, gradient in entered]
    own = {
        layer: (graph.a[layer].detach() * gradient).reshape(graph.n_rows, -1, gradient.shape[-1])[rows].float().sum(1)
        for layer, gradient in of_a.items()
    }
    total = (sum(shares) + biases)[rows]
    if not model.anatomy.mixtures:
        return torch.stack(list(own.values()), dim=1), total
    is_meant = torch.zeros_like(is_read)
    for question in questions:
        end = n_prompt + question.position
        is_meant[question.row, :end] = is_read[question.row, :end]
    score, units = _of_experts(model.anatomy, graph, of_routed, own, rows, is_meant)
    return score, total, units


def _of_experts(
    anatomy: Anatomy,
    graph: Relevance,
    gradients: Mapping[int, Float[Tensor, "t d"]],
    own: Mapping[int, Float[Tensor, "r m"]],
    rows: Sequence[int],
    is_meant: Bool[Tensor, "batch positions"],
) -> tuple[Float[Tensor, "r L w"], Int[Tensor, "r L w"]]:
    """Relevance of the units of the experts that some of the meant tokens go through, then of those beside them."""
    found = []
    for layer, mixture in enumerate(anatomy.mixtures):
        of_rows: list[list[tuple[Tensor, Tensor]]] = [[] for _ in rows]
        if layer in gradients:
            of_routed = _of_routed(graph.calls[layer], gradients[layer], is_meant)
            for parts, row in zip(of_rows, rows, strict=True):
                parts += [(sums[row], units) for sums, is_awake, units in of_routed if is_awake[row]]
        if layer in own:
            units = torch.arange(mixture.start, mixture.n_units, device=own[layer].device)
            for parts, values in zip(of_rows, own[layer], strict=True):
                parts.append((values, units))
        found.append([_one_behind_the_other(parts, anatomy.home) for parts in of_rows])
    score, units = side_by_side(list(zip(*found, strict=True)))
    return score, units


def _one_behind_the_other(
    parts: Sequence[tuple[Tensor, Tensor]], home: torch.device
) -> tuple[Float[Tensor, " w"], Int[Tensor, " w"]]:
    nothing = torch.empty(0), torch.empty(0, dtype=torch.long)
    score, units = (torch.cat([one.to(home) for one in of]) for of in zip(*[nothing, *parts], strict=True))
    return score, units


def _of_routed(
    call: Call, gradient: Float[Tensor, "t d"], is_meant: Bool[Tensor, "batch positions"]
) -> list[tuple[Float[Tensor, "batch m"], Bool[Tensor, " batch"], Int[Tensor, " m"]]]:
    """Of each expert its units' relevance by row, in which rows a meant token goes through it, and their numbers."""
    routed, found = call.routed, []
    is_meant = is_meant.to(gradient.device)
    for expert in call.chosen.unique().tolist():
        token, _, a = call.of(expert)
        token_is_meant = is_meant[call.row[token], call.position[token]]
        product = a.float() * (gradient[call.in_output(expert, token)] @ routed.w_out(expert).to(gradient)).float()
        kept, row = product[token_is_meant], call.row[token][token_is_meant]
        sums = kept.new_zeros(len(is_meant), kept.shape[1]).index_add(0, row, kept)
        units = expert * routed.d_expert + torch.arange(routed.d_expert, device=row.device)
        found.append((sums, torch.bincount(row, minlength=len(is_meant)) > 0, units))
    return found

"""RelP: how much of a concept's logit goes through each unit, by one backward pass whose rules keep the total.

    relp   Σ_p a_i^p · ∂̃y/∂a_i^p        over all positions p up to p(c)

∂̃ is the gradient of `hooks.relevance`: norms at the scale that they had, attention weights constant, act(z) as z times
a constant, a gated product's gradient shared half and half (Jafari et al. 2025, arXiv 2508.21258; the rules as in
Transluce's circuits/core/grad.py). The sum over positions is ours: relevance adds up, so the sum is what the unit hands
on wherever it is read, at the picture's tokens, in the prompt and at p(c).

By these rules nothing is lost on the way: the relevance of what enters the first layer, or a later one from outside
(pictures' features of deep stacks, attention to the picture alone), and of the biases, is the logit. What is missing
of it is the conservation residual; it is of the order of rounding where every part of the decoder has its rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmn.errors import UsageError
from mmn.models.float64 import wide
from mmn.models.model import Model
from mmn.reading.captions import PassContext, no_context, with_captions
from mmn.reading.hooks import Relevance, frozen_norm, relevance_graph
from mmn.scores.equations import norm_bias
from mmn.scores.exactness import limit_of
from mmn.scores.gradients import Question, few_logits, rounds, some_rows


@dataclass(frozen=True)
class Relevant:
    """Relevance of each unit to n concepts, in logits; `logit` and what reached the decoder's input and its biases."""

    score: Float[Tensor, "n L m"]
    logit: Float[Tensor, " n"]
    total: Float[Tensor, " n"]


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
    n_prompt = inputs["input_ids"].shape[1]
    with torch.enable_grad():
        with relevance_graph(model) as graph:
            model.module(**with_captions(model, inputs, captions), use_cache=False, **few_logits(model))
        products, logits = _logits(model, graph, questions, n_prompt)
        turns = rounds(questions)
        parts = []
        for index, asked in enumerate(turns):
            sources = [graph.stream[0], graph.bias[0], *graph.a, *(where for _, where in graph.outside)]
            of_asked = products[asked].sum() + 0 * graph.bias[0].sum()  # there may be no biases at all
            gradients = torch.autograd.grad(of_asked, sources, retain_graph=index < len(turns) - 1)
            parts.append(_of_round(graph, gradients, [questions[one].row for one in asked]))
    order = torch.tensor([one for asked in turns for one in asked]).argsort()
    score, total = (torch.cat(values)[order] for values in zip(*parts, strict=True))
    return Relevant(score, wide(logits.detach()), total + wide((logits - products).detach()))


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
    graph: Relevance, gradients: Sequence[Tensor], rows: list[int]
) -> tuple[Float[Tensor, "r L m"], Float[Tensor, " r"]]:
    """Relevance summed over positions, and the relevance of the decoder's input and of the biases."""
    of_stream, of_bias, *more = gradients
    of_a, of_outside = more[: len(graph.a)], more[len(graph.a) :]
    scores = [
        (a.detach() * gradient).reshape(graph.n_rows, -1, a.shape[-1])[rows].float().sum(1)
        for a, gradient in zip(graph.a, of_a, strict=True)
    ]
    entered = [(graph.stream[0].detach(), of_stream)]
    entered += [(value, gradient) for (value, _), gradient in zip(graph.outside, of_outside, strict=True)]
    biases = wide(of_bias)
    shares = [(wide(value) * wide(gradient)).sum((1, 2)).to(biases.device) for value, gradient in entered]
    return torch.stack(scores, dim=1), (sum(shares) + biases)[rows]

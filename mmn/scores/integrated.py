"""Integrated gradients: what each unit hands on while the picture's tokens come apart from their mean.

    x(α) = x̄ + α (x − x̄)                  the decoder's image tokens, α from 0 to 1; x̄ their mean in this picture
    unit  Σ_p ∫ ∂y/∂a_i^p · da_i^p/dα dα    its conductance (Dhamdhere et al. 2019, arXiv 1805.12233), p an image token
    input Σ_p (x − x̄) · ∫ ∂y/∂x^p dα        integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365)

The integrals are sums of trapezoids over `STEPS` equal steps, STEPS + 1 passes. Completeness: what the inputs are
given adds up to y(1) − y(0); what is missing of that is the error of the steps, and the completeness residual.

The baseline is ours: Neo et al. (2025) take the mean over a data set and 50 steps. A zero embedding is no point that a
decoder with norms can be led from: every small multiple of a token is normed to the same. What all tokens of a picture
share is in x̄, so what they say together is not counted: y(0) is what the picture says without its parts.

Not of mixtures of experts. Along the path routers change their choice, and there y jumps: it has no derivative that
an integral could have gathered, so that completeness, by which the method is defined, does not hold. On four tiny
mixtures 3 % to 231 % of y(1) − y(0) are missing, with 20 steps as with 1000 (test_expert_scores).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmn.errors import UsageError
from mmn.models.float64 import wide
from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.reading.captions import PassContext, no_context, with_captions
from mmn.reading.hooks import Graph, capture_graph, towards_mean
from mmn.scores.equations import by_row
from mmn.scores.gradients import Question, few_logits, logits_of, rounds, some_rows

STEPS = 20


def require_a_path(model: Model, what: str) -> None:
    """Raises `UsageError` for a model whose logit is not continuous along the path, or has no one FFN in each layer."""
    if model.anatomy.d_expert:
        raise UsageError(
            f"{what} is not there for mixtures of experts, and {model.facts.name} is one: along its path tokens are "
            "sent to other experts, where the logit jumps, so that what it adds up is not what the picture brings"
        )
    model.require_one_ffn(what)


@dataclass(frozen=True)
class Integrated:
    """Conductances of n concepts for every unit but the last layer's, in logits; and what inputs should and do add up
    to: y(1) − y(0), and their integrated gradients.
    """

    score: Float[Tensor, "n L1 m"]
    expected: Float[Tensor, " n"]
    total: Float[Tensor, " n"]


def integrated_gradients(
    model: Model,
    inputs: dict[str, Tensor],
    captions: Sequence[Sequence[int]],
    questions: Sequence[Question],
    around: PassContext = no_context,
) -> Integrated:
    """Of all units and `questions`, in their order; arguments as in `gradients.attribute`.

    Raises:
        UsageError: The family has no positions of its own for the picture in the decoder.
    """
    image_positions(model, inputs)
    return some_rows(model, inputs, captions, questions, around, _of_rows)


@dataclass(frozen=True)
class _Point:
    """One α: a and its gradients at image tokens by layer (0 elsewhere), the inputs' product, and y, by question."""

    a: list[Float[Tensor, "n prompt m"]]
    gradient: list[Float[Tensor, "n prompt m"]]
    product: Float[Tensor, " n"]
    logit: Float[Tensor, " n"]


def _of_rows(
    model: Model, inputs: dict[str, Tensor], captions: Sequence[Sequence[int]], questions: Sequence[Question]
) -> Integrated:
    mask = image_positions(model, inputs)
    first = before = _point(model, inputs, captions, questions, mask, 0.0)
    score = [torch.zeros_like(a[:, 0]) for a in first.a]
    total = before.product / (2 * STEPS)
    for step in range(1, STEPS + 1):
        here = _point(model, inputs, captions, questions, mask, step / STEPS)
        for layer, one in enumerate(score):
            one += ((before.gradient[layer] + here.gradient[layer]) / 2 * (here.a[layer] - before.a[layer])).sum(1)
        total = total + here.product / (STEPS if step < STEPS else 2 * STEPS)
        before = here
    return Integrated(torch.stack(score, dim=1), before.logit - first.logit, total)


def _point(
    model: Model,
    inputs: dict[str, Tensor],
    captions: Sequence[Sequence[int]],
    questions: Sequence[Question],
    mask: Bool[Tensor, "batch prompt"],
    alpha: float,
) -> _Point:
    n_prompt = mask.shape[1]
    with torch.enable_grad():
        with towards_mean(model, mask, alpha) as image, capture_graph(model) as graph:
            model.module(**with_captions(model, inputs, captions), use_cache=False, **few_logits(model))
        logits = logits_of(model, graph.final, questions, n_prompt)
        turns = rounds(questions)
        found: dict[int, tuple[list[Tensor], Tensor]] = {}
        for index, asked in enumerate(turns):
            sources = [image.tokens, *graph.a[:-1]]
            of_image, *of_a = torch.autograd.grad(logits[asked].sum(), sources, retain_graph=index < len(turns) - 1)
            products = (wide(of_image) * wide(image.spread)).sum((1, 2))
            for number in asked:
                row = questions[number].row
                of_row = [by_row(one, len(mask))[row, :n_prompt].to(mask.device) for one in of_a]
                found[number] = (of_row, products[row])
    return _Point(
        a=_at_images(graph, mask, questions),
        gradient=[
            torch.stack([found[number][0][layer] for number in range(len(questions))])
            * mask[[question.row for question in questions]][..., None]
            for layer in range(len(graph.a) - 1)
        ],
        product=torch.stack([found[number][1] for number in range(len(questions))]),
        logit=wide(logits.detach()),
    )


def _at_images(
    graph: Graph, mask: Bool[Tensor, "batch prompt"], questions: Sequence[Question]
) -> list[Float[Tensor, "n prompt m"]]:
    rows = [question.row for question in questions]
    return [by_row(a, len(mask))[rows, : mask.shape[1]].to(mask.device) for a in graph.a[:-1]]

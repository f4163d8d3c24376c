"""Attribution: what a first-order estimate says each unit does, at the picture's tokens, to a concept's logit.

    attribution      z_i^p · ∂y^t/∂z_i^p      z the gate's pre-activation, P1 equation 2 (arXiv 2308.01544)
    attribution-act  a_i^p · ∂y^t/∂a_i^p      a the activation: the estimate of zeroing the unit; OURS

y^t is the logit at p(c) under the caption's own prefix, the derivative is total, and a unit's score is its signed
maximum over image tokens p (P1 leaves open how positions are combined: that is our reading), the token kept. In a
mixture of experts both are likewise (`expert_gradients`).

One forward pass of prompt and caption serves all nouns of all captions of a batch; then there is one backward pass for
each noun of the fullest caption, since rows do not touch each other. Parameters are frozen: only the activations'
graph is kept, and freed when the batch is done.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.reading.captions import PassContext, no_context, with_captions
from mmn.reading.hooks import ExpertGraph, Graph, capture_expert_graph, capture_graph
from mmn.reading.rows import some_of
from mmn.scores.equations import attribution, by_row
from mmn.scores.expert_gradients import best_of_experts

Answers = TypeVar("Answers")
GRAPH_BYTES = 4e9  # about what the graph of the rows that are differentiated together may take
BYTES_PER_UNIT = 24  # z, a, act, up, their products and a gradient, in float32


@dataclass(frozen=True)
class Question:
    """One concept: which row's caption, the forward pass that predicts it, and its token."""

    row: int
    position: int
    token_id: int


@dataclass(frozen=True)
class Attributed:
    """Scores of n concepts for every unit but the last layer's, whose score at image tokens is structurally zero.

    `token_position` counts image tokens from 0; `activation` is a at that token. `logit` is y, for comparison. In a
    model with experts all are of those that image tokens go through: `units` tells which, ascending, -1 behind the
    last. Elsewhere `units` is None.
    """

    score: Float[Tensor, "n L1 m"]
    token_position: Int[Tensor, "n L1 m"]
    activation: Float[Tensor, "n L1 m"]
    logit: Float[Tensor, " n"]
    units: Int[Tensor, "n L1 m"] | None = None


def attribute(
    model: Model,
    inputs: dict[str, Tensor],
    captions: Sequence[Sequence[int]],
    questions: Sequence[Question],
    of_activation: bool = False,
    around: PassContext = no_context,
) -> Attributed:
    """Attribution scores of all `questions`, in their order.

    Args:
        model: Its lock is held meanwhile.
        inputs: The prompt's model inputs for all rows (`Model.encode`), padded on the left.
        captions: Token ids of each row's caption, without the end token.
        questions: The concepts, in any order; several of one row are answered by one backward pass each.
        of_activation: `attribution-act` instead of `attribution`.
        around: What the passes over some rows run in, as when they were captioned (`CaptionBatch.around`).

    Raises:
        UsageError: The family has no positions of its own for the picture in the decoder.
    """
    image_positions(model, inputs)

    answer = partial(_attribute_rows, of_activation=of_activation)
    return some_rows(model, inputs, captions, questions, around, answer)


def some_rows(
    model: Model,
    inputs: dict[str, Tensor],
    captions: Sequence[Sequence[int]],
    questions: Sequence[Question],
    around: PassContext,
    answer: Callable[[Model, dict[str, Tensor], list[Sequence[int]], list[Question]], Answers],
) -> Answers:
    """What `answer` finds of the questions, asked of as many rows at a time as their graph has room for.

    Args:
        model: as all but the last, see `attribute`.
        inputs: likewise.
        captions: likewise.
        questions: likewise.
        around: likewise.
        answer: of (model, inputs, captions, questions) of some rows; a dataclass of tensors, a row for each question.
    """
    n_prompt = inputs["input_ids"].shape[1]
    n_positions = n_prompt + max(len(caption) for caption in captions)
    size = max(1, int(GRAPH_BYTES // (n_positions * model.facts.n_units * BYTES_PER_UNIT)))
    parts: list[tuple[list[int], Answers]] = []
    for start in range(0, len(captions), size):
        rows = range(start, min(start + size, len(captions)))
        asked = [index for index, question in enumerate(questions) if question.row in rows]
        if asked:
            some = [_moved(questions[index], start) for index in asked]
            with around(rows):
                found = answer(model, some_of(model, inputs, rows), [captions[r] for r in rows], some)
            parts.append((asked, found))
    order = torch.tensor([index for asked, _ in parts for index in asked]).argsort()
    first = parts[0][1]
    names = [name for name, values in vars(first).items() if values is not None]
    return type(first)(**{name: below_each_other([vars(part)[name] for _, part in parts])[order] for name in names})


def below_each_other(parts: Sequence[Tensor]) -> Tensor:
    """Rows of all parts; where experts that are awake differ in number, with -1, which is no unit, behind the fewer."""
    width = max(part.shape[-1] for part in parts)
    is_even = parts[0].ndim == 1 or all(part.shape[-1] == width for part in parts)
    return torch.cat([part if is_even else pad(part, (0, width - part.shape[-1]), value=-1) for part in parts])


def _moved(question: Question, start: int) -> Question:
    return Question(question.row - start, question.position, question.token_id)


def _attribute_rows(
    model: Model,
    inputs: dict[str, Tensor],
    captions: Sequence[Sequence[int]],
    questions: Sequence[Question],
    *,
    of_activation: bool,
) -> Attributed:
    n_prompt = inputs["input_ids"].shape[1]
    mask = image_positions(model, inputs)
    with torch.enable_grad():
        with captured_graph(model) as graph:
            model.module(**with_captions(model, inputs, captions), use_cache=False, **few_logits(model))
        logits = logits_of(model, graph.final, questions, n_prompt)
        turns = rounds(questions)
        parts: list[tuple[Tensor, ...]] = []
        for index, asked in enumerate(turns):
            rows, y, keep = [questions[i].row for i in asked], logits[asked].sum(), index < len(turns) - 1
            if isinstance(graph, ExpertGraph):
                parts.append(best_of_experts(model.anatomy.mixtures, graph, y, keep, mask, rows, of_activation))
            else:
                gradients = torch.autograd.grad(y, graph.sites(of_activation), retain_graph=keep)
                parts.append(_best_tokens(graph, gradients, mask, rows, of_activation))
    order = torch.tensor([i for asked in turns for i in asked]).argsort()
    score, token, activation, *units = (below_each_other(values)[order] for values in zip(*parts, strict=True))
    return Attributed(score, token, activation, logits.detach(), *units)


def captured_graph(model: Model) -> AbstractContextManager[Graph | ExpertGraph]:
    """Records the one forward pass inside the block with its graph."""
    return capture_expert_graph(model) if model.anatomy.mixtures else capture_graph(model)


def _best_tokens(
    graph: Graph, gradients: Sequence[Tensor], mask: Bool[Tensor, "batch n"], rows: list[int], of_activation: bool
) -> tuple[Float[Tensor, "r L1 m"], Int[Tensor, "r L1 m"], Float[Tensor, "r L1 m"]]:
    """The signed maximum over image tokens of value · gradient for the given rows, where it is, and a there."""
    n_prompt = mask.shape[1]
    found = []
    for layer, gradient in enumerate(gradients):
        a = by_row(graph.a[layer], len(mask))[rows, :n_prompt]
        value = a if of_activation else by_row(graph.z[layer], len(mask))[rows, :n_prompt]
        is_picture = mask[rows].to(a.device)
        best, where = attribution(value, by_row(gradient, len(mask))[rows, :n_prompt], is_picture)
        of_layer = (best, (is_picture.cumsum(1) - 1).gather(1, where), a.gather(1, where[:, None])[:, 0])
        found.append([values.to(mask.device) for values in of_layer])
    score, token, activation = (torch.stack(values, dim=1) for values in zip(*found, strict=True))
    return score, token, activation


def logits_of(
    model: Model, final: Float[Tensor, "batch positions d"], questions: Sequence[Question], n_prompt: int
) -> Float[Tensor, " n"]:
    """The logit y of each concept, before a soft cap, differentiable: the final norm and one row of W_U."""
    rows = torch.tensor([question.row for question in questions])
    places = torch.tensor([n_prompt - 1 + question.position for question in questions])
    tokens = torch.tensor([question.token_id for question in questions], device=model.device)
    normed = model.anatomy.final_norm(final[rows, places])
    anatomy = model.anatomy
    return anatomy.head_factor * (normed.float() * anatomy.w_u(tokens)).sum(-1) + anatomy.logit_bias(tokens)


def rounds(questions: Sequence[Question]) -> list[list[int]]:
    """Questions that one backward pass can answer together: at most one of each row."""
    turns: list[list[int]] = []
    seen: dict[int, int] = {}
    for index, question in enumerate(questions):
        turn = seen.get(question.row, 0)
        seen[question.row] = turn + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(index)
    return turns


def few_logits(model: Model) -> dict[str, int]:
    """Spares the unembedding of every position, where the family's forward pass can."""
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.module.forward).parameters else {}

"""Integrated gradients of a noun's logit at the image tokens that enter the decoder (Sundararajan et al. 2017).

    IG_pj = (x_pj − x̄_j) · 1/S Σ_s ∂y/∂x_pj at x̄ + (s − ½)/S · (x − x̄),    s = 1 … S

x are the picture's image tokens, x̄ the mean image token at every one of them, y the logit of the noun's token at p(c)
under the caption's own prefix; all other positions stay as they are (arXiv 1703.01365, equation 1). A token's value is
Σ_j |IG_pj|. Neo et al. 2025 take 50 steps from the mean and that sum; the middle of each step, and the logit, are OURS.

They add up: Σ_pj IG_pj = y(x) − y(x̄), but for the size of the steps. How much of that is missed is the residual.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmn.core import Concept
from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.reading.captions import with_captions
from mmn.reading.hooks import embed
from mmn.reading.rows import Inputs, repeated
from mmn.scores.gradients import BYTES_PER_UNIT, GRAPH_BYTES


@dataclass(frozen=True)
class Integrated:
    """Of each noun: Σ_j |IG_pj| of every image token, in logits, and |Σ IG − (y(x) − y(x̄))| / max(|y(x) − y(x̄)|, 1)."""

    values: Float[Tensor, "nouns tokens"]
    residual: Float[Tensor, " nouns"]


def integrated_gradients(
    model: Model,
    inputs: Inputs,
    token_ids: Sequence[int],
    concepts: Sequence[Concept],
    embeddings: Float[Tensor, "tokens d"],
    mean: Float[Tensor, " d"],
    n_steps: int,
) -> Integrated:
    """Integrated gradients of all nouns of one picture; a pass for each step, and a backward pass for each noun.

    Args:
        model: Its lock is held meanwhile.
        inputs: The prompt's model inputs of one picture.
        token_ids: Its caption.
        concepts: The nouns.
        embeddings: The picture's image tokens as they enter the decoder.
        mean: What they begin from.
        n_steps: On the straight line from the mean to the picture.
    """
    apart = (embeddings - mean).float()
    shares = (torch.arange(n_steps, device=apart.device) + 0.5) / n_steps
    total = torch.zeros(len(concepts), *apart.shape, device=apart.device)
    for some in shares.split(_steps_at_once(model, inputs, token_ids)):
        line = mean + some[:, None, None] * apart
        for number, gradient in enumerate(_gradients(model, inputs, token_ids, concepts, line)):
            total[number] += gradient.sum(0) * apart / n_steps
    ends = torch.stack([mean.expand_as(apart), embeddings.float()])
    with torch.inference_mode():
        logits = _noun_logits(model, inputs, token_ids, concepts, ends)
    change = logits[1] - logits[0]
    residual = (total.sum((1, 2)) - change).abs() / change.abs().clamp(min=1)
    return Integrated(total.abs().sum(-1), residual)


def _gradients(
    model: Model,
    inputs: Inputs,
    token_ids: Sequence[int],
    concepts: Sequence[Concept],
    line: Float[Tensor, "rows tokens d"],
) -> Iterator[Float[Tensor, "rows tokens d"]]:
    """∂y/∂x at every point of the line, noun by noun."""
    with torch.enable_grad():
        line = line.detach().requires_grad_(True)
        logits = _noun_logits(model, inputs, token_ids, concepts, line).sum(0)
        for number in range(len(concepts)):
            is_last = number == len(concepts) - 1
            yield torch.autograd.grad(logits[number], line, retain_graph=not is_last)[0]


def _noun_logits(
    model: Model,
    inputs: Inputs,
    token_ids: Sequence[int],
    concepts: Sequence[Concept],
    tokens: Float[Tensor, "rows tokens d"],
) -> Float[Tensor, "rows nouns"]:
    """The nouns' logits in rows of one picture whose image tokens are given; as the model has them, a soft cap in."""
    positions = torch.tensor([concept.position for concept in concepts])
    first, last = int(positions.min()), int(positions.max())
    prompt = with_captions(model, inputs, [token_ids[:last]])
    can_keep = "logits_to_keep" in inspect.signature(model.module.forward).parameters
    more = {"logits_to_keep": last - first + 1} if can_keep else {}
    at = image_positions(model, inputs)
    values = tokens.new_zeros(len(tokens), at.shape[1], tokens.shape[2])
    values[:, at[0]] = tokens
    with embed(model, at.expand(len(tokens), -1), values):
        logits = model.module(**repeated(prompt, len(tokens)), use_cache=False, **more).logits
    kept = logits[:, logits.shape[1] - (last - first + 1) :]
    return kept[:, positions - first, torch.tensor([one.token_id for one in concepts])].float()


def _steps_at_once(model: Model, inputs: Inputs, token_ids: Sequence[int]) -> int:
    """How many points of the line have room for their graphs."""
    n_positions = inputs["input_ids"].shape[1] + len(token_ids)
    return max(1, int(GRAPH_BYTES // (n_positions * model.facts.n_units * BYTES_PER_UNIT)))

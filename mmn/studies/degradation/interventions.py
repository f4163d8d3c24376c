"""Several rows of one picture in one batch, each under an intervention of its own: what does each predict?

The rows' inputs are the same; what differs is which units are masked (`unit_mask`) or under noise (`perturbation`).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmn.core import Concept
from mmn.models.float64 import wide
from mmn.models.model import Model
from mmn.reading.captions import with_captions
from mmn.reading.rows import Inputs, repeated
from mmn.studies.degradation.selections import Row


@dataclass(frozen=True)
class Predicted:
    """What a row predicts of its noun: the raw logit of t(c) at p(c), its softmax, its share among all nouns."""

    logit: float
    prob: float
    noun_share: float


def predict(
    model: Model, inputs: Inputs, token_ids: Sequence[int], concepts: Sequence[Concept], nouns: Int[Tensor, " nouns"]
) -> list[Predicted]:
    """What each row predicts of its concept, under the caption's own tokens; `nouns` are the first tokens of all."""
    logits = wide(logits_at(model, inputs, token_ids, [concept.position for concept in concepts]))
    tokens = torch.tensor([concept.token_id for concept in concepts], device=logits.device)
    logit = logits.gather(1, tokens[:, None])[:, 0]
    prob = (logit - logits.logsumexp(-1)).exp()
    share = (logit - logits[:, nouns.to(logits.device)].logsumexp(-1)).exp()
    found = zip(logit.tolist(), prob.tolist(), share.clamp(max=1.0).tolist(), strict=True)
    return [Predicted(*one) for one in found]


@torch.inference_mode()
def logits_at(
    model: Model, inputs: Inputs, token_ids: Sequence[int], positions: Sequence[int]
) -> Float[Tensor, "rows V"]:
    """The raw logits, in float32, of as many rows of one picture and its caption, each at its own generated position.

    Args:
        model: under whatever hooks are on it.
        inputs: the prompt's model inputs of one picture.
        token_ids: its caption, read as far as the last position asks for.
        positions: of each row; position j predicts token j.
    """
    first, last = min(positions), max(positions)
    prompt = with_captions(model, inputs, [token_ids[:last]])
    kept = last - first + 1
    can_keep = "logits_to_keep" in inspect.signature(model.module.forward).parameters
    more = {"logits_to_keep": kept} if can_keep else {}
    logits = model.module(**repeated(prompt, len(positions)), use_cache=False, **more).logits[:, -kept:]
    rows = torch.arange(len(positions), device=logits.device)
    return logits[rows, torch.tensor(positions, device=logits.device) - first].float()


def unit_mask(model: Model, rows: Sequence[Row]) -> Bool[Tensor, "rows L m"]:
    """The units that each row of a batch is without."""
    mask = torch.zeros(len(rows), model.facts.n_units, dtype=torch.bool, device=model.device)
    for number, row in enumerate(rows):
        mask[number, row.choice.units[: row.k].to(model.device)] = True
    return mask.view(len(rows), model.facts.n_layers, model.facts.d_mlp)

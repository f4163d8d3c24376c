"""Which units score highest for a noun over several pictures, and how active are they there?

The run's captions are read again, so that every unit has its score. In a mixture of experts those count that some
picture's noun went through; a sum is one number for each unit, whatever the number of pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from mmn.core import Example
from mmn.runs.reopen import ScoredRun
from mmn.runs.teacher_forcing import reread


@dataclass(frozen=True)
class Summed:
    """Every unit's score, summed over n nouns, and its a; -inf where it sleeps at all of them, or has no such score.

    `a` is that at each noun; in a mixture of experts n is 1, and it is summed, too.
    """

    score: Float[Tensor, "L m"]
    is_awake: Bool[Tensor, "L m"]
    a: Float[Tensor, "n L m"]


def sum_up(
    scored: ScoredRun,
    method: str,
    tables: Mapping[str, pa.Table],
    examples: Sequence[Example],
    images: Sequence[Image.Image],
) -> Summed:
    """The sums of a method's scores over the nouns in `tables` (of `examples`, with their `images`)."""
    facts, device = scored.model.facts, scored.model.device
    score, total, n_awake = (torch.zeros(facts.n_layers, facts.d_mlp, device=device) for _ in range(3))
    each = []
    for measured, by_method in reread(scored, tables, examples, images, [method]):
        if measured.units is None:
            each.append(measured.a.clone())
        of_method = by_method[method]
        _add(score, of_method.units, of_method.score)
        score[of_method.score.shape[1] :] = -torch.inf  # layers that the method leaves out
        score.masked_fill_(score.isnan(), -torch.inf)  # layers that were not measured
        _add(total, measured.units, measured.a)
        _add(n_awake, measured.units, torch.ones_like(measured.a))
    is_awake = n_awake > 0
    return Summed(score.where(is_awake, -torch.inf), is_awake, torch.cat(each) if each else total[None])


def _add(into: Float[Tensor, "L m"], units: Int[Tensor, "n L1 k"] | None, values: Float[Tensor, "n L1 k"]) -> None:
    """Adds each noun's values of the first layers, which are of all units, or of `units` alone."""
    part = into[: values.shape[1]]
    if units is None:
        part += values.sum(0)
        return
    for of_noun, some in zip(units, values, strict=True):
        part.scatter_add_(1, of_noun.clamp(min=0), some.where(of_noun >= 0, 0.0))

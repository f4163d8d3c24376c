"""What does a noun lose when image tokens are replaced by the mean image token? (Neo et al. 2025, arXiv 2410.07149)

    set of tokens ─► the mean image token in their places, at the decoder's input (`hooks.embed`)
      ─► the caption read again under its own tokens ─► p(t(c)) at p(c), and whether t(c) is still the likeliest token
    beside it: as many random tokens of the picture, drawn some times

The probability is of the same token before and after: Neo et al.'s released summary takes the new likeliest token's
for the second, which is not the drop of anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float
from torch import Tensor

from mmn.core import Concept
from mmn.models.model import Model
from mmn.names import ORIGINAL
from mmn.reading.hooks import embed
from mmn.runs.reopen import ScoredRun
from mmn.scores.equations import uniform_draw
from mmn.studies.image_tokens.gradients import Integrated, integrated_gradients
from mmn.studies.image_tokens.pictures import Outcome, Picture, at_positions, outcomes
from mmn.studies.image_tokens.sets import Tokens, highest, moved, random_tokens, registers, ringed
from mmn.studies.image_tokens.tables import (
    ALL,
    ELSEWHERE,
    GRADIENTS,
    GRADIENTS_OF_SIZE,
    OBJECT,
    REGISTERS,
    RING_1,
    RING_2,
)

# Neo et al.'s 5, 10, 20, 40, 60, 100 and 250 of 576 tokens; the same shares of every picture's are OURS.
SIZES: Final = tuple(n / 576 for n in (5, 10, 20, 40, 60, 100, 250))


@dataclass(frozen=True)
class Replaced:
    """Tokens that are replaced for a noun: `size` is their nominal share of all, of sets that are made to one."""

    concept: Concept
    name: str
    tokens: Tokens
    size: float | None = None
    residual: float | None = None


@dataclass(frozen=True)
class _Row:
    concept: Concept
    tokens: Tokens


def replace_tokens(
    scored: ScoredRun, picture: Picture, mean: Float[Tensor, " d"], n_draws: int, n_steps: int
) -> list[dict[str, Any]]:
    """The rows of `token_loss` of one picture, without revision and question."""
    seed = scored.run.settings.seed
    integrated = integrated_gradients(
        scored.model, picture.inputs, picture.token_ids, picture.concepts, picture.embeddings, mean, n_steps
    )
    sets = [one for number in range(len(picture.concepts)) for one in _sets(picture, number, integrated, seed)]
    drawn = [_drawn(scored, picture, one, n_draws) for one in sets]
    none = np.zeros(picture.n_tokens, bool)
    rows = [_Row(concept, none) for concept in picture.concepts]
    rows += [_Row(one.concept, one.tokens) for one in sets]
    rows += [_Row(one.concept, tokens) for one, draws in zip(sets, drawn, strict=True) for tokens in draws]
    found = iter(_predicted(scored, picture, rows, mean))
    untouched = {concept.noun: next(found) for concept in picture.concepts}
    own = [next(found) for _ in sets]
    controls = [[next(found) for _ in draws] for draws in drawn]
    return [_told(picture, *one, untouched[one[0].concept.noun]) for one in zip(sets, own, controls, strict=True)]


def _sets(picture: Picture, number: int, integrated: Integrated, seed: int) -> Iterator[Replaced]:
    """What is replaced for one noun; what needs its outline only where there is one."""
    concept = picture.concepts[number]
    values = integrated.values[number].cpu().numpy()
    residual = float(integrated.residual[number])
    own = picture.objects.get(concept.noun)
    if own is not None and picture.grids is not None:
        yield Replaced(concept, OBJECT, own)
        yield Replaced(concept, RING_1, ringed(own, picture.grids, 1))
        yield Replaced(concept, RING_2, ringed(own, picture.grids, 2))
        yield from _elsewhere(picture, concept, own, seed)
        yield Replaced(concept, GRADIENTS, highest(values, int(own.sum())), residual=residual)
    if (loud := registers(picture.embeddings.float().cpu().numpy())).any():
        yield Replaced(concept, REGISTERS, loud)
    for n, size in token_counts(picture.n_tokens).items():
        yield Replaced(concept, GRADIENTS_OF_SIZE, highest(values, n), size, residual)
    yield Replaced(concept, ALL, np.ones(picture.n_tokens, bool))


def _elsewhere(picture: Picture, concept: Concept, own: Tokens, seed: int) -> Iterator[Replaced]:
    """The object's shape at another place; nothing where there is none."""
    assert picture.grids is not None, concept
    key = (seed, picture.example.image_id, ORIGINAL, concept.lemma, f"tokens {ELSEWHERE}")
    tokens = moved(own, picture.grids, lambda n: int(uniform_draw(*key, n_units=n).argmax()))
    if tokens is not None:
        yield Replaced(concept, ELSEWHERE, tokens)


def token_counts(n_tokens: int) -> dict[int, float]:
    """How many tokens each of `SIZES` is, at least one; of sizes that are as many the largest."""
    return {max(1, round(size * n_tokens)): size for size in SIZES}


def _drawn(scored: ScoredRun, picture: Picture, one: Replaced, n_draws: int) -> list[Tokens]:
    """Random sets of as many tokens; none beside all tokens, of which there is one set only."""
    if one.name == ALL:
        return []
    what = f"tokens {one.name} {one.tokens.sum()}"
    key = (scored.run.settings.seed, picture.example.image_id, one.concept.lemma, what)
    return [random_tokens(*key, int(one.tokens.sum()), picture.n_tokens, draw) for draw in range(n_draws)]


def _predicted(scored: ScoredRun, picture: Picture, rows: Sequence[_Row], mean: Float[Tensor, " d"]) -> list[Outcome]:
    model = scored.model

    def changed(some: Sequence[_Row]) -> AbstractContextManager[None]:
        return without_tokens(model, picture, [row.tokens for row in some], mean)

    return outcomes(model, picture, rows, lambda row: row.concept, changed, scored.run.settings.batch_size)


def without_tokens(
    model: Model, picture: Picture, sets: Sequence[Tokens], mean: Float[Tensor, " d"]
) -> AbstractContextManager[None]:
    """Rows of one picture, each with its set of image tokens replaced by the mean one."""
    at = at_positions(model, picture, sets, picture.n_prompt)
    return embed(model, at, mean.to(model.device).expand(*at.shape, -1))


def _told(
    picture: Picture, one: Replaced, own: Outcome, controls: Sequence[Outcome], untouched: Outcome
) -> dict[str, Any]:
    return {
        "image_id": picture.example.image_id,
        "noun": one.concept.noun,
        "token_set": one.name,
        "size": one.size,
        "n_tokens": int(one.tokens.sum()),
        "n_image_tokens": picture.n_tokens,
        "residual": one.residual,
    } | told_outcome(own, controls, untouched)


def told_outcome(own: Outcome, controls: Sequence[Outcome], untouched: Outcome) -> dict[str, Any]:
    """The columns that both tables share; controls are means over draws, empty where there are none."""
    return {
        "baseline_prob": untouched.prob,
        "prob": own.prob,
        "is_right": untouched.is_top,
        "is_wrong": not own.is_top,
        "control_prob": float(np.mean([one.prob for one in controls])) if controls else None,
        "control_wrong": float(np.mean([not one.is_top for one in controls])) if controls else None,
        "n_draws": len(controls),
    }

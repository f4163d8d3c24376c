"""Each score of every unit, for the concepts of a batch: what the names of `names.METHODS` stand for.

A score is one function of `Measured`, named in its entry of `names.METHODS`. `random-matched` has none: it is drawn in
the layers of another ranking, once that is ranked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from mmn import names
from mmn.core import ScoreSettings
from mmn.models.model import Model
from mmn.reading.captions import CaptionBatch
from mmn.reading.hooks import ACT
from mmn.scores.budget import Reading
from mmn.scores.equations import Rows, contribution, uniform_draw
from mmn.scores.gradients import Question, attribute
from mmn.scores.rows import ConceptAt, Variant, one_for_each


@dataclass(frozen=True)
class Scored:
    """A method's scores of n concepts. Where it reads image tokens, the token of each unit's score and a there."""

    score: Float[Tensor, "n L m"]
    activation: Float[Tensor, "n L m"]
    token_position: Tensor | None = None


@dataclass(frozen=True)
class Measured:
    """What the methods read at the positions of n concepts in one variant. Float32, on the model's device."""

    model: Model
    batch: CaptionBatch
    variant: Variant
    said: Sequence[ConceptAt]
    reading: Reading
    a: Float[Tensor, "n L m"]
    rows: Float[Tensor, "n d"]
    folded: Float[Tensor, "n d"]
    written: Rows
    settings: ScoreSettings

    @cached_property
    def folded_scores(self) -> Float[Tensor, "n L m"]:
        """`contribution-folded`, which the budget needs whatever the methods are."""
        return contribution(self.model.anatomy, self.a, self.written)


def score_contribution(measured: Measured) -> Scored:
    """`contribution`."""
    return Scored(contribution(measured.model.anatomy, measured.a, measured.rows), measured.a)


def score_contribution_folded(measured: Measured) -> Scored:
    """`contribution-folded`."""
    return Scored(measured.folded_scores, measured.a)


def score_contribution_actfn(measured: Measured) -> Scored:
    """`contribution-actfn`; a plain FFN has no up factor to leave out: act(z) is the activation itself."""
    if not measured.model.anatomy.is_gated:
        return score_contribution(measured)
    act = measured.batch.captured.read_layers(ACT, measured.reading.rows, measured.reading.steps)
    return Scored(contribution(measured.model.anatomy, act, measured.rows), measured.a)


def score_activation(measured: Measured) -> Scored:
    """`activation`."""
    return Scored(measured.a, measured.a)


def score_attribution(measured: Measured) -> Scored:
    """`attribution`."""
    return _attributed(measured, of_activation=False)


def score_attribution_act(measured: Measured) -> Scored:
    """`attribution-act`."""
    return _attributed(measured, of_activation=True)


def _attributed(measured: Measured, *, of_activation: bool) -> Scored:
    questions = [Question(one.row, one.concept.position, one.concept.token_id) for one in measured.said]
    captions = [caption.token_ids for caption in measured.batch.captions]
    batch = measured.batch
    found = attribute(measured.model, batch.inputs, captions, questions, of_activation, batch.around)
    return Scored(found.score, found.activation, found.token_position)


def score_random(measured: Measured) -> Scored:
    """`random`."""
    return Scored(draws(measured, names.RANDOM), measured.a)


def draws(measured: Measured, method: str) -> Float[Tensor, "n L m"]:
    """A seeded uniform draw for each concept, of its own by picture, variant, lemma and method."""
    n_units, seed = measured.a[0].numel(), measured.settings.seed
    drawn = [
        uniform_draw(seed, one.example.image_id, variant, one.concept.lemma, method, n_units)
        for one, variant in zip(measured.said, one_for_each(measured.variant, len(measured.said)), strict=True)
    ]
    return torch.stack(drawn).to(measured.a.device).view_as(measured.a)

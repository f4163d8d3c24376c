"""Each score of every unit, for the concepts of a batch: what the names of `names.METHODS` stand for.

A score is one function of `Measured`, named in its entry of `names.METHODS`. `random-matched` has none: it is drawn in
the layers of another ranking, once that is ranked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmn import names
from mmn.core import ScoreSettings
from mmn.models.image_tokens import require_image_tokens
from mmn.models.model import Model
from mmn.reading.captions import CaptionBatch
from mmn.reading.hooks import ACT, looked_up, require_act, require_relevance
from mmn.scores.budget import Reading
from mmn.scores.effects import Effects, measure_effects
from mmn.scores.equations import Rows, centred_rows, contribution, uniform_draw
from mmn.scores.expert_gradients import require_units_at_image_tokens, require_z
from mmn.scores.gradients import Question, attribute
from mmn.scores.head_mediated import head_mediated, require_heads
from mmn.scores.integrated import integrated_gradients, require_a_path
from mmn.scores.relevance import relevance, require_conserved
from mmn.scores.rows import ConceptAt, Conserved, Variant, one_for_each

UNITS_AT_ONCE = 1 << 24  # scores held on the device at a time: concepts × L·m


@dataclass(frozen=True)
class Scored:
    """A method's scores of n concepts, and a where it is read: of one image token, that, and which it is; else p(c)."""

    score: Float[Tensor, "n L m"]
    activation: Float[Tensor, "n L m"]
    token_position: Tensor | None = None
    units: Int[Tensor, "n L m"] | None = None  # as in `Measured`; in each layer ascending, -1 behind the last
    conserved: Conserved | None = None  # of a score whose terms add up to something
    layers: range | None = (
        None  # that were measured, where not all were: the others' scores are NaN, and are not ranked
    )

    @property
    def is_unit(self) -> Bool[Tensor, "n L m"] | None:
        return None if self.units is None else self.units >= 0

    @property
    def is_ranked(self) -> Bool[Tensor, "n L m"] | None:
        """Which scores are of units, and measured; None where all are."""
        if self.layers is None:
            return self.is_unit
        is_measured = torch.zeros_like(self.score, dtype=torch.bool)
        is_measured[:, self.layers.start : self.layers.stop] = True
        return is_measured if self.is_unit is None else is_measured & self.is_unit

    def of_units(
        self, concept: Int[Tensor, " k"], layer: Int[Tensor, " k"], unit: Int[Tensor, " k"]
    ) -> Float[Tensor, " k"]:
        """The scores of some units for some of the concepts; 0 where a unit's expert sleeps: a is 0 there."""
        if self.units is None:
            return self.score[concept, layer, unit]
        ascending = self.units.masked_fill(self.units < 0, torch.iinfo(self.units.dtype).max)
        of_each = zip(concept.tolist(), layer.tolist(), unit.to(self.units.device), strict=True)
        place = torch.stack([torch.searchsorted(ascending[c, at], one) for c, at, one in of_each])
        place = place.clamp(max=self.units.shape[2] - 1)
        is_there = self.units[concept, layer, place] == unit.to(self.units.device)
        return self.score[concept, layer, place].where(is_there, 0.0)

    def flat(self, places: Int[Tensor, "n k"], d_mlp: int) -> Int[Tensor, "n k"]:
        """Places in a concept's scores as flat indices of the model's units, layer · m + i; -1 stays."""
        if self.units is None:
            return places
        at = places.clamp(min=0)
        unit = self.units.flatten(1).gather(1, at) + at // self.units.shape[2] * d_mlp
        return unit.where(places >= 0, -1)


@dataclass(frozen=True)
class Measured:
    """What the methods read at the positions of n concepts in one variant. Float32, on the model's device.

    In a model with experts `a` and all scores are compact: `units` tells which unit of its layer each is of (-1: of
    none), and `chosen`, by layer, which routed experts that are. Elsewhere `units` is None.
    """

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
    chosen: tuple[Int[Tensor, "n _"], ...] = ()
    units: Int[Tensor, "n L m"] | None = None

    @cached_property
    def folded_scores(self) -> Float[Tensor, "n L m"]:
        """`contribution-folded`, which the budget needs whatever the methods are."""
        return contribution(self.model.anatomy, self.a, self.written, self.chosen)

    @property
    def questions(self) -> list[Question]:
        """The concepts as gradients are asked for."""
        return [Question(one.row, one.concept.position, one.concept.token_id) for one in self.said]

    @property
    def token_ids(self) -> list[tuple[int, ...]]:
        """Each row's caption."""
        return [caption.token_ids for caption in self.batch.captions]

    @cached_property
    def effects(self) -> Effects:
        """What `effect` and `effect-prob` are read from: measured once for both."""
        return measure_effects(self.model, self.batch, self.said, self.units, self.effect_layers)

    @property
    def effect_layers(self) -> range | None:
        """Whose units the effects are of; None for all."""
        chosen = self.settings.effect_layers
        return range(chosen[0], chosen[1] + 1) if chosen else None


def score_contribution(measured: Measured) -> Scored:
    """`contribution`."""
    return Scored(contribution(measured.model.anatomy, measured.a, measured.rows, measured.chosen), measured.a)


def score_contribution_folded(measured: Measured) -> Scored:
    """`contribution-folded`."""
    return Scored(measured.folded_scores, measured.a)


def score_contribution_centred(measured: Measured) -> Scored:
    """`contribution-centred`."""
    rows = centred_rows(measured.rows, measured.model.token_rows.mean)
    return Scored(contribution(measured.model.anatomy, measured.a, rows, measured.chosen), measured.a)


def score_contribution_actfn(measured: Measured) -> Scored:
    """`contribution-actfn`; a plain FFN has no up factor to leave out: act(z) is the activation itself."""
    require_method(measured.model, names.CONTRIBUTION_ACTFN)
    anatomy = measured.model.anatomy
    if not anatomy.mixtures and not anatomy.is_gated:
        return score_contribution(measured)
    act = measured.batch.captured.read_layers(ACT, measured.reading.rows, measured.reading.steps)
    return Scored(contribution(anatomy, act, measured.rows, measured.chosen), measured.a)


def score_activation(measured: Measured) -> Scored:
    """`activation`."""
    return Scored(measured.a, measured.a)


def score_attribution(measured: Measured) -> Scored:
    """`attribution`."""
    return _attributed(measured, of_activation=False)


def score_attribution_act(measured: Measured) -> Scored:
    """`attribution-act`."""
    return _attributed(measured, of_activation=True)


def score_relp(measured: Measured) -> Scored:
    """`relp`."""
    batch = measured.batch
    found = relevance(measured.model, batch.inputs, measured.token_ids, measured.questions, batch.around)
    require_conserved(measured.model, found, [one.concept.noun for one in measured.said])
    conserved = Conserved(found.logit, found.total)
    if found.units is None or measured.units is None:
        return Scored(found.score, measured.a, conserved=conserved)
    a = looked_up(measured.units, found.units, measured.a)  # at p(c), 0 of those that sleep there
    return Scored(found.score, a, units=found.units, conserved=conserved)


def score_integrated_gradients(measured: Measured) -> Scored:
    """`integrated-gradients`."""
    batch = measured.batch
    found = integrated_gradients(measured.model, batch.inputs, measured.token_ids, measured.questions, batch.around)
    return Scored(found.score, measured.a[:, :-1], conserved=Conserved(found.expected, found.total))


def score_hones(measured: Measured) -> Scored:
    """`hones`."""
    found = head_mediated(measured.model, measured.batch, measured.said, measured.chosen, measured.units)
    return Scored(found, measured.a)


def score_effect(measured: Measured) -> Scored:
    """`effect`."""
    return Scored(measured.effects.logit, measured.a, layers=measured.effect_layers)


def score_effect_prob(measured: Measured) -> Scored:
    """`effect-prob`."""
    return Scored(measured.effects.prob, measured.a, layers=measured.effect_layers)


OF_MANY_TOKENS = frozenset({names.ATTRIBUTION, names.ATTRIBUTION_ACT, names.RELP})
AT_IMAGE_TOKENS = (names.ATTRIBUTION, names.ATTRIBUTION_ACT, names.INTEGRATED_GRADIENTS)
RUNS_PASSES = (*AT_IMAGE_TOKENS, names.RELP, names.HONES, names.EFFECT, names.EFFECT_PROB)  # its own: they can overflow
MORE_REQUIRED = {
    names.CONTRIBUTION_ACTFN: require_act,
    names.ATTRIBUTION: require_z,
    names.ATTRIBUTION_ACT: require_units_at_image_tokens,
    names.INTEGRATED_GRADIENTS: require_a_path,
    names.RELP: require_relevance,
    names.HONES: require_heads,
}


def require_method(model: Model, method: str) -> None:
    """Raises `UsageError` for a method that is not there for such a model, or that follows one: with experts, or
    without image tokens in the decoder.
    """
    of = names.followed(method)
    if of in AT_IMAGE_TOKENS:
        require_image_tokens(model, f"--methods {method}")
    if of in MORE_REQUIRED:
        MORE_REQUIRED[of](model, f"--methods {method}")


def _attributed(measured: Measured, *, of_activation: bool) -> Scored:
    require_method(measured.model, names.ATTRIBUTION_ACT if of_activation else names.ATTRIBUTION)
    batch, asked = measured.batch, measured.questions
    found = attribute(measured.model, batch.inputs, measured.token_ids, asked, of_activation, batch.around)
    return Scored(found.score, found.activation, found.token_position, found.units)


def concepts_at_once(model: Model, methods: Sequence[str]) -> int:
    """How many concepts' scores are held on the device together; those of many tokens may be of all experts' units."""
    of_all = bool(OF_MANY_TOKENS & {names.followed(method) for method in methods})
    return max(1, UNITS_AT_ONCE // (model.facts.n_units if of_all else model.anatomy.n_awake))


def score_random(measured: Measured) -> Scored:
    """`random`."""
    return Scored(draws(measured, names.RANDOM), measured.a)


def draws(
    measured: Measured, method: str, of: Scored | None = None, draw: int = 0, lemmas: Sequence[str] = ()
) -> Float[Tensor, "n L m"]:
    """A seeded uniform draw for each concept, of its own by picture, variant, lemma and method.

    Of experts that sleep at a concept nothing is drawn: a ranking does not hold them, either.

    Args:
        measured: the concepts.
        method: that the draw is for.
        of: whose units it is of, in their places; those that are awake at p(c) unless given.
        draw: its number.
        lemmas: instead of the concepts' own.
    """
    units = measured.units if of is None else of.units
    is_elsewhere = units is not None and units is not measured.units
    n_units = measured.model.facts.n_units if is_elsewhere else measured.a[0].numel()
    of_each = zip(
        measured.said,
        one_for_each(measured.variant, len(measured.said)),
        lemmas or [one.concept.lemma for one in measured.said],
        strict=True,
    )
    drawn = [
        uniform_draw(measured.settings.seed, one.example.image_id, variant, lemma, method, n_units, draw)
        for one, variant, lemma in of_each
    ]
    values = torch.stack(drawn).to(measured.a.device)
    if units is None:
        return values.view_as(measured.a)
    if is_elsewhere:
        by_layer = values.view(len(values), measured.model.facts.n_layers, -1)[:, : units.shape[1]]
        return by_layer.gather(2, units.clamp(min=0)).masked_fill(units < 0, -1)
    return values.view_as(measured.a).masked_fill(units < 0, -1)


def brought(original: Scored, blank: Scored) -> tuple[Scored, Float[Tensor, "n L w"]]:
    """How much of each unit's score the picture brought, with the original's scores in the same places.

    Of experts that are awake in one of the two alone the other's score is 0: its units' places follow the original's.
    """
    if original.units is None or blank.units is None:
        return original, original.score - blank.score
    units, others = original.units, blank.units
    of_blank = looked_up(others, units, blank.score)
    more = others.masked_fill(looked_up(units, others, torch.ones_like(original.score)) > 0, -1)
    zeros, token = torch.zeros_like(blank.score), original.token_position
    wider = Scored(
        torch.cat([original.score, zeros], dim=2),
        torch.cat([original.activation, zeros], dim=2),
        None if token is None else torch.cat([token, zeros.to(token.dtype)], dim=2),
        torch.cat([units, more], dim=2),
        layers=original.layers,
    )
    return wider, torch.cat([original.score - of_blank, -blank.score], dim=2)

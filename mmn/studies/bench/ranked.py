"""The rankings of every score of the house for the nouns of one picture, with what each took.

A score is computed alone, on a reading of its own, so that what it takes is its own: passes are counted by hooks (1 is
the whole picture and caption through all layers, forward or back), seconds are the processor's: what else runs on the
machine takes none of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from mmn import names
from mmn.core import Concept, ScoreSettings
from mmn.errors import UsageError
from mmn.models.model import Model
from mmn.reading.captions import CaptionBatch, read_encoded
from mmn.reading.hooks.streams import count_passes
from mmn.scores.batch import all_scores, measure
from mmn.scores.equations import rank_matched, rank_units
from mmn.scores.methods import Measured, Scored, draws, require_method
from mmn.scores.rows import ConceptAt
from mmn.studies.bench.rankings import Ranking
from mmn.studies.bench.told import Told


@dataclass(frozen=True)
class Cost:
    """What a score took for one picture: passes forward, passes back, seconds of a processor."""

    forward: float
    backward: float
    seconds: float


def methods_of(model: Model) -> tuple[str, ...]:
    """The scores that the model has, in the order of `names.METHODS`."""
    return tuple(method for method in names.METHODS if _is_there(model, method))


def _is_there(model: Model, method: str) -> bool:
    try:
        require_method(model, method)
    except UsageError:
        return False
    return True


def rank(
    model: Model, told: Told, concepts: Sequence[Concept], method: str, settings: ScoreSettings
) -> tuple[list[Ranking], Cost]:
    """A score's ranking of all units for each noun of a picture, and what it took, reading the caption included."""
    n_positions = told.n_prompt + len(told.caption.token_ids)
    started = time.process_time()
    with count_passes(model, n_positions) as passes:
        batch = read_encoded(model, told.inputs, [told.caption], names.reads_act([method]))
        found = of_batch(model, batch, told, concepts, method, settings)
    return found, Cost(passes.forward, passes.backward, time.process_time() - started)


def of_batch(
    model: Model,
    batch: CaptionBatch,
    told: Told,
    concepts: Sequence[Concept],
    method: str,
    settings: ScoreSettings,
    variant: str = names.ORIGINAL,
) -> list[Ranking]:
    """The rankings of a captured batch of one row."""
    settings = replace(settings, methods=(method,))
    said = [ConceptAt(0, told.example, concept) for concept in concepts]
    with torch.inference_mode():
        measured = measure(model, batch, variant, said, settings)
    (scored,) = all_scores(measured).values()
    orders = _orders(measured, method, scored).cpu().numpy()
    return [Ranking(one[one >= 0], model.facts.n_units) for one in orders]  # -1 behind those that were measured


def _orders(measured: Measured, method: str, scored: Scored) -> torch.Tensor:
    ranked = rank_units(scored.score, measured.model.facts.n_units, is_unit=scored.is_ranked)
    if method.startswith(names.RANDOM_MATCHED):
        ranked = rank_matched(draws(measured, method), ranked.unit)
    return ranked.unit

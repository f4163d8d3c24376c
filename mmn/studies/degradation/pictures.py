"""One picture under several interventions, as many at a time as the run captioned pictures at a time: rows of tables.

The rows' units and noise are told by `selections.Row`; a row with k = 0 is the untouched model.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch
from jaxtyping import Bool, Int
from PIL import Image
from torch import Tensor

from mmn import names
from mmn.metrics import TextMetric
from mmn.models.image_tokens import image_positions
from mmn.reading.captions import write_captions
from mmn.reading.concepts import GeneratedCaption
from mmn.reading.hooks import ablate
from mmn.reading.nouns import tag_nouns
from mmn.reading.rows import Inputs, repeated
from mmn.runs.reopen import ScoredRun
from mmn.studies.degradation.interventions import predict, unit_mask
from mmn.studies.degradation.perturbation import perturb_rows
from mmn.studies.degradation.selections import Row
from mmn.studies.tables import TABLES

if TYPE_CHECKING:
    from mmn.studies.degradation.measure import InterventionPlan

Measured = dict[str, Any]  # what is told of one row: its key, `effect`'s columns, and `noun_share`


@dataclass(frozen=True)
class Measuring:
    """What is measured on a run: `nouns` are the first tokens of all its nouns; without a metric no captions."""

    scored: ScoredRun
    plan: InterventionPlan
    metric: TextMetric | None
    nouns: Int[Tensor, " nouns"]

    def measure(self, image: Image.Image, caption: GeneratedCaption, rows: Sequence[Row]) -> list[Measured]:
        """What each row of one picture comes to."""
        model, settings = self.scored.model, self.scored.run.settings
        inputs = model.encode([image], self.scored.run.prompt)
        outcomes: list[dict[str, Any]] = []
        new: list[str] = []
        for start in range(0, len(rows), settings.batch_size):
            some = rows[start : start + settings.batch_size]
            with self.intervene(some, self._only_at(inputs)):
                concepts = [row.choice.said.concept for row in some]
                outcomes += map(asdict, predict(model, inputs, caption.token_ids, concepts, self.nouns))
                if self.metric is not None:
                    written, _ = write_captions(model, repeated(inputs, len(some)), settings.max_new_tokens)
                    new += [one.text for one in written]
        if self.metric is not None:
            changes = _compare(self.metric, caption, new, [row.choice.said.concept.lemma for row in rows])
            outcomes = [outcome | more for outcome, more in zip(outcomes, changes, strict=True)]
        return [self.key(row) | outcome for row, outcome in zip(rows, outcomes, strict=True)]

    def intervene(
        self, rows: Sequence[Row], only_at: Bool[Tensor, " prompt"] | None = None
    ) -> AbstractContextManager[None, bool | None]:
        """The block inside which each row of a batch has its own units changed."""
        model, plan = self.scored.model, self.plan
        if plan.kind in (names.ABLATE, names.SCALE):
            factors = torch.tensor([row.factor or 0.0 for row in rows], dtype=torch.float64)
            return ablate(model, unit_mask(model, rows), factors, only_at)
        assert plan.sigma_unit is not None, plan
        return perturb_rows(model, rows, self.scored.run.settings.seed, plan.sigma_unit)

    def key(self, row: Row) -> dict[str, Any]:
        """What tells a row from the others, in all tables; and whose units they are."""
        choice = row.choice
        other_image_id, other_noun = choice.other or (None, None)
        return {
            "image_id": choice.said.example.image_id,
            "variant": names.ORIGINAL,
            "noun": choice.said.concept.noun,
            "kind": self.plan.kind,
            "selection": choice.selection,
            "method": choice.method,
            "k": row.k,
            "sigma": row.sigma,
            "sigma_unit": self.plan.sigma_unit,
            "draw": choice.draw,
            "positions": self.plan.positions,
            "factor": row.factor,
            "other_image_id": other_image_id,
            "other_noun": other_noun,
        }

    def _only_at(self, inputs: Inputs) -> Bool[Tensor, " prompt"] | None:
        if self.plan.positions == names.EVERYWHERE:
            return None
        return image_positions(self.scored.model, inputs)[0]


def effect_table(rows: Sequence[Measured]) -> pa.Table:
    """The rows of `effect`."""
    return _table("effect", rows)


def share_table(rows: Sequence[Measured], n_nouns: int) -> pa.Table:
    """The rows of `noun_share`."""
    return _table("noun_share", [row | {"n_nouns": n_nouns} for row in rows])


def _table(name: str, rows: Sequence[Measured]) -> pa.Table:
    schema = TABLES[name]
    return pa.Table.from_pylist([{column: row.get(column) for column in schema.names} for row in rows], schema=schema)


def _compare(
    metric: TextMetric, caption: GeneratedCaption, new: Sequence[str], lemmas: Sequence[str]
) -> list[dict[str, Any]]:
    """What became of the caption in each row; rows that say the same are compared once."""
    texts = list(dict.fromkeys(new))
    similarity = dict(zip(texts, metric.compare(texts, [caption.text] * len(texts)), strict=True))
    said = {text: {noun.lemma for noun in tag_nouns(text)} for text in texts}
    return [
        {"caption": text, "similarity": similarity[text], "metric": metric.name, "is_lost": lemma not in said[text]}
        for text, lemma in zip(new, lemmas, strict=True)
    ]

"""The choices of a set of units: the same for every noun of every picture, beside random units that match it.

    top             the first units of the set, in its order
    interpretable   the first interpretable ones of it
    random          for each noun other random units, rank for rank of the same layer and expert (`units.matched`)

The first units of another picture's noun are chosen by the run's usual score, as many as of the set (`controls`). What
the set was is kept beside what it did (`unit_set`), so that its controls can be measured later. OURS.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import torch

from mmn import names
from mmn.core import Example, Neuron
from mmn.runs.reopen import ScoredRun
from mmn.runs.teacher_forcing import stored_concepts
from mmn.scores.rows import ConceptAt
from mmn.studies.degradation.selections import Choice, Interpretable
from mmn.studies.tables import TABLES
from mmn.units.matched import matched_units
from mmn.units.sets import UnitSet


def choices_of_set(
    scored: ScoredRun,
    given: UnitSet,
    selections: Sequence[str],
    interpretable: Interpretable,
    draws: Mapping[str, int],
    tables: Mapping[str, pa.Table],
    there: Sequence[Example],
) -> Iterator[Choice]:
    """Yields every concept's choices: concepts in their order, then selections and draws."""
    d_mlp, device = scored.model.facts.d_mlp, scored.model.device
    own = torch.tensor(given.flat(d_mlp), device=device)
    words = interpretable.first(own, len(own)) if names.INTERPRETABLE in selections else own[:0]
    for said in stored_concepts(tables, there):
        for selection in selections:
            for draw in range(draws[selection]):
                units = {names.TOP: own, names.INTERPRETABLE: words}.get(selection)
                if units is None:
                    drawn = matched_units(scored.model.anatomy, given.units, _key(scored, said, given, draw))
                    units = torch.tensor([one.layer * d_mlp + one.unit for one in drawn], device=device)
                yield Choice(said, selection, given.label, draw, units.clone())


def _key(scored: ScoredRun, said: ConceptAt, given: UnitSet, draw: int) -> list[str]:
    of = [said.example.image_id, said.concept.lemma, given.label, str(draw)]
    return [str(scored.run.settings.seed), *of]


def set_table(given: UnitSet) -> pa.Table:
    """The rows of `unit_set`: the set's units in their order, and where it came from."""
    scores = given.scores or (None,) * len(given.units)
    told = {"name": given.label, "model": given.model, "origin": json.dumps(dict(given.origin), sort_keys=True)}
    rows = [
        told | {"place": place, "layer": one.layer, "unit": one.unit, "score": score}
        for place, (one, score) in enumerate(zip(given.units, scores, strict=True), start=1)
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["unit_set"])


def set_of(rows: pa.Table) -> UnitSet:
    """The set that a shard's rows of `unit_set` tell of."""
    found = sorted(rows.to_pylist(), key=lambda row: row["place"])
    units = tuple(Neuron(row["layer"], row["unit"]) for row in found)
    name = found[0]["name"].removeprefix(names.SET).rpartition("@")[0]
    return UnitSet(name, units, model=found[0]["model"], origin=json.loads(found[0]["origin"]))

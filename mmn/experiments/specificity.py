"""Is a noun's top unit the noun's own? Its score for every noun of the same picture (P2, figure 5).

    each noun c of a picture ─► its top-1 unit u(c), as the run ranked it
      ─► the caption read again in one pass (`reread`) ─► s_u(c') at p(c'), for every noun c' of the picture
      ─► share(c, c') = s_u(c') / s_u(c): the heat map, x nouns c', y units u(c); its mean over pictures

P2 (arXiv 2311.07470) reads the map so: the diagonal is dark and the rest is near 0. `share` is P2's "normalised", as
we read it: 1 on the diagonal, and empty where s_u(c) is not above 0.

The control is OURS: a random unit r of u(c)'s layer, drawn for this picture, noun and method, never u(c) itself. Its
share is s_r(c') / s_u(c), so that both maps are on one scale (r's own score for c is often about 0, and a share of
that would be anything).

Left out: words that the user chose, random rankings (their units are not found for a noun) and `-minus-blank` ones,
suppressors, and variants other than the original picture.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch

from mmn import names, revisit, shards
from mmn.bootstrap import interval_table
from mmn.core import Neuron, Run
from mmn.errors import UsageError
from mmn.experiments.reread import reread, stored_concepts
from mmn.revisit import ScoredRun
from mmn.runs import ProgressCallback, failure_table
from mmn.scores import uniform_draw
from mmn.tables import EXPERIMENTS, SCHEMAS
from mmn.tabulate import Said, Tables

PREFIX: Final = "specificity"
STAGE: Final = "specificity"


@dataclass(frozen=True)
class _Chosen:
    """A unit that is scored for every noun of its picture: `unit_noun`'s top unit, or the control of that."""

    image_id: str
    unit_noun: str
    method: str
    neuron: Neuron
    is_control: bool


def measure_specificity(
    scored: ScoredRun,
    methods: Sequence[str],
    progress: ProgressCallback = lambda _progress: None,
    limit: int | None = None,
) -> Tables:
    """Scores top units and their controls for the nouns of their pictures, as shards of the run; resumes.

    Args:
        scored: the run.
        methods: of the run, as `checked_methods` gives them.
        progress: told after each batch, in pictures.
        limit: only the first batches, until that many pictures are reached.

    Returns:
        All that the run's shards say of just these methods: `specificity`, and `failure`, one row for each picture
        that does not open any more.
    """
    asked = {"methods": sorted(methods)}

    def answer(batch: str) -> Tables:
        return _measure_batch(scored, methods, shards.read_shard(scored.path / batch))

    revisit.for_each_batch(scored, PREFIX, asked, answer, progress, STAGE, limit)
    mine = fnmatch.filter(sorted(shards.finished_shards(scored.path)), revisit.shard_name(PREFIX, "*", asked))
    found = [shards.read_shard(scored.path / name) for name in mine]
    return {
        table: pa.concat_tables([schema.empty_table(), *(tables[table] for tables in found if table in tables)])
        for table, schema in (("specificity", EXPERIMENTS["specificity"]), ("failure", SCHEMAS["failure"]))
    }


def checked_methods(run: Run, methods: Sequence[str] | None) -> tuple[str, ...]:
    """The methods whose top units can be specific to a noun: those asked for, or all of the run that can.

    Raises:
        UsageError: a method that the run does not have, or that ranks no unit for a noun's sake.
    """
    stored = tuple(method for method in run.settings.methods if not method.startswith(names.RANDOM))
    there = ", ".join(stored) or "none"
    for method in methods or ():
        if method.startswith(names.RANDOM):
            raise UsageError(
                f"{method!r} draws its units at random, so that they belong to no noun; leave it out: a random "
                "control is measured beside every other method"
            )
        if method.endswith(names.MINUS_BLANK):
            plain = method.removesuffix(names.MINUS_BLANK)
            raise UsageError(f"{method!r} compares a picture with a grey one, which is not shown here; take {plain!r}")
        if method not in stored:
            raise UsageError(f"run {run.run_id} has no {method!r} scores; those that can be used here: {there}")
    if not stored:
        raise UsageError(f"run {run.run_id} has random scores only: score with another method, too")
    return stored if methods is None else tuple(dict.fromkeys(methods))


def summarize_specificity(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over pictures with 95 % intervals: method, what, mean, low, high, n (pictures).

    `what` is `other` (the top unit's share for the picture's other nouns), `control own` and `control other` (the
    control's, for the top unit's noun and for the others), or `surpassed`: how many top units score higher for
    another noun of their picture than for their own, 0 to 1. Pictures of one noun have no others.
    """
    is_own = rows["unit_noun"] == rows["noun"]
    others = rows[~is_own & ~rows["is_control"]]
    key = ["image_id", "method", "unit_noun"]
    own = rows[is_own & ~rows["is_control"]].set_index(key)["score"]
    highest = others.groupby(key, as_index=False)["score"].max()
    highest["share"] = (highest["score"].to_numpy() > own.loc[highest.set_index(key).index].to_numpy()).astype(float)
    parts = {
        "other": others,
        "surpassed": highest,
        "control own": rows[is_own & rows["is_control"]],
        "control other": rows[~is_own & rows["is_control"]],
    }
    told = [interval_table(part, ["method"], "share").assign(what=what) for what, part in parts.items() if len(part)]
    columns = ["method", "what", "mean", "low", "high", "n"]
    return pd.concat(told)[columns].reset_index(drop=True) if told else pd.DataFrame(columns=columns)


def _measure_batch(scored: ScoredRun, methods: Sequence[str], tables: Mapping[str, pa.Table]) -> Tables:
    """The shard of one batch."""
    examples, images, failures = revisit.open_all(tables, STAGE)
    chosen = _choose(scored, methods, tables["score"], stored_concepts(tables, examples))
    scores: dict[_Chosen, dict[str, float]] = {}
    for measured, found in reread(scored, tables, examples, images, methods):
        for method, of in found.items():
            places = [
                (index, said.concept.noun, one)
                for index, said in enumerate(measured.said)
                for one in chosen[said.example.image_id, method]
            ]
            concept = torch.tensor([index for index, _, _ in places])
            layer = torch.tensor([one.neuron.layer for _, _, one in places])
            unit = torch.tensor([one.neuron.unit for _, _, one in places])
            values = of.score[concept, layer, unit].tolist()
            for (_, noun, one), value in zip(places, values, strict=True):
                scores.setdefault(one, {})[noun] = value
    rows = [row for units in chosen.values() for row in _rows(units, scores)]
    written = {"specificity": pa.Table.from_pylist(rows, schema=EXPERIMENTS["specificity"])}
    return written | ({"failure": failure_table(failures)} if failures else {})


def _choose(
    scored: ScoredRun, methods: Sequence[str], scores: pa.Table, said: Sequence[Said]
) -> dict[tuple[str, str], list[_Chosen]]:
    """By picture and method, each noun's top unit followed by its control."""
    is_top = pc.and_(pc.equal(scores["rank"], 1), pc.equal(scores["variant"], names.ORIGINAL))
    top = {
        (row["image_id"], row["noun"], row["method"]): Neuron(row["layer"], row["unit"])
        for row in scores.filter(is_top).to_pylist()
    }
    chosen: dict[tuple[str, str], list[_Chosen]] = {}
    for one in said:
        image_id, noun = one.example.image_id, one.concept.noun
        for method in methods:
            neuron = top[image_id, noun, method]
            control = _control(scored, one, method, neuron)
            chosen.setdefault((image_id, method), []).extend(
                (_Chosen(image_id, noun, method, neuron, False), _Chosen(image_id, noun, method, control, True))
            )
    return chosen


def _control(scored: ScoredRun, said: Said, method: str, top: Neuron) -> Neuron:
    """A random unit of `top`'s layer that is not `top`."""
    key = (said.example.image_id, names.ORIGINAL, said.concept.lemma, f"{PREFIX} {method}")
    draws = uniform_draw(scored.run.settings.seed, *key, n_units=scored.model.facts.d_mlp)
    draws[top.unit] = -1.0
    return Neuron(top.layer, int(draws.argmax()))


def _rows(units: Sequence[_Chosen], scores: Mapping[_Chosen, Mapping[str, float]]) -> Iterator[dict[str, Any]]:
    """The rows of one picture and method."""
    own = {one.unit_noun: scores[one][one.unit_noun] for one in units if not one.is_control}
    for one in units:
        for noun, score in scores[one].items():
            yield {
                "image_id": one.image_id,
                "unit_noun": one.unit_noun,
                "noun": noun,
                "method": one.method,
                "layer": one.neuron.layer,
                "unit": one.neuron.unit,
                "score": score,
                "share": score / own[one.unit_noun] if own[one.unit_noun] > 0 else None,
                "is_control": one.is_control,
            }

"""Is a noun's top unit the noun's own? Its score for every noun of the same picture (P2, figure 5), held out.

    each noun c of a picture ─► its top-1 unit u(c) on ANOTHER picture of the noun (`held_out`), as the run ranked it
      ─► the caption read again in one pass (`reread`) ─► s_u(c') at p(c'), for every noun c' of this picture
      ─► share(c, c') = s_u(c') / s_t(c), t(c) the top unit of c on this picture: the heat map, x nouns c', y units u(c)

P2 (arXiv 2311.07470) takes u(c) = t(c), the unit found on the picture that it is judged on, and reads the map so: the
diagonal is dark and the rest is near 0. `share` is P2's "normalised", as we read it. There the diagonal is 1 and c is
the noun that u(c) scores highest for by selection, whatever the units mean. So that figure stands beside its null, and
what is concluded rests on the unit found elsewhere (`held-out`, OURS).

    selection   unit                                    its control
    held-out    found on another picture of the noun    a random unit of its layer, never the unit itself; with
                                                        experts of its own expert (OURS), awake where the unit is
    same        found on this picture (P2)              `shuffled`: unit identities shuffled within each layer, for each
                                                        noun on its own, then chosen likewise: the selection alone

All four are over s_t(c), so that they are on one scale, and empty where that is not above 0. A noun that one picture
alone says has no held-out unit.

Left out: words that the user chose, random rankings (their units are not found for a noun) and `-minus-blank` ones,
suppressors, and variants other than the original picture.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Int
from torch import Tensor

from mmn import names
from mmn.core import Neuron, Run
from mmn.errors import UsageError
from mmn.names import HELD_OUT, SAME_PICTURE, SHUFFLED_UNITS
from mmn.runs import reopen, shards
from mmn.runs.held_out import Found, HeldOut, read_held_out
from mmn.runs.plan import ProgressCallback
from mmn.runs.reopen import ScoredRun
from mmn.runs.teacher_forcing import reread, stored_concepts
from mmn.scores.equations import uniform_draw
from mmn.scores.rows import ConceptAt, Tables
from mmn.statistics.intervals import interval_table
from mmn.studies.tables import SCHEMAS, TABLES, failure_table
from mmn.units.matched import same_part

PREFIX: Final = "specificity"
STAGE: Final = "specificity"


@dataclass(frozen=True)
class _Chosen:
    """What is scored for every noun of a picture in the name of `unit_noun`: a unit, or a shuffled one.

    `neurons` has an entry for each noun of the picture, in the caption's order: one unit throughout, but where
    identities are shuffled, each noun has its own unit under the chosen name.
    """

    image_id: str
    unit_noun: str
    method: str
    selection: str
    is_control: bool
    found_on: str | None
    neurons: tuple[Neuron, ...]


def measure_specificity(
    scored: ScoredRun,
    methods: Sequence[str],
    progress: ProgressCallback = lambda _progress: None,
    limit: int | None = None,
) -> Tables:
    """Scores top units and their controls for the nouns of the pictures, as shards of the run; resumes.

    Which other picture a unit is found on is drawn from all pictures that are scored: of a run that goes on, it may
    change, and then all is measured again.

    Args:
        scored: the run.
        methods: of the run, as `checked_methods` gives them.
        progress: told after each batch, in pictures.
        limit: only the first batches, until that many pictures are reached.

    Returns:
        All that the run's shards say of just these methods: `specificity`, and `failure`, one row for each picture
        that does not open any more.
    """
    elsewhere = read_held_out(scored.path, methods, 1, scored.run.settings.seed)
    asked = {"methods": sorted(methods), "held out": elsewhere.digest()}

    def answer(batch: str) -> Tables:
        return _measure_batch(scored, methods, elsewhere, shards.read_shard(scored.path / batch))

    reopen.for_each_batch(scored, PREFIX, asked, answer, progress, STAGE, limit)
    mine = fnmatch.filter(sorted(shards.finished_shards(scored.path)), reopen.shard_name(PREFIX, "*", asked))
    found = [shards.read_shard(scored.path / name) for name in mine]
    return {
        table: pa.concat_tables([schema.empty_table(), *(tables[table] for tables in found if table in tables)])
        for table, schema in (("specificity", TABLES["specificity"]), ("failure", SCHEMAS["failure"]))
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


WHO: Final[dict[tuple[str, bool], str]] = {
    (HELD_OUT, False): "held-out",
    (HELD_OUT, True): "control",
    (SAME_PICTURE, False): "same",
    (SHUFFLED_UNITS, True): "shuffled",
    (SAME_PICTURE, True): "same control",  # of earlier versions: a random unit of the layer
}  # by selection and whether it is a control


def summarize_specificity(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over pictures with 95 % intervals: method, what, mean, low, high, n (pictures).

    `what` is who (`held-out`, its `control`; `same`, its null `shuffled`) and which number of theirs: `own` and `other`
    (the share for the unit's noun, and for the picture's other nouns), or `highest`: how many score highest for their
    own noun of all nouns of the picture, 0 to 1, ties counted; pictures of one noun have none, and no others.
    """
    who = [WHO[key] for key in zip(rows["selection"], rows["is_control"], strict=True)]
    rows = rows.assign(who=who, is_own=rows["unit_noun"] == rows["noun"])
    parts = [
        rows.assign(number=["own" if is_own else "other" for is_own in rows["is_own"]], value=rows["share"]),
        _are_highest(rows).assign(number="highest"),
    ]
    told = pd.concat(parts)[["image_id", "method", "who", "number", "value"]].dropna()
    columns = ["method", "what", "mean", "low", "high", "n"]
    if told.empty:
        return pd.DataFrame(columns=columns)
    found = interval_table(told, ["method", "who", "number"], "value")
    found = found[found["n"] > 0]
    return found.assign(what=found["who"] + " " + found["number"])[columns].reset_index(drop=True)


def count_of_one_picture(rows: pd.DataFrame) -> int:
    """How many nouns of pictures have no held-out unit, since no other picture's caption says them."""
    nouns = rows.groupby(["image_id", "unit_noun"])["selection"].agg(set)
    return sum(HELD_OUT not in selections for selections in nouns)


def _are_highest(rows: pd.DataFrame) -> pd.DataFrame:
    """For each unit of a picture of two or more nouns, whether its own noun is its highest: `value`, 0 or 1."""
    key = ["image_id", "method", "who", "unit_noun"]
    best = rows.groupby(key, as_index=False).agg(best=("score", "max"), n=("score", "size"))
    own = rows[rows["is_own"]][[*key, "score"]].merge(best[best["n"] > 1], on=key)
    return own.assign(value=(own["score"] >= own["best"]).astype(float))


def _measure_batch(
    scored: ScoredRun, methods: Sequence[str], elsewhere: HeldOut, tables: Mapping[str, pa.Table]
) -> Tables:
    """The shard of one batch."""
    examples, images, failures = reopen.open_all(tables, STAGE)
    said = stored_concepts(tables, examples)
    chosen = _choose(scored, methods, elsewhere, tables["score"], said)
    place = {(one.example.image_id, one.concept.noun): number for number, one in _numbered(said)}
    scores: dict[_Chosen, dict[str, float]] = {}
    for measured, found in reread(scored, tables, examples, images, methods):
        for method, of in found.items():
            places = [
                (index, said.concept.noun, one, one.neurons[place[said.example.image_id, said.concept.noun]])
                for index, said in enumerate(measured.said)
                for one in chosen[said.example.image_id, method]
            ]
            concept = torch.tensor([index for index, *_ in places])
            layer = torch.tensor([neuron.layer for *_, neuron in places])
            unit = torch.tensor([neuron.unit for *_, neuron in places])
            values = of.of_units(concept, layer, unit).tolist()
            for (_, noun, one, _), value in zip(places, values, strict=True):
                scores.setdefault(one, {})[noun] = value
    rows = [row for units in chosen.values() for row in _rows(units, scores)]
    written = {"specificity": pa.Table.from_pylist(rows, schema=TABLES["specificity"])}
    return written | ({"failure": failure_table(failures)} if failures else {})


def _numbered(said: Sequence[ConceptAt]) -> Iterator[tuple[int, ConceptAt]]:
    """Each concept with its number among those of its picture."""
    counts: dict[str, int] = {}
    for one in said:
        number = counts.get(one.example.image_id, 0)
        counts[one.example.image_id] = number + 1
        yield number, one


def _choose(
    scored: ScoredRun, methods: Sequence[str], elsewhere: HeldOut, scores: pa.Table, said: Sequence[ConceptAt]
) -> dict[tuple[str, str], list[_Chosen]]:
    """By picture and method what is scored in the name of each noun."""
    is_top = pc.and_(pc.equal(scores["rank"], 1), pc.equal(scores["variant"], names.ORIGINAL))
    top = {
        (row["image_id"], row["noun"], row["method"]): Neuron(row["layer"], row["unit"])
        for row in scores.filter(is_top).to_pylist()
    }
    nouns: dict[str, list[str]] = {}
    for one in said:
        nouns.setdefault(one.example.image_id, []).append(one.concept.noun)
    chosen: dict[tuple[str, str], list[_Chosen]] = {}
    for one in said:
        image_id, noun = one.example.image_id, one.concept.noun
        for method in methods:
            own, found = top[image_id, noun, method], elsewhere.of(image_id, noun, method)
            units = chosen.setdefault((image_id, method), [])
            units += _on_this_picture(scored, one, method, own, nouns[image_id])
            units += _held_out(scored, one, method, found, len(nouns[image_id])) if found else ()
    return chosen


def _on_this_picture(
    scored: ScoredRun, said: ConceptAt, method: str, top: Neuron, nouns: Sequence[str]
) -> tuple[_Chosen, _Chosen]:
    """The noun's top unit of this picture, and what the same choice finds once unit identities are shuffled."""
    image_id, noun = said.example.image_id, said.concept.noun
    part = same_part(scored.model.anatomy, top)
    shuffled = shuffled_units(scored.run.settings.seed, part, image_id, noun, top, nouns)
    return (
        _Chosen(image_id, noun, method, SAME_PICTURE, False, None, (top,) * len(nouns)),
        _Chosen(image_id, noun, method, SHUFFLED_UNITS, True, None, shuffled),
    )


def _held_out(scored: ScoredRun, said: ConceptAt, method: str, found: Found, n_nouns: int) -> tuple[_Chosen, _Chosen]:
    """The noun's top unit of another picture, and a random unit of its layer."""
    image_id, noun, unit = said.example.image_id, said.concept.noun, found.units[0]
    control = _control(scored, said, method, unit)
    return (
        _Chosen(image_id, noun, method, HELD_OUT, False, found.image_id, (unit,) * n_nouns),
        _Chosen(image_id, noun, method, HELD_OUT, True, found.image_id, (control,) * n_nouns),
    )


def shuffled_units(
    seed: int, part: range, image_id: str, noun: str, top: Neuron, nouns: Sequence[str]
) -> tuple[Neuron, ...]:
    """Of each of `nouns` the unit whose score the name of `noun`'s top unit bears, once identities are shuffled.

    Each noun's scores are permuted within every layer, in a mixture of experts within every expert, each noun's by
    itself. The highest score stays the highest, so that the same choice finds it under its new name, and `noun` itself
    keeps `top`; under that name any other noun has the score of an arbitrary unit of `part`.

    Args:
        seed: of the run.
        part: the units of `top`'s layer, or expert (`units.matched.same_part`).
        image_id: the picture.
        noun: whose top unit it is.
        top: that.
        nouns: of the picture.
    """
    name = int((_order(seed, part, image_id, noun, top.layer) == top.unit).nonzero()[0, 0])
    return tuple(Neuron(top.layer, int(_order(seed, part, image_id, one, top.layer)[name])) for one in nouns)


@lru_cache(maxsize=256)
def _order(seed: int, part: range, image_id: str, noun: str, layer: int) -> Int[Tensor, " m"]:
    """A permutation of a part of a layer's units: its j-th name stands for unit `order[j]`."""
    draws = uniform_draw(seed, image_id, names.ORIGINAL, noun, f"{PREFIX} {SHUFFLED_UNITS} {layer}", part.stop)
    return draws[part.start :].argsort(stable=True) + part.start


def _control(scored: ScoredRun, said: ConceptAt, method: str, top: Neuron) -> Neuron:
    """A random unit of `top`'s layer that is not `top`; in a mixture of experts of the same expert."""
    key = (said.example.image_id, names.ORIGINAL, said.concept.lemma, f"{PREFIX} {method}")
    part = same_part(scored.model.anatomy, top)
    draws = uniform_draw(scored.run.settings.seed, *key, n_units=part.stop)
    draws[top.unit] = -1.0
    return Neuron(top.layer, part.start + int(draws[part.start :].argmax()))


def _rows(units: Sequence[_Chosen], scores: Mapping[_Chosen, Mapping[str, float]]) -> Iterator[dict[str, Any]]:
    """The rows of one picture and method."""
    top = {one.unit_noun: scores[one][one.unit_noun] for one in units if one.selection == SAME_PICTURE}
    for one in units:
        for neuron, (noun, score) in zip(one.neurons, scores[one].items(), strict=True):
            yield {
                "image_id": one.image_id,
                "unit_noun": one.unit_noun,
                "noun": noun,
                "method": one.method,
                "layer": neuron.layer,
                "unit": neuron.unit,
                "score": score,
                "share": score / top[one.unit_noun] if top[one.unit_noun] > 0 else None,
                "is_control": one.is_control,
                "selection": one.selection,
                "found_on": one.found_on,
            }

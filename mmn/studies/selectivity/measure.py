"""Are the units of a class of pictures more active on that class than on others? (P1, figure S.2)

    nouns that enough captions say ─► their pictures, split: found | held out
      ─► a class's units: those among the noun's top k in most of the found pictures
      ─► one pass over the prompt of each held-out picture ─► the units' mean |a|
      ─► value(c, c') over the units of c and the held-out pictures of c' ─► ÷ its maximum over c': the heat map
      ─► the same picture by picture, for the intervals and tests    `class_activation`

P1 (arXiv 2308.01544) has 20 units a class. OURS, where it leaves a choice or our pictures differ:

- A class is a noun's lemma, and a picture belongs to every class that its caption says. As captions say several
  nouns, the held-out pictures of c' that say c too are left out of value(c, c'); a class that never comes without c has
  no value for c's units. On the diagonal are all held-out pictures of c.
- Activation a is read at the image tokens, their mean, whatever the ranking: a held-out picture of another class has
  no place where c is predicted.
- Its size |a| is taken. In a gated FFN a unit's sign means nothing (turn it in W_up and W_out, and the model is the
  same), and means of signed values come out near 0, where a share of the largest is anything. In a plain FFN with GELU,
  as in P1's model, negative activations are small and the difference is, too.
- A unit is found in a picture if it is among the noun's own top k there. Ties go to the lower mean rank, then to the
  lower layer and unit.
- The control is as many random units of the same layers, read in the same passes.

Units are found and judged on different pictures, so no null of the choice is needed. Only the scale, the largest of the
classes, is taken from the pictures that are judged: the control's is, too, and lies where chance puts it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float
from PIL import Image

from mmn import names
from mmn.core import Example, Failure, Neuron
from mmn.counts import counted
from mmn.errors import ImageError
from mmn.models.float64 import wide
from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.reading.captions import greedy
from mmn.reading.hooks import capture_units
from mmn.runs import reopen, shards
from mmn.runs.plan import Progress, ProgressCallback
from mmn.runs.reopen import ScoredRun
from mmn.scores.equations import uniform_draw
from mmn.scores.rows import Tables
from mmn.statistics.intervals import interval_table
from mmn.studies.tables import SCHEMAS, TABLES, failure_table
from mmn.units.receptive_fields import control_units
from mmn.units.sets import UnitSet

PREFIX: Final = "selectivity"
STAGE: Final = "selectivity"
TOP: Final = 100  # a noun's units in a picture, as P1 has 100 a picture; fewer where the run stores fewer


@dataclass(frozen=True)
class NounClass:
    """The pictures whose captions say a noun: those that its units are found in, and those held out."""

    lemma: str
    found: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class ClassUnits:
    """The units of a class by one ranking, or the random units that are their control."""

    lemma: str
    method: str
    is_control: bool
    units: tuple[Neuron, ...]


@dataclass(frozen=True)
class Activations:
    """Each unit's mean |a| over the image tokens of each picture."""

    image_ids: tuple[str, ...]
    units: tuple[Neuron, ...]
    values: Float[np.ndarray, "pictures units"]


@dataclass(frozen=True)
class _Scores:
    """What the run says: its pictures, the lemmas that each caption says, and the top of each noun's rankings."""

    examples: dict[str, Example]
    said: dict[str, set[str]]
    ranked: pd.DataFrame


def measure_selectivity(
    scored: ScoredRun,
    methods: Sequence[str],
    held_out: int = 5,
    n_units: int = 20,
    progress: ProgressCallback = lambda _progress: None,
    given: UnitSet | None = None,
) -> Tables:
    """Measures how active each class's units are on each class, as one shard of the run; done once.

    A set of units is measured instead of the classes' own. Its class is the noun that it was made for, if that is one;
    else all classes are others to it, and it is called by its name.

    Args:
        scored: the run; complete, since a class is all pictures of a noun.
        methods: of the run, as `specificity.checked_methods` gives them.
        held_out: pictures of each class that its units are not found in; a class has at least twice as many.
        n_units: of each class.
        given: a set of units; `methods` and `n_units` then mean nothing.
        progress: told after each held-out picture.

    Returns:
        `selectivity`, `class_activation`, and `failure`, one row for each held-out picture that does not open any more.
        Without a noun that enough captions say all are empty, and nothing is written.

    Raises:
        UsageError: the model has no image tokens in its prompt.
    """
    asked = {"methods": sorted(methods), "held_out": held_out, "units": n_units, "by": "picture"}
    asked |= {} if given is None else {"methods": [given.label], "noun": _noun_of(given), "units": len(given.units)}
    name = reopen.shard_name(PREFIX, "all", asked)
    tables: Tables = {}
    if name in shards.finished_shards(scored.path):
        tables = shards.read_shard(scored.path / name)
    else:
        scores = _read_scores(scored, methods)
        classes = split_classes(scores.said, held_out, scored.run.settings.seed)
        if classes:
            chosen = (
                class_units(scores.ranked, classes, n_units)
                if given is None
                else (ClassUnits(_noun_of(given), given.label, False, given.units),)
            )
            units = _with_controls(scored, chosen)
            activations, failures = _read_activations(scored, scores, classes, units, progress)
            found = {
                "selectivity": selectivity_rows(classes, units, activations, scores.said),
                "class_activation": picture_rows(classes, units, activations, scores.said),
            }
            for table, rows in found.items():
                with_size = [row | {"held_out": held_out} for row in rows]
                tables[table] = pa.Table.from_pylist(with_size, schema=TABLES[table])
            tables |= {"failure": failure_table(failures)} if failures else {}
            shards.write_shard(scored.path, name, tables)
    empty = {table: TABLES[table].empty_table() for table in ("selectivity", "class_activation")}
    return empty | {"failure": SCHEMAS["failure"].empty_table()} | tables


def _noun_of(given: UnitSet) -> str:
    return given.origin.get("noun", "") or given.name


def split_classes(said: Mapping[str, Collection[str]], held_out: int, seed: int = 0) -> tuple[NounClass, ...]:
    """The nouns that at least 2 · `held_out` pictures say, by name, their pictures split at random.

    Args:
        said: of each picture (`image_id`) the lemmas of its caption.
        held_out: pictures of each class that are held out; all others are for finding its units.
        seed: of the split, which depends on nothing else: not on the pictures' order, nor on other classes.
    """
    pictures: dict[str, list[str]] = {}
    for image_id, lemmas in said.items():
        for lemma in lemmas:
            pictures.setdefault(lemma, []).append(image_id)
    classes = []
    for lemma, image_ids in sorted(pictures.items()):
        if len(image_ids) >= 2 * held_out:
            drawn = sorted((float(uniform_draw(seed, one, names.ORIGINAL, lemma, PREFIX, 1)), one) for one in image_ids)
            ordered = [one for _, one in drawn]
            classes.append(NounClass(lemma, tuple(ordered[held_out:]), tuple(ordered[:held_out])))
    return tuple(classes)


def class_units(ranked: pd.DataFrame, classes: Sequence[NounClass], n_units: int) -> tuple[ClassUnits, ...]:
    """For each class and method the `n_units` units that are ranked in most of the class's found pictures.

    Args:
        ranked: rows of the top k of every noun and picture: lemma, image_id, method, rank, layer, unit.
        classes: held-out pictures are not looked at.
        n_units: of each class; fewer where fewer are ranked.
    """
    pairs = [(one.lemma, image_id) for one in classes for image_id in one.found]
    found = ranked.merge(pd.DataFrame(pairs, columns=["lemma", "image_id"]), on=["lemma", "image_id"])
    key = ["lemma", "method", "layer", "unit"]
    counted = found.groupby(key, as_index=False)["rank"].agg(["size", "mean"])
    best = counted.sort_values(["size", "mean", "layer", "unit"], ascending=[False, True, True, True])
    return tuple(
        ClassUnits(lemma, method, False, tuple(Neuron(int(one.layer), int(one.unit)) for one in rows.itertuples()))
        for (lemma, method), rows in best.groupby(["lemma", "method"], sort=True).head(n_units).groupby(key[:2])
    )


def selectivity_rows(
    classes: Sequence[NounClass],
    units: Sequence[ClassUnits],
    activations: Activations,
    said: Mapping[str, Collection[str]],
) -> list[dict[str, Any]]:
    """The rows of `selectivity`: for each of `units` the mean |a| on each class that has a picture for it."""
    column = {one: number for number, one in enumerate(activations.units)}
    lemmas = [one.lemma for one in classes]
    is_of = np.array([[image_id in one.held_out for image_id in activations.image_ids] for one in classes])
    says = {lemma: np.array([lemma in said[image_id] for image_id in activations.image_ids]) for lemma in lemmas}
    no_picture = np.zeros(len(activations.image_ids), dtype=bool)  # says what is no noun
    rows: list[dict[str, Any]] = []
    for of in units:
        per_picture = activations.values[:, [column[one] for one in of.units]].mean(axis=1)
        own = np.array([lemma == of.lemma for lemma in lemmas])
        counts = is_of & (own[:, None] | ~says.get(of.lemma, no_picture))
        n_images = counts.sum(axis=1)
        values = (counts @ per_picture)[n_images > 0] / n_images[n_images > 0]
        largest = values.max(initial=-np.inf)
        key = {"unit_noun": of.lemma, "method": of.method, "is_control": of.is_control, "n_units": len(of.units)}
        for index, value in zip(np.flatnonzero(n_images), values.tolist(), strict=True):
            share = value / largest if largest > 0 else None
            rows.append(key | {"noun": lemmas[index], "value": value, "share": share, "n_images": int(n_images[index])})
    return rows


def picture_rows(
    classes: Sequence[NounClass],
    units: Sequence[ClassUnits],
    activations: Activations,
    said: Mapping[str, Collection[str]],
) -> list[dict[str, Any]]:
    """The rows of `class_activation`: for each of `units` the mean |a| on each held-out picture that counts for them.

    `is_own` are the held-out pictures of the units' class. Others do not say its noun.
    """
    column = {one: number for number, one in enumerate(activations.units)}
    held_out = {one.lemma: set(one.held_out) for one in classes}
    rows: list[dict[str, Any]] = []
    for of in units:
        per_picture = activations.values[:, [column[one] for one in of.units]].mean(axis=1)
        key = {"unit_noun": of.lemma, "method": of.method, "is_control": of.is_control, "n_units": len(of.units)}
        for image_id, value in zip(activations.image_ids, per_picture.tolist(), strict=True):
            is_own = image_id in held_out.get(of.lemma, ())
            if is_own or of.lemma not in said[image_id]:
                rows.append(key | {"image_id": image_id, "is_own": is_own, "value": value})
    return rows


def summarize_selectivity(rows: pd.DataFrame, pictures: pd.DataFrame) -> pd.DataFrame:
    """Mean shares with 95 % intervals by held-out picture: method, what, mean, low, high, n (pictures).

    A picture's value is the mean over the units of all classes that it counts for, each as a share of its largest class
    (the scale, which is not resampled). `what` is `own` (held-out pictures of the units' class), `other`,
    `control own` or `control other`.

    Args:
        rows: `selectivity`.
        pictures: `class_activation`.
    """
    key = ["unit_noun", "method", "is_control"]
    largest = rows.groupby(key, as_index=False)["value"].max().rename(columns={"value": "largest"})
    told = pictures.merge(largest, on=key)
    told = told[told["largest"] > 0]
    columns = ["method", "what", "mean", "low", "high", "n"]
    if told.empty:
        return pd.DataFrame(columns=columns)
    who = np.where(told["is_control"], "control ", "")
    told = told.assign(share=told["value"] / told["largest"], what=who + np.where(told["is_own"], "own", "other"))
    return interval_table(told, ["method", "what"], "share")[columns]


def _read_scores(scored: ScoredRun, methods: Sequence[str]) -> _Scores:
    examples: dict[str, Example] = {}
    said: dict[str, set[str]] = {}
    ranked = []
    for batch in reopen.batches(scored):
        tables = shards.read_shard(scored.path / batch)
        examples |= {example.image_id: example for example in reopen.examples(tables)}
        concepts = tables["concept"].filter(
            pc.and_(pc.equal(tables["concept"]["variant"], names.ORIGINAL), pc.is_null(tables["concept"]["target_at"]))
        )
        lemmas = concepts.select(["image_id", "noun", "lemma"]).to_pandas()
        for one in lemmas.itertuples():
            said.setdefault(one.image_id, set()).add(one.lemma)
        ranked.append(_top_rows(tables["score"], methods).merge(lemmas, on=["image_id", "noun"]))
    return _Scores(examples, said, pd.concat(ranked))


def _top_rows(scores: pa.Table, methods: Sequence[str]) -> pd.DataFrame:
    is_top = pc.and_(pc.greater_equal(scores["rank"], 1), pc.less_equal(scores["rank"], TOP))
    is_asked = pc.is_in(scores["method"], pa.array(methods, pa.string()))
    rows = scores.filter(pc.and_(pc.and_(is_top, is_asked), pc.equal(scores["variant"], names.ORIGINAL)))
    return rows.select(["image_id", "noun", "method", "rank", "layer", "unit"]).to_pandas()


def _with_controls(scored: ScoredRun, units: Sequence[ClassUnits]) -> tuple[ClassUnits, ...]:
    """`units`, each with its control."""
    seed, widths = str(scored.run.settings.seed), scored.model.anatomy.widths
    controls = [
        ClassUnits(of.lemma, of.method, True, control_units(of.units, widths, (seed, PREFIX, of.lemma, of.method)))
        for of in units
    ]
    return (*units, *controls)


def _read_activations(
    scored: ScoredRun,
    scores: _Scores,
    classes: Sequence[NounClass],
    units: Sequence[ClassUnits],
    progress: ProgressCallback,
) -> tuple[Activations, tuple[Failure, ...]]:
    """All `units` in every held-out picture that still opens, and what is wrong with the others."""
    needed = tuple(sorted({one for of in units for one in of.units}))
    wanted = sorted({image_id for one in classes for image_id in one.held_out})
    progress(Progress(STAGE, 0, len(wanted), f"{counted(len(classes), 'class')}"))
    image_ids, values, failures = [], [], []
    for number, image_id in enumerate(wanted, start=1):
        example = scores.examples[image_id]
        try:
            image = reopen.open_again(example)
            values.append(_mean_activations(scored.model, image, scored.run.prompt, needed))
            image_ids.append(image_id)
        except ImageError as error:
            failures.append(Failure.of(example.source, STAGE, error))
        progress(Progress(STAGE, number, len(wanted)))
    stacked = np.stack(values) if values else np.empty((0, len(needed)))
    return Activations(tuple(image_ids), needed, stacked), tuple(failures)


@torch.inference_mode()
def _mean_activations(
    model: Model, image: Image.Image, exact_prompt: str, units: Sequence[Neuron]
) -> Float[np.ndarray, " n"]:
    """Mean over the image tokens of |a|, in one pass over the prompt."""
    inputs = model.encode([image], exact_prompt)
    with capture_units(model, units) as captured:
        model.module.generate(**inputs, generation_config=greedy(model, 1))
    return wide(captured.read()[image_positions(model, inputs)]).abs().mean(dim=0).cpu().numpy()

"""Do a noun's top units write words that fit the picture? Their decoded tokens against noun, captions and picture.

    each picture, noun and ranking ─► the top units ─► each unit's 10 tokens, one text
      ─► compared, by each metric, with the noun, the caption, the references (texts) or the picture ─► the best unit
    control: the same of the units of another picture's noun (shuffled pairing)
    and of the units that the same noun's ranking has over a grey picture, where the run scored one (`--blank`)

P1 (arXiv 2308.01544, table 1) takes the top 100 units of a picture and the best of them, by BERTScore and CLIPScore,
against a shuffled pairing. Ours differs in three things: units are those of each noun (a picture's value is the mean
over its nouns), the default metric is lexical and needs no model, and `top` is a choice, 10 unless said.

Pairing: the run's pictures with nouns in one random cycle, drawn by the run's seed; each is compared with the units of
the next one's. So no picture meets itself, every picture's units are used once, and the pairing is the same whatever
metric, method or limit. The j-th noun meets the (j mod n)-th of the other picture's n nouns. That picture may show the
same thing: the control is what such pictures have in common, too, and not 0.

The shuffled pairing does not undo that units were chosen for this very noun: a contribution holds W_U[t], and a unit
that was chosen for t writes t. Units chosen likewise over a grey picture (OURS), by the same score for the same token
after the same words, show what that choice brings without the picture.

Left out: words that the user chose, suppressors, and variants other than these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from mmn import names
from mmn.core import Example, Failure, Neuron, Run
from mmn.counts import counted
from mmn.errors import ImageError, UsageError
from mmn.metrics import ImageMetric, Lexical, TextMetric
from mmn.models.model import Model
from mmn.runs import reopen, shards
from mmn.runs.added_later import added_references
from mmn.runs.plan import ProgressCallback
from mmn.runs.teacher_forcing import stored_concepts
from mmn.scores.rows import Tables
from mmn.statistics.intervals import ANYWHERE, SHARE, interval_table
from mmn.studies.annotate.measure import NEURONS_SHARD, checked_methods, checked_top, decode_missing
from mmn.studies.tables import SCHEMAS, TABLES, failure_table

PREFIX: Final = "sensitivity"
STAGE: Final = "sensitivity"
PICTURES_OF_A_SHARD: Final = 64

_Rate = Callable[[Sequence[str]], list[float]]  # of texts: how well each fits


@dataclass(frozen=True)
class _Nouns:
    """A picture's nouns, in the caption's order, and the top units of each by each method, here and over grey."""

    nouns: tuple[str, ...]
    units: Mapping[tuple[str, str], tuple[Neuron, ...]]
    blank: Mapping[tuple[str, str], tuple[Neuron, ...]]


@dataclass(frozen=True)
class _Asked:
    """What was asked of which run, and what answering any picture needs."""

    path: Path
    metrics: tuple[TextMetric | ImageMetric, ...]
    methods: tuple[str, ...]
    top: int
    pictures: Mapping[str, _Nouns]
    other: Mapping[str, str]
    words: Mapping[Neuron, str]
    references: Mapping[str, tuple[str, ...]]  # of pictures to which some were added after scoring


def measure_sensitivity(
    run_path: Path,
    load: Callable[[], Model],
    metrics: Sequence[TextMetric | ImageMetric] = (Lexical(),),
    methods: Sequence[str] | None = None,
    top: int = 10,
    progress: ProgressCallback = lambda _progress: None,
    limit: int | None = None,
) -> Tables:
    """Compares the words of each noun's top units with the noun, its captions and picture, as shards of the run.

    Resumes: what an earlier call with the same settings measured is not measured again. The `metric` of a row is the
    metric's name, then what was compared with and how many units: `lexical-v1:noun:top10`.

    Args:
        run_path: the run's folder.
        load: gets the run's model; called only if units are not decoded yet.
        metrics: a text metric is compared with noun, caption and references, the best of them; an image metric with
            the picture.
        methods: rankings of the run; None for all of it, the random ones too, as a second control.
        top: units of each noun; cut to what the run stored.
        progress: told in stages `decode` and `sensitivity`, the latter in pictures.
        limit: only the first so many pictures; their pairing stays that of the whole run.

    Returns:
        All that the run's shards say of just this: `sensitivity`, and `failure`, one row for each picture that does
        not open any more (where an image metric wants it).

    Raises:
        UsageError: a method that the run has not, `top` below 1, fewer than two pictures with nouns, another model.
        CacheError: no run there, a broken shard, or no space left; what was finished is kept.
    """
    run, _ = shards.read_run(run_path)
    asked = _prepare(run, run_path, load, metrics, methods, top, progress)
    settings: dict[str, Any] = {
        "metrics": sorted(metric.name for metric in asked.metrics),
        "methods": sorted(asked.methods),
        "top": asked.top,
        "pairs": hashlib.sha256(repr(sorted(asked.other.items())).encode()).hexdigest(),
    }
    settings |= {"control": names.BLANK} if names.BLANK in run.settings.variants else {}

    if asked.references:
        settings["references"] = hashlib.sha256(repr(sorted(asked.references.items())).encode()).hexdigest()

    def answer(tables: Tables, tell: Callable[[], None]) -> Tables:
        return _measure_pictures(asked, tables, tell)

    written = reopen.for_each_part(asked, PREFIX, settings, answer, progress, STAGE, limit, PICTURES_OF_A_SHARD)
    found = [shards.read_shard(run_path / name) for name in written]
    return {
        table: pa.concat_tables([schema.empty_table(), *(tables[table] for tables in found if table in tables)])
        for table, schema in (("sensitivity", TABLES["sensitivity"]), ("failure", SCHEMAS["failure"]))
    }


def pair_pictures(image_ids: Iterable[str], seed: int) -> dict[str, str]:
    """Each picture's partner: the next in one random cycle through all, so that none is its own.

    The order of `image_ids` does not matter.

    Raises:
        UsageError: fewer than two pictures.
    """
    ordered = sorted(set(image_ids))
    if len(ordered) < 2:
        raise UsageError(
            f"{counted(len(ordered), 'picture')} with nouns: a shuffled pairing takes two at least; score more pictures"
        )
    cycle = np.random.default_rng(seed).permutation(len(ordered))
    return {ordered[one]: ordered[next_one] for one, next_one in zip(cycle, np.roll(cycle, -1), strict=True)}


def summarize_sensitivity(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over pictures with 95 % intervals: method, metric, then value, control and difference, each with `_low`
    and `_high`, and n (pictures); and control_blank likewise, where a grey picture was scored. A picture's value is the
    mean over its nouns.
    """
    measures: tuple[str, ...] = ("value", "control", "difference")
    if "control_blank" in rows and rows["control_blank"].notna().any():
        measures += ("control_blank",)
    if rows.empty:
        ends = [f"{name}{end}" for name in measures for end in ("", "_low", "_high")]
        return pd.DataFrame(columns=["method", "metric", "n", *ends])
    rows = rows.assign(difference=rows["value"] - rows["control"])
    tables = []
    for name in measures:
        within = ANYWHERE if name == "difference" else SHARE
        table = interval_table(rows, ["method", "metric"], name, within=within).set_index(["method", "metric"])
        columns = {"mean": name, "low": f"{name}_low", "high": f"{name}_high"}
        tables.append(table.rename(columns=columns)[[*(["n"] if name == "value" else []), *columns.values()]])
    return pd.concat(tables, axis=1).reset_index().sort_values(["metric", "method"], ignore_index=True)


def _prepare(
    run: Run,
    run_path: Path,
    load: Callable[[], Model],
    metrics: Sequence[TextMetric | ImageMetric],
    methods: Sequence[str] | None,
    top: int,
    progress: ProgressCallback,
) -> _Asked:
    methods = checked_methods(run.settings.methods if methods is None else methods, run)
    top = checked_top(top, run)
    pictures: dict[str, _Nouns] = {}
    for batch in reopen.batches(_Folder(run_path)):
        pictures |= _read_nouns(shards.read_shard(run_path / batch), methods, top)
    other = pair_pictures(pictures, run.settings.seed)
    needed = {
        unit
        for picture in pictures.values()
        for units in (*picture.units.values(), *picture.blank.values())
        for unit in units
    }
    words = _read_words(run_path)
    if needed - words.keys():
        decode_missing(reopen.open_run(load(), run_path), needed, progress)
        words = _read_words(run_path)
    return _Asked(run_path, tuple(metrics), methods, top, pictures, other, words, added_references(run_path))


@dataclass(frozen=True)
class _Folder:
    path: Path


def _read_nouns(tables: Mapping[str, pa.Table], methods: Sequence[str], top: int) -> dict[str, _Nouns]:
    """The pictures of a scored shard that have nouns."""
    units = _read_units(tables["score"], names.ORIGINAL, methods, top)
    blank = _read_units(tables["score"], names.BLANK, methods, top)
    nouns: dict[str, list[str]] = {}
    for said in stored_concepts(tables, tuple(reopen.examples(tables))):
        nouns.setdefault(said.example.image_id, []).append(said.concept.noun)
    return {image_id: _Nouns(tuple(own), units[image_id], blank.get(image_id, {})) for image_id, own in nouns.items()}


def _read_units(
    scores: pa.Table, variant: str, methods: Sequence[str], top: int
) -> dict[str, dict[tuple[str, str], tuple[Neuron, ...]]]:
    """By picture the top units of each noun and method in one variant; of none where that was not scored."""
    is_top = pc.and_(pc.greater_equal(scores["rank"], 1), pc.less_equal(scores["rank"], top))
    is_asked = pc.is_in(scores["method"], pa.array(methods, pa.string()))
    kept = scores.filter(pc.and_(pc.and_(is_top, is_asked), pc.equal(scores["variant"], variant)))
    units: dict[str, dict[tuple[str, str], tuple[Neuron, ...]]] = {}
    for row in kept.select(["image_id", "noun", "method", "rank", "layer", "unit"]).sort_by("rank").to_pylist():
        ranked, key = units.setdefault(row["image_id"], {}), (row["noun"], row["method"])
        ranked[key] = (*ranked.get(key, ()), Neuron(row["layer"], row["unit"]))
        assert len(ranked[key]) == row["rank"], f"rank {row['rank']} comes after {len(ranked[key]) - 1} of {row}"
    return units


def _read_words(run_path: Path) -> dict[Neuron, str]:
    """The decoded units of a run, each one's tokens as one text."""
    words: dict[Neuron, str] = {}
    for name in sorted(shards.finished_shards(run_path)):
        if name.startswith(NEURONS_SHARD):
            for row in shards.read_shard(run_path / name)["neuron"].to_pylist():
                words[Neuron(row["layer"], row["unit"])] = " ".join(row["tokens"])
    return words


def _measure_pictures(asked: _Asked, tables: Tables, tell: Callable[[], None]) -> Tables:
    """The shard of some pictures: `sensitivity`, and `failure` where a picture does not open any more."""
    captions = _captions(tables)
    wants_images = any(isinstance(metric, ImageMetric) for metric in asked.metrics)
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    for example in reopen.examples(tables):
        if example.image_id in asked.pictures:
            image = None
            try:
                image = reopen.open_again(example) if wants_images else None
            except ImageError as error:
                failures.append(Failure.of(example.source, STAGE, error))
            rows += _measure_picture(asked, example, captions[example.image_id], image)
        tell()
    found = {"sensitivity": pa.Table.from_pylist(rows, schema=TABLES["sensitivity"])}
    return found | ({"failure": failure_table(failures)} if failures else {})


def _captions(tables: Mapping[str, pa.Table]) -> dict[str, str]:
    rows = tables["caption"].filter(pc.equal(tables["caption"]["variant"], names.ORIGINAL))
    return dict(zip(rows["image_id"].to_pylist(), rows["text"].to_pylist(), strict=True))


def _measure_picture(
    asked: _Asked, example: Example, caption: str, image: Image.Image | None
) -> Iterator[dict[str, Any]]:
    """The rows of one picture; without those of image metrics where it does not open."""
    own = asked.pictures[example.image_id]
    other = asked.pictures[asked.other[example.image_id]]
    partner = {noun: other.nouns[place % len(other.nouns)] for place, noun in enumerate(own.nouns)}
    references = asked.references.get(example.image_id, example.references)
    for name, nouns, rate in _ratings(asked.metrics, own.nouns, caption, references, image):
        units = {noun: _texts(asked, own.units, noun) for noun in nouns}
        control = {noun: _texts(asked, other.units, partner[noun]) for noun in nouns}
        blank = {noun: _texts(asked, own.blank, noun) for noun in nouns}
        compared = [*units.values(), *control.values(), *blank.values()]
        texts = list(dict.fromkeys(text for by_method in compared for some in by_method.values() for text in some))
        rating = dict(zip(texts, rate(texts), strict=True))
        for noun in nouns:
            for method in asked.methods:
                yield {
                    "image_id": example.image_id,
                    "noun": noun,
                    "method": method,
                    "metric": f"{name}:top{asked.top}",
                    "value": max(rating[text] for text in units[noun][method]),
                    "control": max(rating[text] for text in control[noun][method]),
                    "control_blank": max((rating[text] for text in blank[noun][method]), default=None),
                }


def _texts(asked: _Asked, units: Mapping[tuple[str, str], tuple[Neuron, ...]], noun: str) -> dict[str, list[str]]:
    """What a noun's units write, by method; nothing where it has none."""
    return {method: [asked.words[unit] for unit in units.get((noun, method), ())] for method in asked.methods}


def _ratings(
    metrics: Sequence[TextMetric | ImageMetric],
    nouns: Sequence[str],
    caption: str,
    references: Sequence[str],
    image: Image.Image | None,
) -> Iterator[tuple[str, Sequence[str], _Rate]]:
    """Each comparison of a picture: its name, the nouns whose units are compared, and what rates their texts."""
    for metric in metrics:
        if isinstance(metric, ImageMetric):
            if image is not None:
                yield f"{metric.name}:image", nouns, partial(_rate_image, metric, image)
            continue
        for noun in nouns:
            yield f"{metric.name}:noun", (noun,), partial(_rate_best, metric, (noun,))
        yield f"{metric.name}:caption", nouns, partial(_rate_best, metric, (caption,))
        if references:
            yield f"{metric.name}:reference", nouns, partial(_rate_best, metric, references)


def _rate_image(metric: ImageMetric, image: Image.Image, texts: Sequence[str]) -> list[float]:
    return metric.compare_images(texts, [image] * len(texts))


def _rate_best(metric: TextMetric, references: Sequence[str], texts: Sequence[str]) -> list[float]:
    """Each text's similarity to the reference that it is most alike."""
    pairs = [(text, reference) for text in texts for reference in references]
    found = metric.compare([text for text, _ in pairs], [reference for _, reference in pairs])
    return np.array(found).reshape(len(texts), len(references)).max(1).tolist()

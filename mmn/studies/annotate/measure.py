"""Decodes the units of a scored run and records where the top ones look, in a second pass over its pictures.

    shards of a run ─► the top units of every noun and ranking
      ─► their words                                    `neuron`  (`units.decoding`)
      ─► one pass over each picture's prompt            `look`, `grid`  (`receptive_fields.unit_maps`)
      ─► against the object, other objects, random units of the same layers    `field`  (`receptive_fields.field_rows`)
      ─► the same of the units that another picture of the noun ranks highest (`held_out`)

Each scored batch becomes one shard `annotation-<batch>-<hash of what was asked>`, written whole or not at all: the same
call again does only what is missing, and another `top` or choice of methods adds to it. Where two calls measure the
same picture and unit, or rank, the database keeps the first. Where the masks of a batch's pictures changed (a source
was added with `added_later.add_masks`, or its file changed), all that was annotated there is measured again: the table
`outline` numbers such revisions, and the database keeps the latest.

All units that the run stored are decoded, since its pages list them; of a model of more than `MANY_UNITS` units only
those that are annotated, since a long run stores nearly all of them.

A saved set of units (`set_looks`) goes the same way, in place of the rankings: for every noun, or the one that it was
saved for. A set is of no picture, so nothing of it is held out.

Left out: suppressors (ranks below 0), variants other than the original picture, random rankings unless asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool
from PIL import Image

from mmn import names
from mmn.core import Example, Failure, Neuron, Run
from mmn.counts import counted
from mmn.errors import ImageError, SourceError, UsageError
from mmn.images import open_image
from mmn.models.geometry import image_grid, serialise
from mmn.models.model import Model
from mmn.names import SAME_PICTURE
from mmn.reading.nouns import lemma_of
from mmn.runs import reopen, shards
from mmn.runs.added_later import MASKS, REFERENCES, mask_specs, open_run_masks, run_examples, run_synonyms
from mmn.runs.held_out import HeldOut, read_held_out
from mmn.runs.plan import Progress, ProgressCallback
from mmn.runs.reopen import ScoredRun
from mmn.scores.rows import Tables
from mmn.studies.tables import TABLES, failure_table
from mmn.units.decoding import decode_units
from mmn.units.heat_maps import mask_of_size
from mmn.units.masks import MaskSource, Outlines, first_of, source_of
from mmn.units.receptive_fields import FieldMaps, FieldRow, control_units, field_rows, unit_maps
from mmn.units.sets import UnitSet

MANY_UNITS: Final = 50_000  # a model with more: only annotated units are decoded
NEURONS_SHARD: Final = "neurons"
PREFIX: Final = "annotation"
STAGE: Final = "annotate"

Masks = Mapping[str, Bool[np.ndarray, "height width"]]


@dataclass(frozen=True)
class Ranking:
    """The top units of one noun of a picture by one method, rank 1 first; `found_on` is the other picture, if any."""

    noun: str
    method: str
    units: tuple[Neuron, ...]
    found_on: str | None = None


@dataclass(frozen=True)
class Annotated:
    """What a run's annotation shards hold."""

    n_neurons: int
    n_looks: int
    n_fields: int
    n_failed: int
    n_interpretable: int = 0  # units whose ten tokens are words, by raw rows, and so by centred ones
    n_cosine_interpretable: int = 0


@dataclass(frozen=True)
class Asked:
    """What was asked of which run: the `top` units by each of `methods`, or a set of units, which then is all."""

    scored: ScoredRun
    top: int
    methods: tuple[str, ...]
    masks: Sequence[MaskSource]
    elsewhere: HeldOut
    has_added_masks: bool
    revision: int = 0
    version: str = ""
    given: UnitSet | None = None

    @property
    def model(self) -> Model:
        return self.scored.model

    @property
    def run(self) -> Run:
        return self.scored.run

    @property
    def run_path(self) -> Path:
        return self.scored.path

    def settings(self) -> list[Any]:
        """The settings that a shard is named for."""
        asked: list[Any] = [self.top, sorted(self.methods), self.elsewhere.digest()]
        if self.given is not None:
            asked = [self.given.label, self.given.origin.get("noun", "")]
        return [*asked, self.revision, self.version] if self.revision else asked


def annotate(
    model: Model,
    run_path: Path,
    top: int = 10,
    methods: Sequence[str] | None = None,
    progress: ProgressCallback = lambda _progress: None,
) -> None:
    """Decodes the units of a run, and records where the top ones of each noun look, as shards of the run.

    A model whose image tokens have no place in the picture gets words only; pictures without object masks get maps
    without overlaps. Progress messages say so. A picture that cannot be opened again becomes a row of `failure`.

    Args:
        model: the one that the run was scored with.
        run_path: the run's folder.
        top: units of each noun and ranking; cut to what the run stored.
        methods: rankings of the run; None for all but the random ones.
        progress: is called in the stages `decode` and `annotate`, the latter in pictures.

    Raises:
        UsageError: another model than the run's, a method that the run does not have, `top` below 1.
        CacheError: no run there, a broken shard, or no space left; what was finished is kept.
    """
    scored = reopen.open_run(model, run_path)
    added = mask_specs(run_path)
    masks, without_masks = open_run_masks(added, scored.run, run_examples(run_path), run_synonyms(run_path))
    top, methods = checked_top(top, scored.run), checked_methods(methods, scored.run)
    read = lru_cache(partial(read_held_out, run_path, seed=scored.run.settings.seed))
    asked = Asked(scored, top, methods, masks, read(methods, top), bool(added))
    _decode_stored(asked, progress)
    no_grid = why_no_grid(scored)
    if no_grid:
        progress(Progress(STAGE, message=f"units were decoded; {no_grid}"))
        return
    if without_masks:
        progress(Progress(STAGE, message=without_masks))
    here = {batch: _of_batch(asked, batch, read) for batch in reopen.batches(scored)}
    if n_changed := sum(one.is_changed for one in here.values()):
        message = f"masks or synonyms changed: measuring {n_changed} of {len(here)} batches again"
        progress(Progress(STAGE, message=message))
    annotate_batches({batch: one.asked for batch, one in here.items()}, progress)


def annotate_batches(asked: Mapping[str, Asked], progress: ProgressCallback) -> None:
    """Writes the shards of scored batches that are not there yet; of each what was asked of it."""
    if not asked:
        return
    settings = {batch: one.settings() for batch, one in asked.items()}
    scored = next(iter(asked.values())).scored
    reopen.for_each_batch(
        scored, PREFIX, settings.__getitem__, lambda batch: _annotate_batch(asked[batch], batch), progress, STAGE
    )


def count(run_path: Path) -> Annotated:
    """Counts the rows of a run's annotation shards; a look that two calls took counts twice, a unit once."""
    counts = dict.fromkeys(("look", "field", "failure"), 0)
    units: dict[str, set[Neuron]] = {"": set(), "is_interpretable": set(), "is_cosine_interpretable": set()}
    for name in shards.finished_shards(run_path):
        if name.startswith((NEURONS_SHARD, PREFIX, MASKS, REFERENCES)):
            tables = shards.read_shard(run_path / name)
            counts = {table: n + (len(tables[table]) if table in tables else 0) for table, n in counts.items()}
            if "neuron" in tables:
                for flag in units:
                    rows = tables["neuron"]
                    units[flag] |= _units(rows.filter(pc.fill_null(rows[flag], False)) if flag else rows)
    n_neurons, *n_words = map(len, units.values())
    return Annotated(n_neurons, counts["look"], counts["field"], counts["failure"], *n_words)


@dataclass(frozen=True)
class Known:
    """What a batch's annotations hold of rankings, and which revision of its pictures' masks is now.

    `is_changed` says that masks changed since any revision was written; the first one is a change, too.
    """

    fields: Sequence[pa.Table]
    revision: int
    version: str
    is_changed: bool


def known_of_batch(asked: Asked, batch: str) -> Known:
    """What was annotated of a batch; revision 0 where a version of this program did that before there were any."""
    tables = shards.read_shard(asked.run_path / batch, ("image", "concept"))
    nouns = tables["concept"]["noun"].unique().to_pylist() if "concept" in tables else []
    version = _version(asked.masks, reopen.examples(tables), nouns)
    found = [
        shards.read_shard(asked.run_path / name, ("outline", "field"))
        for name in sorted(shards.finished_shards(asked.run_path))
        if name.startswith(f"{PREFIX}-{batch}-")
    ]
    outlined = [row for tables in found if "outline" in tables for row in tables["outline"].to_pylist()]
    latest, known = max(((row["revision"], row["version"]) for row in outlined), default=(0, ""))
    fields = [_of_rankings(tables["field"]) for tables in found if "field" in tables]
    fields = [field for field in fields if len(field)]
    is_of_unknown_masks = not outlined and any(field["iou"].null_count < len(field) for field in fields)
    if is_of_unknown_masks and not asked.has_added_masks:
        return Known(fields, 0, "", is_changed=False)
    is_changed = version != known
    return Known(fields, latest + is_changed, version, is_changed)


def _of_rankings(fields: pa.Table) -> pa.Table:
    return fields.filter(pc.invert(pc.starts_with(fields["method"].cast(pa.string()), names.SET)))


@dataclass(frozen=True)
class _OfBatch:
    """What is asked of one batch, and whether its masks changed since it was annotated."""

    asked: Asked
    is_changed: bool


def _of_batch(asked: Asked, batch: str, read: Callable[[tuple[str, ...], int], HeldOut]) -> _OfBatch:
    """What is asked of a batch, with the revision of its masks. Where they changed, that is all that was annotated
    before, too. `read` gives the units that other pictures of the nouns rank highest.
    """
    known = known_of_batch(asked, batch)
    if not known.revision:
        return _OfBatch(asked, is_changed=False)
    there = {method for field in known.fields for method in field["method"].unique().to_pylist()}
    wide = tuple(sorted(there | set(asked.methods)))
    top = max([asked.top, *(pc.max(field["rank"]).as_py() for field in known.fields)])
    asked = replace(asked, revision=known.revision, version=known.version)
    widened = replace(asked, top=top, methods=wide, elsewhere=read(wide, top))
    return _OfBatch(widened, is_changed=known.is_changed and bool(known.fields))


def _version(masks: Sequence[MaskSource], examples: Iterable[Example], nouns: Iterable[str]) -> str:
    """A hash of what the masks of some pictures are drawn from, and of the synonyms that these nouns have them by;
    empty where nothing is outlined in any.
    """
    known = [(one.image_id, source.version(one)) for one in examples if (source := source_of(one, masks)) is not None]
    known += first_of(masks).by_synonyms(nouns) if known else []
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16] if known else ""


def checked_top(top: int, run: Run) -> int:
    """`top`, cut to the ranks that the run stored.

    Raises:
        UsageError: below 1.
    """
    if top < 1:
        raise UsageError(f"--top {top}: give at least 1")
    return min(top, run.settings.top_k)


def checked_methods(methods: Sequence[str] | None, run: Run) -> tuple[str, ...]:
    """`methods`, each once; all of the run but the random ones for None.

    Raises:
        UsageError: one that the run does not have.
    """
    stored = list(run.settings.methods)
    if names.BLANK in run.settings.variants:
        stored += [method + names.MINUS_BLANK for method in stored if not method.startswith(names.RANDOM)]
    if methods is None:
        return tuple(method for method in stored if not method.startswith(names.RANDOM))
    for method in methods:
        if method not in stored:
            raise UsageError(f"run {run.run_id} has no {method!r} scores; its methods are: {', '.join(stored)}")
    return tuple(dict.fromkeys(methods))


def _decode_stored(asked: Asked, progress: ProgressCallback) -> None:
    """Decodes the run's units, or of a large model those that are annotated."""
    needed: set[Neuron] = set()
    for batch in reopen.batches(asked.scored):
        scores = shards.read_shard(asked.run_path / batch)["score"]
        needed |= _units(scores if asked.run.model.n_units <= MANY_UNITS else _top_scores(asked, scores))
    decode_missing(asked.scored, needed, progress)


def decode_missing(scored: ScoredRun, needed: Set[Neuron], progress: ProgressCallback) -> None:
    """Writes the words of those `needed` units that no earlier call has decoded, as a shard of the run. Units that an
    earlier version decoded by raw rows alone are decoded again.
    """
    finished = shards.finished_shards(scored.path)
    known: set[Neuron] = set()
    for name in finished:
        if name.startswith(NEURONS_SHARD):
            known |= _units(_by_cosines(shards.read_shard(scored.path / name)["neuron"]))
    units = sorted(needed - known)
    if not units:
        return
    progress(Progress("decode", message=f"{counted(len(units), 'unit')}"))
    digest = hashlib.sha256(" ".join(map(str, units)).encode()).hexdigest()
    name = NEURONS_SHARD if NEURONS_SHARD not in finished else f"{NEURONS_SHARD}-{digest[:8]}"
    shards.write_shard(scored.path, name, {"neuron": decode_units(scored.model, units)})


def _by_cosines(neurons: pa.Table) -> pa.Table:
    return neurons.filter(pc.is_valid(neurons["cosine_tokens"]))


def why_no_grid(scored: ScoredRun) -> str:
    """Why the model's image tokens have no place in a picture; empty where they have one. One picture is tried."""
    for batch in reopen.batches(scored):
        for example in reopen.examples(shards.read_shard(scored.path / batch)):
            try:
                image = open_image(Path(example.source))
            except ImageError:
                continue
            try:
                image_grid(scored.model, scored.model.encode([image], scored.run.prompt), image.size)
            except UsageError as error:
                return str(error)
            return ""
    return ""


def _annotate_batch(asked: Asked, batch: str) -> Tables:
    """The shard of one batch: `look`, `grid`, `field`, and `failure` where a picture could not be opened again."""
    tables = shards.read_shard(asked.run_path / batch)
    rankings = _asked_rankings(asked, tables)
    rows: dict[str, list[dict[str, Any]]] = {"look": [], "grid": [], "field": []}
    rows |= {"outline": []} if asked.revision else {}
    failures = []
    for example in reopen.examples(tables):
        if example.image_id not in rankings and asked.given is None:
            continue
        try:
            image = reopen.open_again(example)
            outlines = first_of(asked.masks).outlines(example)
            found = _annotate_picture(asked, example, image, rankings.get(example.image_id, []), outlines.masks)
        except (ImageError, SourceError, UsageError) as error:
            failures.append(Failure.of(example.source, STAGE, error))
            continue
        failures += [Failure(example.source, STAGE, SourceError.__name__, problem) for problem in outlines.problems]
        for table, new in found.items():
            rows[table] += new
        if asked.revision:
            rows["outline"].append(_outline(asked, example, outlines))
    written = {table: pa.Table.from_pylist(new, schema=TABLES[table]) for table, new in rows.items()}
    return written | ({"failure": failure_table(failures)} if failures else {})


def _outline(asked: Asked, example: Example, outlines: Outlines) -> dict[str, Any]:
    source = source_of(example, asked.masks)
    return {
        "image_id": example.image_id,
        "revision": asked.revision,
        "version": asked.version,
        "source": source.spec if source else None,
        "nouns": sorted(outlines.masks),
    }


def _annotate_picture(
    asked: Asked, example: Example, image: Image.Image, rankings: Sequence[Ranking], masks: Masks
) -> dict[str, list[dict[str, Any]]]:
    """The rows of one picture, from one pass over its prompt; overlaps in its pixels as it was opened."""
    masks = {lemma: mask_of_size(mask, image.size) for lemma, mask in masks.items()}
    here = rankings
    rankings = [*here, *_held_out(asked, example, here)]
    source = first_of(asked.masks)
    by_noun = {noun: source.masks_for(noun, masks) for noun in {ranking.noun for ranking in rankings}}
    outlined = [ranking for ranking in rankings if lemma_of(ranking.noun) in by_noun[ranking.noun]]
    controls = {ranking: _controls(asked, example, ranking) for ranking in outlined}
    always = () if asked.given is None else asked.given.units
    top = sorted({*always, *(one for ranking in here for one in ranking.units)})
    compared = {one for ranking, drawn in controls.items() for one in (*ranking.units, *drawn)}
    needed = sorted({*top, *compared})
    maps = unit_maps(asked.model, image, asked.run.prompt, needed)
    looks = [
        {"image_id": example.image_id, "layer": one.layer, "unit": one.unit, "activations": values.tolist()}
        for one, values in zip(top, maps.of(top), strict=True)
    ]
    overlaps = [
        row
        for ranking in rankings
        for row in _field(maps, example.image_id, ranking, controls.get(ranking, ()), by_noun[ranking.noun])
    ]
    placed = maps.grids.resized(image.size, (example.width, example.height))
    grid = {"image_id": example.image_id, "grid": serialise.to_json(placed)}
    return {"look": looks, "grid": [grid], "field": overlaps}


def _held_out(asked: Asked, example: Example, rankings: Sequence[Ranking]) -> list[Ranking]:
    """The units that another picture of each noun ranks highest for it; nothing for nouns of one picture."""
    found = [(one, asked.elsewhere.of(example.image_id, one.noun, one.method)) for one in rankings]
    return [Ranking(one.noun, one.method, other.units, other.image_id) for one, other in found if other is not None]


def _controls(asked: Asked, example: Example, ranking: Ranking) -> tuple[Neuron, ...]:
    found_on = () if ranking.found_on is None else (ranking.found_on,)
    key = (str(asked.run.settings.seed), example.image_id, ranking.noun, ranking.method, *found_on)
    return control_units(ranking.units, asked.model.anatomy.widths, key)


def _field(
    maps: FieldMaps, image_id: str, ranking: Ranking, controls: Sequence[Neuron], masks: Masks
) -> list[dict[str, Any]]:
    """The rows of one ranking, without overlaps where the noun has no mask or its object was cropped away."""
    rows: list[FieldRow] = []
    if controls:
        asked = (image_id, ranking.noun, ranking.method, ranking.units, controls, masks, ranking.found_on)
        rows = list(field_rows(maps, *asked))
    if rows or ranking.found_on is not None or ranking.method.startswith(names.SET):
        return [asdict(row) for row in rows]
    key = {"image_id": image_id, "noun": ranking.noun, "method": ranking.method, "selection": SAME_PICTURE}
    nothing = dict.fromkeys(("iou", "iou_other", "iou_random", "iou_best", "found_on"))
    return [
        key | {"rank": rank, "layer": one.layer, "unit": one.unit} | nothing
        for rank, one in enumerate(ranking.units, start=1)
    ]


def _top_scores(asked: Asked, scores: pa.Table) -> pa.Table:
    """The rows of `score` to annotate: of the original picture, by the chosen methods, rank 1 to `top`."""
    is_top = pc.and_(pc.greater_equal(scores["rank"], 1), pc.less_equal(scores["rank"], asked.top))
    is_asked = pc.is_in(scores["method"], pa.array(asked.methods, pa.string()))
    return scores.filter(pc.and_(pc.and_(is_top, is_asked), pc.equal(scores["variant"], names.ORIGINAL)))


def _asked_rankings(asked: Asked, tables: Tables) -> dict[str, list[Ranking]]:
    """What is to be compared with objects, by picture: the run's rankings, or the set as that of every noun."""
    if asked.given is None:
        return _rankings(_top_scores(asked, tables["score"]))
    concepts = tables["concept"]
    lemma = asked.given.origin.get("noun", "")
    rankings: dict[str, list[Ranking]] = {}
    for row in concepts.filter(pc.equal(concepts["variant"], names.ORIGINAL)).to_pylist():
        if lemma in ("", row["lemma"]):
            found = rankings.setdefault(row["image_id"], [])
            found.append(Ranking(row["noun"], asked.given.label, asked.given.units))
    return rankings


def _rankings(scores: pa.Table) -> dict[str, list[Ranking]]:
    """Rankings of rows of `score` by picture, each from rank 1 on."""
    units: dict[tuple[str, str, str], list[Neuron]] = {}
    for row in scores.sort_by("rank").to_pylist():
        ranked = units.setdefault((row["image_id"], row["noun"], row["method"]), [])
        ranked.append(Neuron(row["layer"], row["unit"]))
        assert len(ranked) == row["rank"], f"rank {row['rank']} comes after {len(ranked) - 1} of {row}"
    rankings: dict[str, list[Ranking]] = {}
    for (image_id, noun, method), ranked in sorted(units.items()):
        rankings.setdefault(image_id, []).append(Ranking(noun, method, tuple(ranked)))
    return rankings


def _units(rows: pa.Table) -> set[Neuron]:
    distinct = rows.group_by(["layer", "unit"]).aggregate([])
    return {Neuron(*unit) for unit in zip(distinct["layer"].to_pylist(), distinct["unit"].to_pylist(), strict=True)}

"""Masks of objects, references, and synonyms that are given to a run after it was scored, as shards of the run.

    source ─► which pictures of the run it names (`images.known`)
      references ─► `reference`: all captions of a picture, those of scoring and those added, and their nouns' lemmas
      masks      ─► remembered only; `annotate` draws them, and measures again where they changed
    words and the objects that they mean ─► `synonym`: the whole list as it was then; and `reference` of pictures whose
        references came with the run: other words say a noun now
      ─► `added_source`: what was added, in order

The shards of scoring stay as they are. The database takes a picture's latest `reference` for its references, whichever
shard it loads first. Of several mask sources the latest that outlines something in a picture has its masks; the source
of the run's pictures comes last. Of several lists of synonyms the latest holds; a run that none was given to has the
one that ships, which the first measurement that judges by it writes down (`pinned_synonyms`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from mmn.core import Example, Failure, Run
from mmn.counts import counted
from mmn.errors import ImageError, SourceError, UsageError
from mmn.images.known import KnownPictures
from mmn.images.references import references_of
from mmn.images.sources import absolute, absolute_spec
from mmn.reading.concepts import reference_lemmas
from mmn.reading.synonyms import NO_SYNONYMS, OFF, ONLY, Synonyms, read_synonyms, shipped_synonyms
from mmn.runs import shards
from mmn.studies.tables import ADDED, failure_table
from mmn.units.masks import MaskSource, first_of, open_masks

MASKS, REFERENCES, SYNONYMS = "masks", "references", "synonyms"
STAGE: Final = "annotate"
SHIPPED: Final = "the list that ships"


@dataclass(frozen=True)
class AddedSource:
    """What one source gave: of `n_images` pictures of the run, `n_changed` of them otherwise than before."""

    kind: str
    source: str
    n_images: int
    n_changed: int
    n_pictures: int

    def __str__(self) -> str:
        return (
            f"{self.kind} of {self.source}: {self.n_images} of {counted(self.n_pictures, 'picture')}, "
            f"{self.n_changed} changed"
        )


@dataclass(frozen=True)
class AddedSynonyms:
    """The list that a run's objects are now found by, and whether it is another one than before."""

    kind: str
    source: str
    n_synonyms: int
    n_objects: int
    is_changed: bool

    def __str__(self) -> str:
        told = (
            f"{counted(self.n_synonyms, 'word')} of {counted(self.n_objects, 'object')}" if self.n_objects else "none"
        )
        return f"{self.kind} of {self.source}: {told}{'' if self.is_changed else ', as before'}"


def add_references(run_path: Path, spec: str, work_path: Path) -> AddedSource:
    """Adds the captions that a source has of a run's pictures; again, it replaces what this source gave before.

    Args:
        run_path: the run's folder.
        spec: as a source of pictures is written; `coco:FILE` and `sbu:FILE` need no folder.
        work_path: where the pictures of a saved dataset are written.

    Raises:
        SourceError: it cannot be read, or has no caption of any picture of the run.
        CacheError: no space left.
    """
    spec = absolute_spec(spec)
    examples = run_examples(run_path)
    given = references_of(spec, KnownPictures(examples), work_path)
    if not given.references:
        raise SourceError(
            f"{spec} has no captions of any of the run's {counted(len(examples), 'picture')}: {given.why_none}"
        )
    earlier = _rows(run_path, "reference")
    own = {example.image_id: example.references for example in examples}
    rows = []
    for image_id, texts in given.references.items():
        mine = [row for row in earlier if row["image_id"] == image_id]
        if not mine or {row["source"]: row["added"] for row in mine}.get(spec) != list(texts):
            rows.append({"image_id": image_id} | _complete(own[image_id], mine, spec, texts))
    if rows:
        _write(run_path, REFERENCES, spec, len(given.references), {"reference": rows}, given.failures)
    return AddedSource(REFERENCES, spec, len(given.references), len(rows), len(examples))


def add_masks(run_path: Path, spec: str) -> AddedSource:
    """Remembers a source of masks for a run's pictures.

    Raises:
        UsageError, SourceError: it cannot be read, or outlines nothing in any picture of the run, or only in others of
            the same names, or names nothing that it outlines.
        CacheError: no space left.
    """
    spec = absolute_spec(spec)
    examples = run_examples(run_path)
    source = open_masks(spec, examples)
    if not source.known:
        reason = f" ({source.problems[0]})" if source.problems else ""
        raise SourceError(
            f"{spec} outlines nothing in any of the run's {counted(len(examples), 'picture')}{reason}: give "
            "these pictures' file"
        )
    _require_usable(source, examples)
    before = mask_specs(run_path)[:1]
    if before != (spec,):
        failures = [Failure(spec, STAGE, SourceError.__name__, problem) for problem in source.problems]
        _write(run_path, MASKS, spec, len(source.known), {}, failures)
    n_changed = 0 if before == (spec,) else len(source.known)
    return AddedSource(MASKS, spec, len(source.known), n_changed, len(examples))


def _require_usable(source: MaskSource, examples: Sequence[Example]) -> None:
    """Refuses masks of which none names an object of a picture of the run as it is: they would hide others that do."""
    known = [one for one in examples if one.image_id in source.known]
    if not any(map(source.shown, known)):
        problems = source.outlines(known[0]).problems or ("no outline of it can be drawn",)
        raise SourceError(
            f"{source.spec} tells of no object in {counted(len(known), 'picture')} of the run: {problems[0]}"
        )


def add_synonyms(run_path: Path, spec: str) -> AddedSynonyms:
    """Gives a run the list of which word means which object: `FILE`, `only:FILE` or `none`.

    Raises:
        UsageError: no such list (`read_synonyms`).
        CacheError: no space left.
    """
    synonyms = read_synonyms(spec)
    spec = spec if spec == OFF else f"{ONLY * spec.startswith(ONLY)}{absolute(spec.removeprefix(ONLY))}"
    is_changed = pinned_synonyms(run_path)[1].digest != synonyms.digest
    if is_changed:
        _write_synonyms(run_path, spec, synonyms, _scored_references(run_path, spec))
    return AddedSynonyms(SYNONYMS, spec, synonyms.n_synonyms, len(synonyms.objects), is_changed)


def run_synonyms(run_path: Path) -> Synonyms:
    """Which word means which object, for a run."""
    return _latest_synonyms(run_path)[1]


def pinned_synonyms(run_path: Path) -> tuple[int, Synonyms]:
    """The same, and the number under which the run holds it: the list that ships is written down, if it is that one.

    Raises:
        CacheError: no space left.
    """
    number, synonyms = _latest_synonyms(run_path)
    if number is not None:
        return number, synonyms
    return _write_synonyms(run_path, SHIPPED, synonyms), synonyms


def _latest_synonyms(run_path: Path) -> tuple[int | None, Synonyms]:
    numbers = [row["number"] for row in _rows(run_path, "added_source") if row["kind"] == SYNONYMS]
    if not numbers:
        return None, shipped_synonyms()
    rows = [row for row in _rows(run_path, "synonym") if row["number"] == max(numbers)]
    return max(numbers), Synonyms({row["word"]: row["object"] for row in rows}) if rows else NO_SYNONYMS


def _write_synonyms(run_path: Path, spec: str, synonyms: Synonyms, references: Sequence[Mapping[str, Any]] = ()) -> int:
    rows = [{"word": word, "object": name} for word, name in sorted(synonyms.object_of.items())]
    return _write(run_path, SYNONYMS, spec, 0, {"synonym": rows, "reference": references})


def _scored_references(run_path: Path, spec: str) -> list[dict[str, Any]]:
    """Rows of `reference` for the pictures that have references from scoring alone, to which `spec` adds none."""
    told = {row["image_id"] for row in _rows(run_path, "reference")}
    return [
        {"image_id": one.image_id} | _complete(one.references, (), spec, ())
        for one in run_examples(run_path)
        if one.references and one.image_id not in told
    ]


def mask_specs(run_path: Path) -> tuple[str, ...]:
    """The sources of masks that were added to a run, the latest first."""
    rows = sorted(_rows(run_path, "added_source"), key=lambda row: -row["number"])
    return tuple(dict.fromkeys(row["source"] for row in rows if row["kind"] == MASKS))


def open_run_masks(
    specs: Sequence[str], run: Run, examples: Sequence[Example], synonyms: Synonyms
) -> tuple[list[MaskSource], str]:
    """The sources of a run's masks, `specs` and last its pictures' own; and, where there are none, why.

    Raises:
        UsageError, SourceError: one of `specs` cannot be read any more.
    """
    sources = [replace(open_masks(spec, examples), synonyms=synonyms) for spec in specs]
    try:
        return [*sources, replace(open_masks(run.images, examples), synonyms=synonyms)], ""
    except (UsageError, SourceError) as error:
        return sources, "" if sources else f"without overlaps: {error}"


def masks_of_run(
    specs: Sequence[str], examples: Sequence[Example], synonyms: Synonyms = NO_SYNONYMS
) -> MaskSource | None:
    """The masks of those of `specs` that can be read, the first first; None where none can."""
    sources = []
    for spec in specs:
        try:
            sources.append(replace(open_masks(spec, examples), synonyms=synonyms))
        except (UsageError, SourceError, ImageError):
            continue
    return first_of(sources) if sources else None


def added_references(run_path: Path) -> dict[str, tuple[str, ...]]:
    """All captions of those pictures of a run to which references were added."""
    rows = sorted(_rows(run_path, "reference"), key=lambda row: row["number"])
    return {row["image_id"]: tuple(row["reference"]) for row in rows}


def run_examples(run_path: Path) -> tuple[Example, ...]:
    """All pictures of a run, as they were scored."""
    found: list[Example] = []
    for name in sorted(shards.finished_shards(run_path)):
        if "image" in shards.row_counts(run_path / name):
            found += map(example_of, shards.read_shard(run_path / name, ("image",))["image"].to_pylist())
    return tuple(found)


def example_of(row: Mapping[str, Any]) -> Example:
    """The picture of a row of `image`."""
    size = int(row["width"]), int(row["height"])
    return Example(row["image_id"], row["source"], tuple(row["sources"]), *size, tuple(row["reference"]))


def _complete(
    own: Sequence[str], earlier: Sequence[Mapping[str, Any]], spec: str, texts: Sequence[str]
) -> dict[str, Any]:
    """The columns of `reference` of one picture: what this source adds, and all that there is then."""
    by_source = {row["source"]: row["added"] for row in sorted(earlier, key=lambda row: row["number"])}
    by_source[spec] = list(texts)
    every = list(dict.fromkeys([*own, *(text for added in by_source.values() for text in added)]))
    return {"source": spec, "added": list(texts), "reference": every, "lemmas": sorted(reference_lemmas(tuple(every)))}


def _rows(run_path: Path, table: str) -> list[dict[str, Any]]:
    """The rows of a table that lies in shards of what was added."""
    found: list[dict[str, Any]] = []
    for name in sorted(shards.finished_shards(run_path)):
        if name.startswith((f"{MASKS}-", f"{REFERENCES}-", f"{SYNONYMS}-")):
            tables = shards.read_shard(run_path / name, (table,))
            found += tables[table].to_pylist() if table in tables else []
    return found


def _write(
    run_path: Path,
    kind: str,
    spec: str,
    n_images: int,
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
    failures: Sequence[Failure] = (),
) -> int:
    """Writes what was added, with its rows by table; returns its number."""
    number = 1 + max((row["number"] for row in _rows(run_path, "added_source")), default=0)
    added_at = datetime.now(UTC).replace(tzinfo=None)
    source = {"kind": kind, "number": number, "source": spec, "n_images": n_images, "added_at": added_at}
    tables = {"added_source": pa.Table.from_pylist([source], schema=ADDED["added_source"])}
    for table, some in rows.items():
        if some:
            tables[table] = pa.Table.from_pylist([{**row, "number": number} for row in some], schema=ADDED[table])
    if failures:
        tables["failure"] = failure_table(failures)
    shards.write_shard(run_path, f"{kind}-{number:03d}", tables)
    return int(number)

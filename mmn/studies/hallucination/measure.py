"""How sure are the image tokens of a scored run's pictures of every object, and where?

    masks, references ─► what is in each picture, and which objects there are (`truth`)         object_truth
    pictures ─► one pass over each one's prompt ─► confidence in every object (`confidence`)    confidence
      ─► of objects that are named or outlined: the map, and how it fits the mask (`maps`)      object_map

Once more after masks or references were added, the same call judges anew: the latest `revision` of a picture holds.
`lens` has the probability of a caption's own nouns alone, by their first token and behind the norm; so it is read here.

Left out: the grey variant, words that the user chose, and families whose picture has no positions of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from PIL import Image

from mmn.core import Example
from mmn.errors import SourceError, UsageError
from mmn.models.geometry import Grids, image_grid, serialise
from mmn.models.image_tokens import require_image_tokens
from mmn.models.model import Model
from mmn.runs import reopen, shards
from mmn.runs.plan import Progress, ProgressCallback
from mmn.runs.reopen import ScoredRun
from mmn.runs.teacher_forcing import stored_concepts
from mmn.scores.rows import Tables
from mmn.studies.annotate.measure import why_no_grid
from mmn.studies.hallucination.confidence import ENTERING, Confidence, confidences, object_tokens
from mmn.studies.hallucination.maps import map_fits
from mmn.studies.hallucination.tables import READOUTS
from mmn.studies.hallucination.truth import Truth, read_truth
from mmn.studies.hallucination.usual import N_OBJECTS
from mmn.studies.lens.stream import read_stream
from mmn.studies.tables import TABLES, failure_table
from mmn.units.decoding import Vocabulary
from mmn.units.heat_maps import Mask, mask_of_size

PREFIX: Final = "hallucination"
STAGE: Final = "hallucination"
NEW: Final = ("confidence", "object_truth", "object_map", "grid")


@dataclass(frozen=True)
class _Asked:
    """What was asked of which run, of one revision of what is known of its pictures."""

    scored: ScoredRun
    truth: Truth
    tokens: Mapping[str, tuple[int, ...]]
    has_grid: bool
    revision: int

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.of_model(self.scored.model)


def measure_confidence(
    model: Model,
    run_path: Path,
    limit: int | None = None,
    n_objects: int = N_OBJECTS,
    progress: ProgressCallback = lambda _progress: None,
) -> None:
    """Adds tables `confidence`, `object_truth` and `object_map` as shards of the run; resumes.

    Args:
        model: the one that the run was scored with.
        run_path: folder of the run; what was scored is only read.
        limit: pictures, rounded up to whole batches of the run; None for all.
        n_objects: that every picture is asked for, beside the nouns of its own caption.
        progress: told after each batch, and once of what this model cannot tell.

    Raises:
        UsageError: another model, or one without image tokens in its prompt.
        SourceError: masks that were added cannot be read any more.
    """
    scored = reopen.open_run(model, run_path)
    require_image_tokens(model)
    truth = read_truth(scored, n_objects)
    tokens = object_tokens(model, truth.objects)
    reason = why_no_grid(scored)
    if reason:
        progress(Progress(STAGE, message=f"without maps: {reason}"))
    key = {"objects": sorted(tokens), "known": truth.digest()}
    revisions = {batch: _revision(scored, batch, truth) for batch in reopen.batches(scored)}

    def answer(batch: str) -> Tables:
        return _answer(_Asked(scored, truth, tokens, not reason, revisions[batch]), batch)

    def asked(batch: str) -> object:
        return key | {"revision": revisions[batch]}  # masks may become what they were before

    reopen.for_each_batch(scored, PREFIX, asked, answer, progress, STAGE, limit)


def _revision(scored: ScoredRun, batch: str, truth: Truth) -> int:
    """The number of what is known now of a batch's pictures: one more than the latest, where that is something else."""
    found: dict[int, dict[str, str]] = {}
    for name in sorted(shards.finished_shards(scored.path)):
        if name.startswith(f"{PREFIX}-{batch}-"):
            for row in shards.read_shard(scored.path / name, ("object_truth",))["object_truth"].to_pylist():
                found.setdefault(row["revision"], {})[row["image_id"]] = row["version"]
    if not found:
        return 1
    latest = max(found)
    is_same = all(truth.versions[image_id] == version for image_id, version in found[latest].items())
    return latest if is_same else latest + 1


def _answer(asked: _Asked, batch: str) -> Tables:
    """The shard of one batch; `failure` where a picture could not be looked at again."""
    tables = shards.read_shard(asked.scored.path / batch)
    examples, images, failures = reopen.open_all(tables, STAGE)
    said = stored_concepts(tables, examples)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in NEW}
    for row, (example, image) in enumerate(zip(examples, images, strict=True)):
        own = [one.concept.lemma for one in said if one.row == row]
        for table, found in _of_picture(asked, example, image, list(dict.fromkeys(own))).items():
            rows[table] += found
    written = {name: pa.Table.from_pylist(found, schema=TABLES[name]) for name, found in rows.items()}
    return written | ({"failure": failure_table(failures)} if failures else {})


def _of_picture(
    asked: _Asked, example: Example, image: Image.Image, said: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """The rows of one picture, from one pass over its prompt."""
    model, key = asked.scored.model, {"image_id": example.image_id}
    inputs = model.encode([image], asked.scored.run.prompt)
    stream = read_stream(model, inputs)
    tokens = {**asked.tokens, **object_tokens(model, [one for one in said if one not in asked.tokens])}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in NEW}
    rows["object_truth"].append(key | _known(asked, example))
    if not tokens:
        return rows
    read = {one: confidences(model, asked.vocabulary, stream, tokens, one) for one in READOUTS}
    rows["confidence"] = [row for one, found in read.items() for row in _confidence_rows(key, one, found)]
    if asked.has_grid:
        grids = image_grid(model, inputs, image.size)
        placed = grids.resized(image.size, (example.width, example.height))
        rows["grid"].append(key | {"grid": serialise.to_json(placed)})
        masks = _said_masks(asked, said, _masks(asked, example, image.size))
        of_interest = {*said, *masks}
        for one, found in read.items():
            rows["object_map"] += _map_rows(asked, key | {"readout": one}, found, of_interest, masks, grids)
    return rows


def _known(asked: _Asked, example: Example) -> dict[str, Any]:
    known = asked.truth.known[example.image_id]
    told = {"outlined": known.outlined, "mentioned": known.mentioned, "outlinable": known.outlinable}
    lists = {name: None if names is None else sorted(names) for name, names in told.items()}
    version = {"version": asked.truth.versions[example.image_id], "synonyms": asked.truth.synonyms}
    return {"revision": asked.revision} | version | lists


def _confidence_rows(key: Mapping[str, Any], readout: str, found: Confidence) -> list[dict[str, Any]]:
    return [
        {**key, "object": name, "readout": readout, "confidence": min(value, 1.0), "token_position": token}
        | {"layer": None if layer == ENTERING else layer}
        for name, (value, layer, token) in zip(found.objects, found.best(), strict=True)
    ]


def _masks(asked: _Asked, example: Example, size: tuple[int, int]) -> dict[str, Mask]:
    """The masks of a picture at the size at which it was opened; none where they cannot be drawn."""
    if asked.truth.masks is None:
        return {}
    try:
        masks = asked.truth.masks.find(example)
    except (SourceError, UsageError):
        return {}
    return {name: mask_of_size(mask, size) for name, mask in masks.items()}


def _said_masks(asked: _Asked, said: Sequence[str], masks: Mapping[str, Mask]) -> dict[str, Mask]:
    """Each mask under the first noun of the caption that is called for it; under its own name, where none is."""
    if asked.truth.masks is None:
        return {}
    nouns = {asked.truth.masks.object_of(noun): noun for noun in reversed(said)}
    return {nouns.get(name, name): mask for name, mask in masks.items()}


def _map_rows(
    asked: _Asked,
    key: Mapping[str, Any],
    found: Confidence,
    of_interest: set[str],
    masks: Mapping[str, Mask],
    grids: Grids,
) -> list[dict[str, Any]]:
    """The rows of `object_map` of one readout: of objects that are named or outlined."""
    by_object = dict(zip(found.objects, found.by_token.numpy().astype(np.float32), strict=True))
    maps = {name: values for name, values in by_object.items() if name in of_interest}
    fits = map_fits(maps, masks, grids)
    return [
        {**key, "object": name, "revision": asked.revision, "scores": values.tolist(), **fits.get(name, {})}
        for name, values in maps.items()
    ]

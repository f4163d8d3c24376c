"""Decodes the units of a set, and records where each looks in every picture of a run, in a pass over its prompt.

    units of the set ─► their words                              `neuron`  (`units.decoding`)
      ─► one pass over each picture's prompt                     `look`, `grid`  (`receptive_fields.unit_maps`)

So the page of each unit has its maps on all pictures, whatever ranks it. Overlaps with objects are of rankings
(`measure`): a set is of no noun. Shards are named as theirs, and hold what they hold but for `field`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from mmn.core import Example, Failure
from mmn.errors import ImageError, UsageError
from mmn.models.geometry import serialise
from mmn.models.model import Model
from mmn.runs import reopen, shards
from mmn.runs.plan import Progress, ProgressCallback
from mmn.runs.reopen import ScoredRun
from mmn.scores.rows import Tables
from mmn.studies.annotate.measure import PREFIX, STAGE, decode_missing, why_no_grid
from mmn.studies.tables import TABLES, failure_table
from mmn.units.receptive_fields import unit_maps
from mmn.units.sets import UnitSet, fitting, require_awake


def annotate_set(
    model: Model, run_path: Path, given: UnitSet, progress: ProgressCallback = lambda _progress: None
) -> None:
    """Decodes and maps the units of a set, as shards of the run; what was done before is not done again.

    Args:
        model: the one that the run was scored with.
        run_path: the run's folder.
        given: the units.
        progress: is called in the stages `decode` and `annotate`, the latter in pictures.

    Raises:
        UsageError: another model than the run's, or a set that does not fit it.
        CacheError: no run there, a broken shard, or no space left; what was finished is kept.
    """
    scored = reopen.open_run(model, run_path)
    fitting(given, model.facts)
    require_awake(given, model.anatomy.widths, model.facts)
    decode_missing(scored, set(given.units), progress)
    if no_grid := why_no_grid(scored):
        progress(Progress(STAGE, message=f"units were decoded; {no_grid}"))
        return
    reopen.for_each_batch(
        scored, PREFIX, lambda _batch: [given.label], lambda batch: _batch_looks(scored, given, batch), progress, STAGE
    )


def _batch_looks(scored: ScoredRun, given: UnitSet, batch: str) -> Tables:
    rows: dict[str, list[dict[str, Any]]] = {"look": [], "grid": []}
    failures = []
    for example in reopen.examples(shards.read_shard(scored.path / batch, ("image",))):
        try:
            for table, row in _looks(scored, given, example):
                rows[table].append(row)
        except (ImageError, UsageError) as error:
            failures.append(Failure.of(example.source, STAGE, error))
    tables = {table: pa.Table.from_pylist(new, schema=TABLES[table]) for table, new in rows.items()}
    return tables | ({"failure": failure_table(failures)} if failures else {})


def _looks(scored: ScoredRun, given: UnitSet, example: Example) -> list[tuple[str, dict[str, Any]]]:
    """The rows of one picture, each with its table."""
    image = reopen.open_again(example)
    units = sorted(given.units)
    maps = unit_maps(scored.model, image, scored.run.prompt, units)
    placed = maps.grids.resized(image.size, (example.width, example.height))
    looks = [
        {"image_id": example.image_id, "layer": one.layer, "unit": one.unit, "activations": values.tolist()}
        for one, values in zip(units, maps.of(units), strict=True)
    ]
    grid = {"image_id": example.image_id, "grid": serialise.to_json(placed)}
    return [("grid", grid), *(("look", look) for look in looks)]

"""Decodes the units of a set, records where each looks in every picture of a run, and how that fits its nouns' objects.

    units of the set ─► their words                              `neuron`  (`units.decoding`)
      ─► one pass over each picture's prompt                     `look`, `grid`, `field`  (`measure`)

So the page of each unit has its maps on all pictures, whatever ranks it. Overlaps are those of a ranking (`measure`),
with the set in its place: of every noun of a picture, or where the set was saved for one, of that noun alone; beside
them the same controls. In tables the set stands where a score does, and `selection` says that it was given.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mmn.errors import UsageError
from mmn.models.model import Model
from mmn.runs import reopen
from mmn.runs.added_later import mask_specs, open_run_masks, run_examples, run_synonyms
from mmn.runs.held_out import HeldOut
from mmn.runs.plan import Progress, ProgressCallback
from mmn.studies.annotate.measure import STAGE, Asked, annotate_batches, decode_missing, known_of_batch, why_no_grid
from mmn.units.sets import UnitSet, fitting, require_awake


def annotate_set(
    model: Model, run_path: Path, given: UnitSet, progress: ProgressCallback = lambda _progress: None
) -> None:
    """Decodes, maps and compares the units of a set, as shards of the run; what was done before is not done again.

    Args:
        model: the one that the run was scored with.
        run_path: the run's folder.
        given: the units.
        progress: is called in the stages `decode` and `annotate`, the latter in pictures.

    Raises:
        UsageError: another model than the run's, a set that does not fit it, or masks that have changed since the
            run's rankings were compared with them.
        CacheError: no run there, a broken shard, or no space left; what was finished is kept.
    """
    scored = reopen.open_run(model, run_path)
    fitting(given, model.facts)
    require_awake(given, model.anatomy.widths, model.facts)
    decode_missing(scored, set(given.units), progress)
    if no_grid := why_no_grid(scored):
        progress(Progress(STAGE, message=f"units were decoded; {no_grid}"))
        return
    added = mask_specs(run_path)
    masks, without_masks = open_run_masks(added, scored.run, run_examples(run_path), run_synonyms(run_path))
    if without_masks:
        progress(Progress(STAGE, message=without_masks))
    asked = Asked(scored, len(given.units), (), masks, HeldOut({}, {}), bool(added), given=given)
    annotate_batches({batch: _of_batch(asked, batch) for batch in reopen.batches(scored)}, progress)


def _of_batch(asked: Asked, batch: str) -> Asked:
    """What is asked of a batch, with the revision of its masks.

    Raises:
        UsageError: they are other ones than those of its rankings, which the set's rows would put out of date.
    """
    known = known_of_batch(asked, batch)
    if known.is_changed and known.fields:
        run_id = asked.run.run_id
        raise UsageError(
            f"the objects' masks or synonyms have changed: mmn annotate {run_id} measures it again, then give the set"
        )
    return replace(asked, revision=known.revision, version=known.version)

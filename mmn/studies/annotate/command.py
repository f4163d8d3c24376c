"""`mmn annotate`: decodes a run's units, and adds where the top ones look."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmn.cli import DONE, SOME_FAILED, add_common, print_json
from mmn.cli.options import at_least, entries
from mmn.cli.running import RunToExtend, add_run_options, load_into_database, open_scored_run
from mmn.cli.synonyms import add_asked_synonyms, add_synonyms_option
from mmn.cli.unit_options import add_units_option, chosen_set, require_without, told
from mmn.counts import counted
from mmn.runs.plan import Progress
from mmn.units.sets import UnitSet

USUAL_TOP = 10


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser("annotate", help="decode a run's units and record where the top ones look")
    add_run_options(parser)
    add_units_option(
        parser,
        (
            "decode these units, map them on every picture and compare them with objects, instead of each noun's "
            "top units"
        ),
    )
    parser.add_argument("--top", type=at_least(1), metavar="N", help=f"top units of each noun; default {USUAL_TOP}")
    parser.add_argument("--methods", metavar="A,B", help="rankings of the run; default: all but the random ones")
    parser.add_argument("--masks", metavar="SRC", help="outlines of objects: coco:INSTANCES.json, a folder, …")
    parser.add_argument(
        "--references",
        metavar="SRC",
        help="people's captions: coco:CAPTIONS.json, a .csv, …; alone (or with --synonyms), only these",
    )
    add_synonyms_option(parser)
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    methods = entries(options.methods, "--methods") if options.methods is not None else None
    scored = open_scored_run(options)
    given = chosen_set(options.units, options.cache, scored.run)
    if given is not None:
        require_without(options, "top", "methods", "masks")
    from mmn.studies.annotate.measure import checked_methods, count

    checked_methods(methods, scored.run)  # before the model is loaded, which takes longer
    started = time.monotonic()
    added = _add(options, scored)
    is_told_later = options.references is not None or options.synonyms is not None
    is_only_told = is_told_later and not (options.masks or options.top or methods or given)
    if given is not None:
        annotate_set_stoppably(scored.load(), scored.path, given, scored.progress)
    elif not is_only_told:
        annotate_stoppably(scored.load(), scored.path, options.top or USUAL_TOP, methods, scored.progress)
    counts = count(scored.path)
    scored.progress(Progress("load"))
    note = load_into_database(options.cache)
    seconds = round(time.monotonic() - started, 3)
    result = {"run_id": scored.run.run_id} | asdict(counts) | {"seconds": seconds, "database": note}
    result |= {one.kind: asdict(one) for one in added} | ({} if given is None else {"units": told(given)})
    if not options.json:
        print(*added, sep="\n", end="\n" if added else "")
    _print_result(result, as_json=options.json)
    return SOME_FAILED if counts.n_failed else DONE


def _add(options: argparse.Namespace, scored: RunToExtend) -> list[Any]:
    """Adds what `--masks`, `--references` and `--synonyms` give; it is printed before annotating, which is slow."""
    from mmn.runs.added_later import add_masks, add_references

    added = []
    if options.references is not None:
        added.append(add_references(scored.path, options.references, options.cache / "images"))
    if options.masks is not None:
        added.append(add_masks(scored.path, options.masks))
    if added:
        scored.progress(Progress("annotate", message="; ".join(map(str, added))))
    synonyms = add_asked_synonyms(options, scored)
    return [*added, *([] if synonyms is None else [synonyms])]


def annotate_stoppably(model: Any, run_path: Path, top: int, methods: Sequence[str] | None, progress: Any) -> None:
    """`annotate`, which SIGINT and SIGTERM end; what was finished is kept."""
    from mmn.runs.engines.local import stoppable
    from mmn.studies.annotate.measure import annotate

    with stoppable():
        annotate(model, run_path, top, methods, progress)


def annotate_set_stoppably(model: Any, run_path: Path, given: UnitSet, progress: Any) -> None:
    """`annotate_set`, ended likewise."""
    from mmn.runs.engines.local import stoppable
    from mmn.studies.annotate.set_looks import annotate_set

    with stoppable():
        annotate_set(model, run_path, given, progress)


def _print_result(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    failed = f", {counted(result['n_failed'], 'failure')} (mmn show {result['run_id']} lists them)"
    print(
        f"{result['run_id']}: {counted(result['n_neurons'], 'unit')} decoded, {counted(result['n_looks'], 'map')}, "
        f"{result['n_fields']} pairs of unit and noun{failed if result['n_failed'] else ''}, {result['seconds']:.1f} s"
    )
    print(
        f"interpretable units: {result['n_interpretable']} by raw rows of W_U (and centred ones, which name the same "
        f"tokens), {result['n_cosine_interpretable']} by cosine-normalised ones"
    )
    if result["database"] != "loaded":
        print(f"the database is {result['database']}")

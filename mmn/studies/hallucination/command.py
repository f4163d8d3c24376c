"""`mmn hallucination`: how sure a run's image tokens are of objects; and nouns projected out of pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmn.cli import add_common
from mmn.cli.finishing import finish, is_loaded, tell_failed
from mmn.cli.options import at_least, number, require_given_with
from mmn.cli.running import add_run_options, open_scored_run
from mmn.cli.synonyms import add_asked_synonyms, add_synonyms_option
from mmn.counts import counted
from mmn.errors import UsageError
from mmn.studies.hallucination.usual import ALPHA, LIMIT, N_OBJECTS


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser(
        "hallucination", help="measure the confidence in objects that captions name; ProjectAway"
    )
    add_run_options(parser)
    parser.add_argument(
        "--limit", type=at_least(1), default=LIMIT, metavar="N", help=f"pictures, in whole batches; default {LIMIT}"
    )
    parser.add_argument(
        "--objects",
        type=at_least(1),
        default=N_OBJECTS,
        metavar="N",
        help=f"objects asked for in each picture; default {N_OBJECTS}",
    )
    add_synonyms_option(parser)
    parser.add_argument(
        "--project-away", action="store_true", help="then project each noun out of the image tokens and caption again"
    )
    parser.add_argument("--alpha", type=_alpha, metavar="A", help=f"strength of the projection; default {ALPHA:g}")
    parser.add_argument(
        "--text-layer", type=at_least(0), metavar="L", help="layer after which the noun's direction is read"
    )
    parser.add_argument("--image-layer", type=at_least(0), metavar="L", help="layer after which image tokens lose it")
    add_common(parser, __name__)


def _alpha(text: str) -> float:
    alpha = number(text, "--alpha")
    if alpha <= 0:
        raise UsageError(f"--alpha {alpha:g}: give a number above 0; 1 takes the whole projection away")
    return alpha


def run(options: argparse.Namespace) -> int:
    require_given_with(options, "--project-away", "alpha", "text_layer", "image_layer")
    scored = open_scored_run(options)
    scored.run.model.require_layers(one for one in (options.text_layer, options.image_layer) if one is not None)
    add_asked_synonyms(options, scored)
    edit = measure_stoppably(scored.load(), scored.path, options, scored.progress)
    return finish(options, scored, edit, lambda: summary(options.cache, scored.run.run_id), _print_result)


def measure_stoppably(model: Any, run_path: Path, options: argparse.Namespace, progress: Any) -> dict[str, Any]:
    """Measures, ended by SIGINT or SIGTERM as scoring is; what was finished is kept. Returns the edit's settings."""
    from dataclasses import asdict

    from mmn.runs.engines.local import stoppable
    from mmn.studies.hallucination.edits import Edit, project_objects_away
    from mmn.studies.hallucination.measure import measure_confidence

    alpha = ALPHA if options.alpha is None else options.alpha
    edit = Edit.of(model, alpha, options.text_layer, options.image_layer) if options.project_away else None
    with stoppable():
        measure_confidence(model, run_path, options.limit, options.objects, progress)
        if edit is not None:
            project_objects_away(model, run_path, edit, options.limit, options.objects, progress)
    return {} if edit is None else asdict(edit)


def summary(cache_path: Path, run_id: str) -> dict[str, Any]:
    """What was found so far, by name."""
    from mmn.store import Store
    from mmn.studies.hallucination.queries import HallucinationQueries
    from mmn.studies.hallucination.rows import edited_rows, told_detections

    with Store.open(cache_path) as store:
        failed = store.table(run_id, "failure")
        stages = ("hallucination", "project-away")
        confidence, edited = store.table(run_id, "confidence"), edited_rows(store, run_id)
        judge = store.ask(HallucinationQueries).judge(run_id)
        return {
            "synonyms": judge.told(),
            "n_judged": sum(map(judge.knows, judge.known)),
            "n_images": int(confidence["image_id"].nunique()),
            "n_objects": int(confidence["object"].nunique()),
            "n_failed": int(failed["stage"].isin(stages).sum()),
            "detections": told_detections(store, run_id),
            "edits": edited.to_dict("records"),
        }


def _print_result(result: dict[str, Any]) -> None:
    if not is_loaded(result):
        print(f"{result['run_id']}: read; the database is {result['database']}, and its Hallucination page shows it")
        return
    from mmn.statistics.interval_words import bracket, few_note, percent  # pandas is slow to import

    print(
        f"{result['run_id']}: {counted(result['n_images'], 'picture')}, "
        f"{counted(result['n_objects'], 'object')}; masks or references tell "
        f"of {counted(result['n_judged'], 'picture')}, {result['synonyms']}"
    )
    for one in result["detections"]:
        if one["why_none"]:
            print(f"{one['of']}: {one['why_none']}")
            continue
        ends = bracket(one["low"], one["high"], "z.3f")
        print(
            f"{one['of']}, {one['score']}: AUROC {one['auroc']:z.3f}{ends}, AP {one['average_precision']:z.3f} "
            f"(chance {one['chance']:z.3f}), {one['n_positive']} there, {one['n_negative']} not"
        )
    for one in result["edits"]:
        ends = bracket(one["low"], one["high"], ".1%")
        print(f"{one['quantity']}, {one['line']}: {percent(one['mean'], 1)}{ends}, {counted(one['n'], 'picture')}")
    n_images = [one["n_images"] for one in result["detections"] if not one["why_none"]]
    if note := few_note([*n_images, *(one["n"] for one in result["edits"])]):
        print(note)
    tell_failed(result)

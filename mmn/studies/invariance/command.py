"""`mmn invariance`: the top units that stay when a picture's tokens are shuffled, or that pictures of a noun share."""

from __future__ import annotations

import argparse
import time
from typing import Any

from mmn.cli import DONE, SOME_FAILED, add_common, print_json
from mmn.cli.finishing import failed_words
from mmn.cli.options import at_least, draws, entries, sizes
from mmn.cli.running import RunToExtend, add_run_options, load_into_database, open_scored_run
from mmn.counts import counted, counted_are
from mmn.errors import UsageError
from mmn.names import CROSS_IMAGE, REGION
from mmn.runs.plan import Progress
from mmn.studies.invariance.rankings import P2_K

N_IMAGES = 5  # P2's N


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser("invariance", help="which top units stay in a shuffled picture, or across pictures")
    add_run_options(parser)
    parser.add_argument(
        "--kind", required=True, choices=(REGION, CROSS_IMAGE), help="shuffled image tokens, or pictures of one noun"
    )
    parser.add_argument("--draws", type=draws(), default=5, metavar="N", help="permutations, or draws of pictures")
    parser.add_argument("--methods", metavar="A,B", help="rankings of the run; default: all, random ones as a control")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--ks", metavar="K,K", help="units compared; default: 100 and the usual shares")
    sizes.add_argument("--shares", metavar="S,S", help="the same as shares of all units, 0.014 for 1.4 %%")
    parser.add_argument(
        "--images-per-concept",
        type=at_least(2),
        metavar="N",
        help=f"cross-image: pictures in a draw; default {N_IMAGES}",
    )
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="region: only the first pictures, whole batches")
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    if options.kind == CROSS_IMAGE and options.limit is not None:
        raise UsageError("--limit is for --kind region: cross-image draws from all pictures of the run, and is quick")
    if options.kind == REGION and options.images_per_concept is not None:
        raise UsageError("--images-per-concept is for --kind cross-image: region compares a picture with itself")
    methods = entries(options.methods, "--methods") if options.methods is not None else None
    scored = open_scored_run(options)
    ks = sizes(options.ks, options.shares, scored.run.model.n_units)
    started = time.monotonic()
    found = {REGION: _region, CROSS_IMAGE: _cross_image}[options.kind](options, scored, methods, ks)
    scored.progress(Progress("load"))
    note = load_into_database(options.cache)
    seconds = round(time.monotonic() - started, 3)
    result = {"run_id": scored.run.run_id, "kind": options.kind} | found | {"seconds": seconds, "database": note}
    if options.json:
        print_json(result)
    else:
        _print_result(result)
    return SOME_FAILED if result["n_failed"] else DONE


def _region(
    options: argparse.Namespace, scored: RunToExtend, methods: tuple[str, ...] | None, ks: tuple[int, ...] | None
) -> dict[str, Any]:
    """Shuffled captions, ended by SIGINT or SIGTERM as scoring is: with what was finished kept."""
    from mmn.runs.engines.local import stoppable
    from mmn.runs.reopen import open_run
    from mmn.studies.invariance.rankings import checked_ks, checked_methods
    from mmn.studies.invariance.region import measure_region

    checked_ks(scored.run, ks)  # before the model is loaded, which takes longer
    checked_methods(scored.run, methods, scored.run.settings.methods)
    with stoppable():
        opened = open_run(scored.load(), scored.path)
        found = measure_region(opened, options.draws, methods, ks, scored.progress, options.limit)
    counts = {"n_concepts": found.n_concepts, "n_survived": found.n_survived, "n_failed": found.n_failed}
    return counts | {"n_draws": options.draws, "means": _means(found.rows)}


def _cross_image(
    options: argparse.Namespace, scored: RunToExtend, methods: tuple[str, ...] | None, ks: tuple[int, ...] | None
) -> dict[str, Any]:
    from mmn.studies.invariance.cross_image import measure_cross_image

    n_images = options.images_per_concept or N_IMAGES
    found = measure_cross_image(scored.path, n_images, options.draws, methods, ks, scored.progress)
    draws = found.rows.to_pandas().groupby("noun")["draw"].nunique()
    counts = {"n_concepts": found.n_concepts, "n_left_out": found.n_left_out, "n_failed": 0}
    counts |= {"n_single_draw": int((draws == 1).sum())}
    return counts | {"n_draws": options.draws, "n_images": n_images, "means": _means(found.rows)}


def _means(rows: Any) -> list[dict[str, Any]]:
    """The means by method and k; a missing one is null."""
    from mmn.studies.invariance.summary import summarize  # pandas is slow to import

    means = summarize(rows)
    return means.astype(object).where(means.notna(), None).to_dict("records")


def _print_result(result: dict[str, Any]) -> None:
    """Counts, and the means at P2's k or the next above it."""
    if result["kind"] == REGION:
        counts = (
            f"{result['n_survived']:g} of {counted_are(result['n_concepts'], 'noun')} said of the shuffled picture, too"
        )
    else:
        n_there = result["n_concepts"] - result["n_left_out"]
        many = counted(result["n_images"], "picture")
        counts = f"{n_there} of {counted_are(result['n_concepts'], 'noun')} in {many} or more"
        counts += f", {result['n_single_draw']} of them with a single draw"
    draws = f"{'' if result['kind'] == REGION else 'up to '}{counted(result['n_draws'], 'draw')}"
    failed = f", {failed_words(result)}"
    print(
        f"{result['run_id']}: {result['kind']}, {draws}, {counts}"
        f"{failed if result['n_failed'] else ''}, {result['seconds']:.1f} s"
    )
    ks = sorted({row["k"] for row in result["means"]})
    shown = next((k for k in ks if k >= P2_K), ks[-1] if ks else None)
    printed = [row for row in result["means"] if row["k"] == shown]
    for row in printed:
        print(f"k = {shown}, {_line(row)}")
    from mmn.statistics.interval_words import few_note  # pandas is slow to import

    if note := few_note(row["n_images"] for row in printed if "n_images" in row):
        print(note)
    if result["database"] != "loaded":
        print(f"the database is {result['database']}")


def _line(row: dict[str, Any]) -> str:
    """`contribution: 0.803 [0.79, 0.82] stay, another noun 0.131 [0.12, 0.14], chance 0.014, 200 pictures`."""
    from mmn.statistics.interval_words import bracket

    texts = {}
    for name in ("ratio", "floor_other_noun"):
        low, high = (row.get(f"{name}_{end}") for end in ("low", "high"))
        ends = "" if low is None or high is None else bracket(low, high, "z.3f")
        texts[name] = "" if row[name] is None else f"{row[name]:z.3f}{ends}"
    of = counted(row["n_images"], "picture") if "n_images" in row else counted(row["n_concepts"], "concept")
    floor = f", another noun {texts['floor_other_noun']}" if texts["floor_other_noun"] else ""
    return f"{row['method']}: {texts['ratio']} stay{floor}, chance {row['floor_random']:.2g}, {of}"

"""`mmn projector`: what mean image tokens tell around the projector, and how alike image and text are behind it."""

from __future__ import annotations

import argparse
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from mmn.cli import add_common
from mmn.cli.finishing import finish, is_loaded, tell_failed
from mmn.cli.options import at_least
from mmn.cli.running import add_run_options, open_scored_run


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser(
        "projector", help="probe before and after the projector; compare image and text states"
    )
    add_run_options(parser)
    parser.add_argument("--limit", type=at_least(1), default=200, metavar="N", help="pictures; default 200")
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    scored = open_scored_run(options)
    _measure(scored, options.limit)
    return finish(options, scored, {}, lambda: summary(options.cache, scored.run.run_id), _print_result)


def _measure(scored: Any, limit: int) -> None:
    """Ended by SIGINT or SIGTERM with what was finished kept."""
    from mmn.runs.engines.local import stoppable
    from mmn.runs.reopen import open_run
    from mmn.studies.projector.measure import measure_projector

    with stoppable():
        measure_projector(open_run(scored.load(), scored.path), limit, scored.progress)


def summary(cache_path: Path, run_id: str) -> dict[str, Any]:
    """What the figures show, by name; `entering` are the mean cosines of what enters the decoder."""
    from mmn.store import Store
    from mmn.studies.projector.queries import ProjectorQueries
    from mmn.studies.projector.rows import layer_means, probe_table

    with Store.open(cache_path) as store:
        failed = store.table(run_id, "failure")
        return {
            "n_failed": int((failed["stage"] == "projector").sum()),
            "probe": probe_table(store, run_id).to_dict("records"),
            "entering": store.ask(ProjectorQueries).entering(run_id).drop(columns="image_id").mean().to_dict(),
            **{name: rows.to_dict("records") for name, rows in layer_means(store, run_id).items()},
        }


def _print_result(result: dict[str, Any]) -> None:
    if not is_loaded(result):
        print(f"{result['run_id']}: read; the database is {result['database']}, and its page shows what was found")
        return
    from mmn.statistics.interval_words import bracket, few_note  # pandas is slow to import

    print(f"{result['run_id']}: {result['seconds']:.1f} s")
    for row in result["probe"]:
        told = f"{row['mean']:z.3f}{bracket(row['low'], row['high'], 'z.3f')}"
        print(f"macro F1 of {row['label']} ({row['classes']}), {row['stage']} the projector, {row['line']}: {told}")
    if not result["probe"]:
        print("no folder and no noun has pictures enough with it and without it for a probe")
    for name, head in (("modalities", "cosine"), ("modality-units", "units of both modalities, IoU")):
        for layer, rows in groupby(sorted(result[name], key=itemgetter("layer")), itemgetter("layer")):
            told = "; ".join(f"{row['line']} {row['mean']:z.2f}" for row in rows)
            print(f"{head}, layer {layer}: {told}")
    if note := few_note(row["n"] for row in [*result["probe"], *result["modalities"]]):
        print(note)
    tell_failed(result)

"""`mmn modules`: what attention and FFN of each layer would say of a run's nouns alone, added to the run."""

from __future__ import annotations

import argparse
from typing import Any

from mmn.cli import DONE, add_common, print_json
from mmn.cli.options import at_least
from mmn.cli.running import add_run_options, load_into_database, open_scored_run
from mmn.counts import counted
from mmn.runs.plan import Progress


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser("modules", help="read attention and FFN of each layer alone")
    add_run_options(parser)
    parser.add_argument(
        "--limit", type=at_least(1), default=50, metavar="N", help="pictures, rounded up to whole batches; default 50"
    )
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    scored = open_scored_run(options)
    from mmn.runs import reopen
    from mmn.runs.engines.local import stoppable
    from mmn.studies.modules.measure import measure_modules

    with stoppable():
        measure_modules(reopen.open_run(scored.load(), scored.path), scored.progress, options.limit)
    scored.progress(Progress("load"))
    note = load_into_database(options.cache)
    result: dict[str, Any] = {"run_id": scored.run.run_id, "database": note}
    if note == "loaded":
        result["sums"] = _sums(options, scored.run.run_id)
    if options.json:
        print_json(result)
    else:
        _print_result(result)
    return DONE


def _sums(options: argparse.Namespace, run_id: str) -> list[dict[str, Any]]:
    from mmn.store import Store
    from mmn.studies.modules.queries import ModuleQueries
    from mmn.studies.modules.rows import sums

    with Store.open(options.cache) as store:
        return sums(store.ask(ModuleQueries).modules(run_id)).to_dict("records")


def _print_result(result: dict[str, Any]) -> None:
    print(f"{result['run_id']}: modules were read alone; the database is {result['database']}")
    from mmn.statistics.interval_words import bracket, few_note

    for row in result.get("sums", ()):
        print(
            f"{row['what']}: {row['mean']:z.3f}{bracket(row['low'], row['high'], 'z.3f')}, n = "
            f"{counted(row['n'], 'picture')}"
        )
    if note := few_note(row["n"] for row in result.get("sums", ())):
        print(note)

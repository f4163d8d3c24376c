"""`mmn sensitivity`: do the top units write words that fit the picture? P1's table 1, with the shuffled pairing."""

from __future__ import annotations

import argparse
import time
from typing import Any

from mmn.cli import DONE, SOME_FAILED, add_common, print_json
from mmn.cli.finishing import failed_words
from mmn.cli.options import at_least, entries
from mmn.cli.running import add_run_options, load_into_database, open_scored_run, quieten
from mmn.metrics import FORMS, MODEL_FREE, find_metric
from mmn.runs.plan import Progress


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser("sensitivity", help="compare the words of top units with nouns, captions and pictures")
    add_run_options(parser)
    parser.add_argument("--metrics", default="lexical", metavar="A,B", help=f"default lexical; of {FORMS}")
    parser.add_argument("--methods", metavar="A,B", help="rankings of the run; default: all, the random ones too")
    parser.add_argument("--top", type=at_least(1), default=10, metavar="N", help="units of each noun; default 10")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="only the first N pictures")
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    methods = entries(options.methods, "--methods") if options.methods is not None else None
    named = entries(options.metrics, "--metrics", "lexical")
    scored = open_scored_run(options)
    if not set(named) <= set(MODEL_FREE):
        quieten()
    metrics = [find_metric(name, options.device) for name in named]
    from mmn.runs.engines.local import stoppable
    from mmn.studies.sensitivity.measure import measure_sensitivity, summarize_sensitivity

    started = time.monotonic()
    with stoppable():
        found = measure_sensitivity(
            scored.path, scored.load, metrics, methods, options.top, scored.progress, options.limit
        )
    scored.progress(Progress("load"))
    note = load_into_database(options.cache)
    result = {
        "run_id": scored.run.run_id,
        "table": summarize_sensitivity(found["sensitivity"].to_pandas()).to_dict("records"),
        "n_failed": len(found["failure"]),
        "seconds": round(time.monotonic() - started, 3),
        "database": note,
    }
    _print_result(result, as_json=options.json)
    return SOME_FAILED if result["n_failed"] else DONE


def _print_result(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    failed = f", {failed_words(result)}"
    print(f"{result['run_id']}: {result['seconds']:.1f} s{failed if result['n_failed'] else ''}")
    from mmn.statistics.interval_words import bracket, few_note  # pandas is slow to import

    told = ""
    for row in result["table"]:
        if row["metric"] != told:
            told = row["metric"]
            grey = ", the noun's over a grey picture" if "control_blank" in row else ""
            print(f"{told}: top units, another picture's, difference [95 %], pictures{grey}")
        ends = bracket(row["difference_low"], row["difference_high"], "z.3f")
        means = f"{row['value']:z8.3f}{row['control']:z9.3f}{row['difference']:z9.3f}"
        blank = f"{row['control_blank']:z9.3f}" if "control_blank" in row else ""
        print(f"  {row['method']:28}{means}{ends:17}{row['n']:7}{blank}")
    if note := few_note(row["n"] for row in result["table"]):
        print(note)
    if result["database"] != "loaded":
        print(f"the database is {result['database']}")

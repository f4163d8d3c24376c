"""`mmn circuits`: which units carry a noun from the picture to its logit, and what is left of it with them alone."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from mmn.cli import DONE, SOME_FAILED, add_common, print_json
from mmn.cli.files import explained, require_out
from mmn.cli.finishing import tell_failed
from mmn.cli.options import at_least, draws, entries
from mmn.cli.running import RunToExtend, add_run_options, load_into_database, open_scored_run
from mmn.counts import counted
from mmn.errors import UsageError
from mmn.runs.plan import Progress
from mmn.studies.circuits.tables import RAJARAM, RULE_NAMES


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser(
        "circuits", help="find the units that carry a noun from the picture to its logit; test them alone"
    )
    add_run_options(parser)
    parser.add_argument("--noun", metavar="A,B", help="nouns; default: the three in most pictures, or the picture's")
    parser.add_argument("--image", default="", metavar="ID", help="find it on this one picture, not on several")
    parser.add_argument(
        "--units-per-layer", type=at_least(1), default=5, metavar="K", help="kept units of each layer; default 5"
    )
    parser.add_argument(
        "--rule", default=RAJARAM, choices=RULE_NAMES, help=f"rule of the derivative; default {RAJARAM}"
    )
    parser.add_argument(
        "--pictures", type=at_least(1), default=8, metavar="N", help="pictures to find it on, at most half; default 8"
    )
    parser.add_argument(
        "--limit", type=at_least(1), default=16, metavar="N", help="other pictures to judge it by; default 16"
    )
    parser.add_argument("--draws", type=draws(), default=2, metavar="N", help="draws of random units; default 2")
    parser.add_argument(
        "--out", type=Path, metavar="F.json", help="write the graph of one noun for circuit-tracer's viewer"
    )
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    nouns = entries(options.noun, "--noun", "dog") if options.noun is not None else ()
    if options.out is not None and len(nouns) != 1:
        raise UsageError("--out writes the graph of one noun: name it, as --noun dog")
    require_out(options.out, ".json")
    scored = open_scored_run(options)
    started = time.monotonic()
    circuits = _measure(options, scored, nouns)
    found = _read(scored.path, circuits)
    if options.out is not None:
        from mmn.studies.circuits.tracer import write_graph

        of = {"run_id": scored.run.run_id, "model": scored.run.model.name, "n_layers": scored.run.model.n_layers}
        of |= {"d_experts": scored.run.model.d_experts}
        with explained(options.out):
            write_graph(options.out, **of, **found.graph(circuits[0]))
    scored.progress(Progress("load"))
    result = {"run_id": scored.run.run_id, "rule": options.rule, "circuits": found.told(scored.run.model)}
    result |= {"n_failed": found.n_failed, "out": None if options.out is None else str(options.out)}
    result |= {"database": load_into_database(options.cache), "seconds": round(time.monotonic() - started, 3)}
    if options.json:
        print_json(result)
    else:
        _print_result(result)
    return SOME_FAILED if found.n_failed else DONE


def _measure(options: argparse.Namespace, scored: RunToExtend, nouns: tuple[str, ...]) -> list[str]:
    """The names of the circuits; ended by SIGINT or SIGTERM as scoring is, with what was finished kept."""
    from mmn.runs.engines.local import stoppable
    from mmn.runs.reopen import open_run
    from mmn.studies.circuits.measure import CircuitPlan, measure_circuits

    plan = CircuitPlan(
        nouns,
        options.image,
        options.units_per_layer,
        options.rule,
        options.pictures,
        options.limit,
        options.draws,
    )
    with stoppable():
        return measure_circuits(open_run(scored.load(), scored.path), plan, scored.progress)


def _read(run_path: Path, circuits: list[str]) -> Any:
    from mmn.studies.circuits.summary import Found

    return Found.of(run_path, circuits)


def _print_result(result: dict[str, Any]) -> None:
    from mmn.statistics.interval_words import bracket, few_note, percent  # pandas is slow to import

    print(
        f"{result['run_id']}: {counted(len(result['circuits']), 'circuit')}, rule {result['rule']}, "
        f"{result['seconds']:.1f} s"
    )
    for one in result["circuits"]:
        where = f"on picture {one['image_id'][:12]}" if one["image_id"] else f"on {counted(one['n_found'], 'picture')}"
        held_out = "held out" if one["is_held_out"] else "the same, none is held out"
        print(
            f"{one['noun']} ({one['circuit']}): {counted(one['k'], 'unit')} a layer, "
            f"{percent(one['share'], 1)} of all, found "
            f"{where}, judged by {one['n']} ({held_out}); attention passes {percent(one['through_attention'])} of what "
            f"goes between them; {percent(one['carried'])} of the flow is in kept units"
        )
        for line in one["curves"]:
            ends = bracket(line["low"], line["high"], "z.3f")
            print(f"  {line['words']}: probability {line['mean']:z.3f}{ends}; half at {line['half_words']}")
    if note := few_note(one["n"] for one in result["circuits"]):
        print(note)
    if result["out"]:
        print(f"graph: {result['out']}")
    tell_failed(result)
    if result["database"] != "loaded":
        print(f"the database is {result['database']}")

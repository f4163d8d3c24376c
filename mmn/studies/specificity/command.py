"""`mmn specificity`: whether a noun's top units are its own, beside the picture's other nouns and other classes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

from mmn.cli import DONE, SOME_FAILED, add_common, print_json
from mmn.cli.finishing import failed_words
from mmn.cli.options import at_least, entries
from mmn.cli.running import RunToExtend, add_run_options, load_into_database, open_scored_run
from mmn.cli.unit_options import WHAT, chosen_set, count_or_set, require_without, told
from mmn.counts import counted, counted_are
from mmn.names import COMPLETE
from mmn.runs.plan import Progress
from mmn.runs.shards import read_run
from mmn.units.sets import UnitSet


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser("specificity", help="score each noun's top unit for the picture's other nouns")
    add_run_options(parser)
    parser.add_argument("--methods", metavar="A,B", help="rankings of the run; default: all but the random ones")
    parser.add_argument(
        "--held-out",
        type=at_least(1),
        default=5,
        metavar="N",
        help="held-out pictures of each class; a class has at least twice as many; default 5",
    )
    parser.add_argument(
        "--units",
        type=count_or_set,
        default=20,
        metavar="N|FILE|NAME",
        help=f"units of each class, default 20; or {WHAT}: its activation on every class, and nothing else",
    )
    parser.add_argument(
        "--limit", type=at_least(1), metavar="N", help="only the first pictures, in whole batches, and no classes"
    )
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    asked = entries(options.methods, "--methods") if options.methods is not None else None
    scored = open_scored_run(options)
    from mmn.studies.specificity.measure import checked_methods

    given = chosen_set(None if isinstance(options.units, int) else options.units, options.cache, scored.run)
    if given is not None:
        require_without(options, "methods", "limit")
    methods = checked_methods(scored.run, asked) if given is None else [given.label]
    started = time.monotonic()
    result = {"run_id": scored.run.run_id} | _measure(options, scored, methods, given)
    scored.progress(Progress("load"))
    result["database"] = load_into_database(options.cache)
    result["seconds"] = round(time.monotonic() - started, 3)
    if options.json:
        print_json(result)
    else:
        _print_result(result, methods)
    return SOME_FAILED if result["n_failed"] else DONE


def _measure(
    options: argparse.Namespace, scored: RunToExtend, methods: Sequence[str], given: UnitSet | None
) -> dict[str, Any]:
    """Both experiments, ended by SIGINT or SIGTERM as scoring is, and the means of what they found."""
    from mmn.runs.engines.local import stoppable
    from mmn.runs.reopen import open_run
    from mmn.studies.selectivity.measure import measure_selectivity, summarize_selectivity
    from mmn.studies.specificity.measure import count_of_one_picture, measure_specificity, summarize_specificity

    opened = open_run(scored.load(), scored.path)
    why_not = _why_no_classes(options, scored)
    classes = {}
    with stoppable():
        found = _no_pairs() if given else measure_specificity(opened, methods, scored.progress, options.limit)
        if not why_not:
            n_units = options.units if given is None else len(given.units)
            classes = measure_selectivity(opened, methods, options.held_out, n_units, scored.progress, given)
    pairs = found["specificity"].to_pandas()
    failed = {source for tables in (found, classes) if tables for source in tables["failure"]["source"].to_pylist()}
    result = {
        "n_pictures": pairs["image_id"].nunique(),
        "n_of_one_picture": count_of_one_picture(pairs),
        "n_failed": len(failed),
        "specificity": {} if given else _means(summarize_specificity(pairs)),
        "n_classes": 0,
        "selectivity": {},
        "why_no_classes": why_not,
        "units": None if given is None else told(given),
    }
    if classes and len(classes["selectivity"]):
        rows = classes["selectivity"].to_pandas()
        means = _means(summarize_selectivity(rows, classes["class_activation"].to_pandas()))
        result |= {"n_classes": rows["noun"].nunique(), "selectivity": means}
    elif not why_not:
        needed = 2 * options.held_out
        result["why_no_classes"] = (
            f"no noun is said in {counted(needed, 'picture')}, which --held-out {options.held_out} needs"
        )
    return result


def _no_pairs() -> dict[str, Any]:
    """Of a set of units there is no top unit of each noun to ask about."""
    from mmn.studies.tables import TABLES

    return {name: TABLES[name].empty_table() for name in ("specificity", "failure")}


def _why_no_classes(options: argparse.Namespace, scored: RunToExtend) -> str:
    """Why classes of pictures cannot be compared; empty where they can: a class is all pictures of a noun."""
    if options.limit is not None:
        return "--limit leaves them out: a class is all pictures of a noun"
    _, outcome = read_run(scored.path)
    if outcome is None or outcome.status != COMPLETE:
        return "the run is not complete: give its mmn score command again, then this one"
    return ""


def _means(told: Any) -> dict[str, dict[str, dict[str, float]]]:
    """By method and by what: the mean, the ends of its 95 % interval, and how many it is a mean of."""
    means: dict[str, dict[str, dict[str, float]]] = {}
    for row in told.to_dict("records"):
        values = {name: round(float(row[name]), 6) for name in ("mean", "low", "high")}
        means.setdefault(row["method"], {})[row["what"]] = values | {"n": int(row["n"])}
    return means


def _print_result(result: dict[str, Any], methods: Sequence[str]) -> None:
    """Two small tables, with the random control beside each value."""
    failed = f", {failed_words(result)}"
    pictures = counted(result["n_pictures"], "picture")
    pairs = "" if result["units"] else f"{pictures} with nouns, "  # a set is asked of classes alone
    print(
        f"{result['run_id']}: {pairs}{counted(result['n_classes'], 'class')}"
        f"{failed if result['n_failed'] else ''}, {result['seconds']:.1f} s"
    )
    if not result["units"]:
        _print_specificity(result, methods)
    _tell_few(result["specificity"])
    if result["selectivity"]:
        print(f"a class's units: their activation on {_held_out(result)}, as a share of the highest class")
        _print_table(result["selectivity"], methods, ("own", "other", "control own", "control other"))
        _tell_few(result["selectivity"])
    else:
        print(f"no classes of pictures: {result['why_no_classes']}")
    if result["database"] != "loaded":
        print(f"the database is {result['database']}")


def _held_out(result: dict[str, Any]) -> str:
    """`15 held-out pictures of their class and 14 of others`."""
    counts = [
        {name: one[name]["n"] for name in ("own", "other") if name in one} for one in result["selectivity"].values()
    ]
    own, other = (max((one.get(name, 0) for one in counts), default=0) for name in ("own", "other"))
    return f"{counted(own, 'held-out picture')} of their class and {other} of others"


def _tell_few(means: dict[str, dict[str, dict[str, float]]]) -> None:
    """Why numbers of a table have no bracket, where it is that they are of too few pictures."""
    from mmn.statistics.interval_words import few_note

    if note := few_note(one["n"] for by_what in means.values() for one in by_what.values()):
        print(note)


def _print_specificity(result: dict[str, Any], methods: Sequence[str]) -> None:
    print("a noun's top unit of another picture (held out) scored here: share of the noun's top score on this picture")
    _print_table(result["specificity"], methods, ("held-out own", "held-out other", "control own", "control other"))
    print("how often the unit's own noun is its highest of the picture's nouns; shuffled: the null of choosing it here")
    _print_table(
        result["specificity"], methods, ("held-out highest", "control highest", "same highest", "shuffled highest")
    )
    if result["n_of_one_picture"]:
        alone = counted_are(result["n_of_one_picture"], "noun")
        print(f"{alone} in one picture only: no other picture to find a unit on")


def _print_table(means: dict[str, dict[str, dict[str, float]]], methods: Sequence[str], columns: Sequence[str]) -> None:
    """One line for each method: means and 95 % intervals, where there are any; a dash where there is no value."""
    from mmn.statistics.interval_words import bracket  # pandas is slow to import

    print(" " * 20 + "".join(f"{column:>24}" for column in columns))
    for method in methods:
        told = [means.get(method, {}).get(column) for column in columns]
        cells = [f"{one['mean']:z.3f}{bracket(one['low'], one['high'], 'z.3f')}" if one else "-" for one in told]
        print(f"{method:<20}" + "".join(f"{cell:>24}" for cell in cells))

"""`mmn dictionaries`: the states and units that say a noun as sums of a few concepts, added to the run."""

from __future__ import annotations

import argparse
from typing import Any

from mmn.cli import add_common
from mmn.cli.finishing import finish, is_loaded
from mmn.cli.options import at_least, entries
from mmn.cli.running import add_run_options, open_scored_run, quieten
from mmn.errors import UsageError
from mmn.metrics import FORMS, MODEL_FREE, find_metric
from mmn.studies.dictionaries.usual import LEAST

KINDS = ("semi-nmf", "k-means", "pca", "simple")
OF = ("residual", "units")


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser("dictionaries", help="decompose the states and units that say a noun into concepts")
    add_run_options(parser)
    add_noun_options(parser, "the run")
    parser.add_argument("--kind", default="all", metavar="A,B", help=f"default all; of {', '.join(KINDS)}")
    parser.add_argument("--of", default="all", metavar="A,B", help="default all; of residual, units")
    parser.add_argument("--metrics", default="lexical", metavar="A,B", help=f"default lexical; of {FORMS}")
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    kinds, of = some_of(options.kind, "--kind", KINDS), some_of(options.of, "--of", OF)
    named = entries(options.metrics, "--metrics", "lexical")
    scored = open_scored_run(options)
    if not set(named) <= set(MODEL_FREE):
        quieten()
    from mmn.runs.engines.local import stoppable
    from mmn.studies.dictionaries.measure import Wanted, measure_dictionaries

    metrics = tuple(find_metric(name, options.device) for name in named)
    wanted = Wanted(kinds, of, options.layer, options.k, options.limit, metrics)
    with stoppable():
        nouns = measure_dictionaries(scored.path, scored.load, nouns_of(options), wanted, scored.progress)
    found = {"nouns": list(nouns)}
    return finish(options, scored, found, lambda: _summary(options.cache, scored.run.run_id, nouns), _print_result)


def add_noun_options(parser: argparse.ArgumentParser, whose: str) -> None:
    """What is read of which nouns; `whose` most frequent ones are taken where none are named."""
    parser.add_argument("--noun", metavar="A,B", help=f"lemmas; default: the three most frequent of {whose}")
    parser.add_argument(
        "--layer", type=at_least(0), metavar="N", help="states after this layer; default: after the final norm"
    )
    parser.add_argument("--k", type=at_least(2, 1000), default=20, metavar="K", help="concepts; default 20")
    told = f"pictures of a noun, {LEAST} or more; default 200"
    parser.add_argument("--limit", type=at_least(LEAST), default=200, metavar="N", help=told)


def nouns_of(options: argparse.Namespace) -> tuple[str, ...]:
    """The nouns that are named; none for the most frequent ones."""
    return entries(options.noun, "--noun", "dog") if options.noun is not None else ()


def some_of(text: str, option: str, there: tuple[str, ...]) -> tuple[str, ...]:
    """All of `there`, or those that are named.

    Raises:
        UsageError: one that there is not.
    """
    if text == "all":
        return there
    asked = entries(text, option, there[0])
    if wrong := [one for one in asked if one not in there]:
        raise UsageError(f"{option}: there is no {wrong[0]!r}; give all, or some of {', '.join(there)}")
    return asked


def _summary(cache_path: Any, run_id: str, nouns: tuple[str, ...]) -> dict[str, Any]:
    from mmn.store import Store
    from mmn.studies.dictionaries.queries import DictionaryQueries

    with Store.open(cache_path) as store:
        found = store.ask(DictionaryQueries)
        failed = store.table(run_id, "failure")
        return {
            "dictionaries": found.dictionaries(run_id, nouns).to_dict("records"),
            "tests": found.tests(run_id, nouns).to_dict("records"),
            "n_failed": int((failed["stage"] == "dictionaries").sum()),
        }


def _print_result(result: dict[str, Any]) -> None:
    print(f"{result['run_id']}: {', '.join(result['nouns'])}; {result['seconds']:.1f} s")
    if not is_loaded(result):
        print(f"the database is {result['database']}")
        return
    from mmn.statistics.interval_words import bracket, few_note, percent

    print("noun, dictionary: concepts, pictures (held out), variance explained (held out), overlap of words (random)")
    for row in result["dictionaries"]:
        print(
            f"  {row['noun']:12}{row['dictionary']:28}{row['k']:4}{row['n_fit']:6} ({row['n_test']})"
            f"{percent(row['explained']):>7} ({percent(row['explained_test'])})"
            f"{percent(row['word_overlap']):>7} ({percent(row['word_overlap_random'])})"
        )
    print("words of the strongest concept, of any, of random directions, strongest less random [95 %], pictures")
    for row in result["tests"]:
        ends = bracket(row["difference_low"], row["difference_high"], "z.3f")
        print(
            f"  {row['metric']:24}top {row['top']} {row['dictionary']:28}{row['value']:z7.3f}{row['any_concept']:z7.3f}"
            f"{row['random']:z7.3f}{row['difference']:z8.3f}{ends:17}{row['n']:5}"
        )
    if note := few_note(row["n"] for row in result["tests"]):
        print(note)

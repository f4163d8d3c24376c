"""`mmn patchscopes`: what states of a run's pictures say in a prompt of text alone, added to the run."""

from __future__ import annotations

import argparse
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from mmn.cli import add_common
from mmn.cli.finishing import finish, is_loaded, tell_failed
from mmn.cli.options import at_least, entries
from mmn.cli.running import add_run_options, open_scored_run
from mmn.errors import UsageError
from mmn.studies.patchscopes.tables import IDENTITY
from mmn.studies.registry import FIGURES
from mmn.view import View

HEADS: Final = {  # what is printed of each figure, and how its numbers are written
    "patchscopes": ("nouns that their state says", ".1%"),
    "patchscopes-surprisal": ("surprisal of the noun, nats", ".2f"),
    "patchscopes-image": ("image tokens that say a noun", ".1%"),
    "neighbours": ("image tokens near a word of their picture", ".1%"),
}


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser("patchscopes", help="read states in a text prompt")
    add_run_options(parser)
    parser.add_argument("--limit", type=at_least(1), default=50, metavar="N", help="pictures; default 50")
    parser.add_argument(
        "--prompt",
        default=IDENTITY,
        metavar="TEXT",
        help=f"the prompt; a state replaces its last token's; default {IDENTITY!r}",
    )
    parser.add_argument(
        "--into", default="same", metavar="same|L", help="layer after which a state is written; default: its own"
    )
    parser.add_argument("--layers", default="all", metavar="all|0,3,7", help="layers that states are from")
    parser.add_argument(
        "--image-tokens", default="16", metavar="N|all", help="image tokens of each picture; default 16 at random"
    )
    parser.add_argument("--next", type=at_least(1, 20), default=1, metavar="N", help="tokens to generate; default 1")
    parser.add_argument("--neighbours", action="store_true", help="also the nearest words in sentences (LatentLens)")
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    into = None if options.into == "same" else _number(options.into, "--into", "same, or a layer's number as 3")
    layers = None if options.layers == "all" else tuple(_number(one, "--layers") for one in _listed(options.layers))
    n_tokens = None if options.image_tokens == "all" else _number(options.image_tokens, "--image-tokens", "all, or 16")
    if n_tokens == 0:
        raise UsageError("--image-tokens 0: give all, or a number from 1")
    scored = open_scored_run(options)
    scored.run.model.require_layers([*(layers or ()), *([] if into is None else [into])])
    from mmn.studies.patchscopes.measure import Asked

    asked = Asked(options.prompt, into, layers, n_tokens, options.next)
    _measure(scored, asked, options.limit, with_neighbours=options.neighbours)

    def summed() -> dict[str, Any]:
        return summary(options.cache, scored.run.run_id, asked.setting, with_neighbours=options.neighbours)

    return finish(options, scored, {}, summed, _print_result)


def _measure(scored: Any, asked: Any, limit: int, *, with_neighbours: bool) -> None:
    """Both questions, ended by SIGINT or SIGTERM with what was finished kept."""
    from mmn.runs.engines.local import stoppable
    from mmn.runs.reopen import open_run
    from mmn.studies.patchscopes.measure import find_neighbours, read_in_prompt

    with stoppable():
        opened = open_run(scored.load(), scored.path)
        read_in_prompt(opened, asked, limit, scored.progress)
        if with_neighbours:
            find_neighbours(opened, asked, limit, scored.progress)


def summary(cache_path: Path, run_id: str, setting: str, *, with_neighbours: bool) -> dict[str, Any]:
    """The means behind the figures of one setting, by name."""
    from mmn.figures.figure import draw
    from mmn.store import Store

    names = ["patchscopes", "patchscopes-surprisal", "patchscopes-image"] + ["neighbours"] * with_neighbours
    view = View(run_id, setting=setting)
    with Store.open(cache_path) as store:
        failed = store.table(run_id, "failure")
        drawn = {name: draw(FIGURES[name], store, view.only(FIGURES[name].takes)) for name in names}
        return {
            "setting": drawn["patchscopes"].rows.words["setting"],
            "n_failed": int((failed["stage"] == "patchscopes").sum()),
            **{name: one.rows.data.to_dict("records") for name, one in drawn.items()},
        }


def _listed(text: str) -> tuple[str, ...]:
    return entries(text, "--layers", "0,3,7")


def _number(text: str, option: str, known: str = "all, or numbers as in 0,3,7") -> int:
    if not text.isdecimal():
        raise UsageError(f"{option}: {text!r} is not a number; give {known}")
    return int(text)


def _print_result(result: dict[str, Any]) -> None:
    if not is_loaded(result):
        print(f"{result['run_id']}: read; the database is {result['database']}, and its page shows what was found")
        return
    from mmn.statistics.interval_words import few_note  # pandas is slow to import

    print(f"{result['run_id']}: {result['setting']}; {result['seconds']:.1f} s")
    for name, (head, form) in HEADS.items():
        for layer, rows in groupby(sorted(result.get(name, []), key=itemgetter("layer")), itemgetter("layer")):
            print(f"{head}, after layer {layer}: {'; '.join(_told(row, form) for row in rows)}")
    if note := few_note(row["n"] for row in result["patchscopes"]):
        print(note)
    tell_failed(result)


def _told(row: dict[str, Any], form: str) -> str:
    from mmn.statistics.interval_words import bracket, percent

    mean = percent(row["mean"], 1) if form.endswith("%") else format(row["mean"], form)
    return f"{row['line']} {mean}{bracket(row['low'], row['high'], form)}"

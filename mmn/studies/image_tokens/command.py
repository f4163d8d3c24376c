"""`mmn image-tokens`: which image tokens the nouns of a run need, and through which attention, added to the run."""

from __future__ import annotations

import argparse
from typing import Any, Final

from mmn.cli import add_common
from mmn.cli.finishing import failed_words, finish, is_loaded
from mmn.cli.options import at_least, entries
from mmn.cli.running import RunToExtend, add_run_options, open_scored_run
from mmn.counts import counted
from mmn.errors import UsageError

KINDS: Final = ("replace", "knockout")
_PRINTED: Final = ("wrong", "wrong_control", "lost", "lost_control")


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser(
        "image-tokens", help="replace image tokens and block attention to them: what do nouns lose?"
    )
    add_run_options(parser)
    parser.add_argument(
        "--kinds", default=",".join(KINDS), metavar="A,B", help="replace, knockout or both; default both"
    )
    parser.add_argument(
        "--draws", type=at_least(1, 100), default=3, metavar="N", help="random sets for each replaced one; default 3"
    )
    parser.add_argument(
        "--steps", type=at_least(1, 1000), default=50, metavar="N", help="steps of integrated gradients; default 50"
    )
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="only the first N pictures; default all")
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    kinds = _kinds(options.kinds)
    scored = open_scored_run(options)
    n_failed = _measure(options, scored, kinds)
    found = {"n_failed": n_failed}
    return finish(options, scored, found, lambda: summary(options, scored.run.run_id, kinds), _print_result)


def _kinds(text: str) -> list[str]:
    asked = entries(text, "--kinds", "replace")
    if wrong := [kind for kind in asked if kind not in KINDS]:
        raise UsageError(f"--kinds {wrong[0]}: give replace, knockout, or both with a comma between them")
    return [kind for kind in KINDS if kind in asked]


def _measure(options: argparse.Namespace, scored: RunToExtend, kinds: list[str]) -> int:
    """Measures, ended by SIGINT or SIGTERM as scoring is: with what was finished kept. Returns how many failed."""
    from mmn.runs.engines.local import stoppable
    from mmn.runs.reopen import open_run
    from mmn.studies.image_tokens.measure import count_failed, measure_image_tokens

    opened = open_run(scored.load(), scored.path)
    with stoppable():
        names = measure_image_tokens(opened, kinds, options.draws, options.steps, scored.progress, options.limit)
    return count_failed(opened, names)


def summary(options: argparse.Namespace, run_id: str, kinds: list[str]) -> dict[str, Any]:
    """The means of what was measured, with their intervals."""
    from mmn.store import Store
    from mmn.studies.image_tokens.queries import ImageTokenQueries

    with Store.open(options.cache) as store:
        queries = store.ask(ImageTokenQueries)
        asks = {"replace": queries.token_sets, "knockout": queries.knockouts}
        counts = {name: int(n) for name, n in queries.counts(run_id).items() if name.startswith("n_")}
        tables = {"replace": "token_loss", "knockout": "knockout"}
        return counts | {
            kind: _plain(asks[kind](run_id).to_dict("records"))
            for kind in kinds
            if store.has_rows(run_id, tables[kind], "")
        }


def _plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as values of JSON: what is not there (NaN) is null."""
    return [{name: None if value != value else value for name, value in row.items()} for row in rows]


def _print_result(result: dict[str, Any]) -> None:
    failed = f", {failed_words(result)}"
    print(f"{result['run_id']}: {result['seconds']:.1f} s{failed if result['n_failed'] else ''}")
    if not is_loaded(result):
        print(f"the database is {result['database']}")
        return
    print(f"objects with an outline: of {result['n_outlined']} of {counted(result['n_nouns'], 'noun')}")
    if rows := result.get("replace"):
        print("replaced by the mean image token: nouns turned wrong, random tokens; probability lost, random tokens")
        for row in rows:
            cells = "".join(f"{_cell(row, name):>24}" for name in _PRINTED)
            print(f"  {row['token_set']:<12}{cells}{row['n_images']:6}")
    if rows := result.get("knockout"):
        print("attention blocked, by layers: probability lost (with random tokens)")
        _print_knockouts(rows)
    from mmn.statistics.interval_words import few_note

    if note := few_note(row["n_images"] for kind in KINDS for row in result.get(kind, ())):
        print(note)


def _print_knockouts(rows: list[dict[str, Any]]) -> None:
    """A line for each source and target, a column for each window."""
    windows = {row["layer_window"]: f"{row['layer_window']} {row['first_layer']}-{row['last_layer']}" for row in rows}
    print(" " * 24 + "".join(f"{words:>18}" for words in windows.values()))
    lines: dict[str, str] = {}
    for row in rows:
        beside = "" if row["lost_control"] is None else f" ({row['lost_control']:z.3f})"
        label = f"{row['source']} -> {row['target']}"
        lines[label] = lines.get(label, f"  {label:<22}") + f"{row['lost']:z.3f}{beside}".rjust(18)
    print("\n".join(lines.values()))


def _cell(row: dict[str, Any], name: str) -> str:
    """A mean and its interval, where there is one; a dash where there is no value."""
    if row[name] is None:
        return "-"
    from mmn.statistics.interval_words import bracket

    low, high = (row[f"{name}_{end}"] for end in ("low", "high"))
    return f"{row[name]:z.3f}{'' if low is None else bracket(low, high, 'z.3f')}"

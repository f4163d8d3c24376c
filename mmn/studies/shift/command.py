"""`mmn shift RUN OTHER`: what another run's model changed in the states and units that say a noun, added to RUN."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmn.cli import add_common
from mmn.cli.finishing import finish, is_loaded
from mmn.cli.options import number
from mmn.cli.running import add_run_options, find_run, load_quietly, open_scored_run
from mmn.counts import counted
from mmn.runs.plan import Progress
from mmn.specimen import RUN_PATHS
from mmn.studies.dictionaries.command import add_noun_options, nouns_of


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser(
        "shift", help="compare two runs: which concepts and units did an edit or a fine-tune change?"
    )
    add_run_options(parser)
    parser.add_argument("other", help="the run of the edited or fine-tuned model, of the same pictures")
    add_noun_options(parser, "RUN")
    parser.add_argument("--alpha", default="1", metavar="A", help="multiple of a delta that is added; default 1")
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    scored = open_scored_run(options)
    other_path, other = find_run([options.cache / "runs", *RUN_PATHS], options.other)
    from mmn.runs.engines.local import stoppable
    from mmn.studies.shift.measure import measure_shift
    from mmn.studies.shift.states import Wanted

    def load_other() -> Any:
        scored.progress(Progress("model", message=other.model.name))
        revision = other.model.revision or None
        return load_quietly(other.model.name, other.settings.dtype, options.device, revision, options.device_map)

    wanted = Wanted(options.layer, options.k, options.limit, number(options.alpha, "--alpha"))
    with stoppable():
        nouns = measure_shift(
            scored.path, scored.load, other, other_path, load_other, nouns_of(options), wanted, scored.progress
        )

    def summed() -> dict[str, Any]:
        return _summary(options.cache, scored.run.run_id, other.run_id, nouns)

    return finish(options, scored, {"other": other.run_id, "nouns": list(nouns)}, summed, _print_result)


def _summary(cache_path: Path, run_id: str, other: str, nouns: tuple[str, ...]) -> dict[str, Any]:
    from mmn.store import Store
    from mmn.studies.shift.queries import ShiftQueries

    with Store.open(cache_path) as store:
        found = store.ask(ShiftQueries)
        failed = store.table(run_id, "failure")
        return {
            "about": found.about(run_id, other, nouns).to_dict("records"),
            "gains": found.gains(run_id, other, nouns).to_dict("records"),
            "units": {noun: found.units(run_id, other, noun).to_dict("records") for noun in nouns},
            "n_failed": int((failed["stage"] == "shift").sum()),
        }


def _print_result(result: dict[str, Any]) -> None:
    print(f"{result['run_id']} and {result['other']}: {', '.join(result['nouns'])}; {result['seconds']:.1f} s")
    if not is_loaded(result):
        print(f"the database is {result['database']}")
        return
    from mmn.statistics.interval_words import bracket, few_note

    for row in result["about"]:
        print(
            f"{row['noun']}: {counted(row['n_images'], 'picture')}, {counted(row['k'], 'concept')}; "
            f"{counted(row['n_columns_changed'], 'column')} of "
            f"W_out changed, their median cosine is {row['column_cosine']:z.3f}"
        )
    print("cosine with the other model's state: before, gained by the concept's delta [95 %], another's, a random one")
    for row in result["gains"]:
        ends = bracket(row["gain_low"], row["gain_high"], "z.3f")
        gains = f"{row['gain']:+z.3f}{ends}{row['gain_other']:+z8.3f}{row['gain_random']:+z8.3f}"
        print(f"  {row['noun']:16}{row['cosine']:z.3f}  {gains}  {counted(row['n'], 'picture')}")
    for noun, units in result["units"].items():
        print(f"units of {noun} that write most else: how much, under random signs; its column's change; words")
        for row in units[:5]:
            words = f"{', '.join(row['tokens'])} → {', '.join(row['tokens_other'])}"
            name = f"L{row['layer']}.u{row['unit']}"
            print(f"  {name:10}{row['written']:z8.3f}{row['noise']:z8.3f}{row['column_change']:z8.3f}  {words}")
    if note := few_note(row["n"] for row in result["gains"]):
        print(note)

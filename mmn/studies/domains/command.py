"""`mmn domains`: which units belong to a domain or a modality; kept as sets, and switched off, on request."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from mmn import names
from mmn.cli import add_common
from mmn.cli.finishing import finish, is_loaded, tell_failed
from mmn.cli.options import at_least, draws, entries, require_given_with
from mmn.cli.running import RunToExtend, add_run_options, open_scored_run
from mmn.counts import counted
from mmn.errors import UsageError
from mmn.studies.domains.membership import Asked
from mmn.studies.domains.words import BYS, DAPE, NOUN, RULES, TAG
from mmn.units.sets import UnitSet

USUAL_RULES: Final = "dape,la-mu,tokens"
USUAL_DRAWS: Final = 3


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser(
        "domains", help="find units specific to a domain of pictures, to text or to image tokens"
    )
    add_run_options(parser)
    parser.add_argument("--by", default=NOUN, choices=BYS, help="what a domain is; default noun")
    parser.add_argument("--names", metavar="A,B", help="nouns or folders; default the most frequent")
    parser.add_argument("--domains", type=at_least(1, 100), default=6, metavar="N", help="number of domains; default 6")
    parser.add_argument("--most", type=at_least(2), default=50, metavar="N", help="pictures of a domain; default 50")
    parser.add_argument(
        "--attention",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also MINER's importance by attention weights, if the model returns them",
    )
    parser.add_argument(
        "--rules", default=USUAL_RULES, metavar="A,B", help=f"of {', '.join(RULES)}: for --save, --ablate"
    )
    parser.add_argument("--save", action="store_true", help="keep the groups as sets of units (mmn units)")
    parser.add_argument(
        "--ablate", action="store_true", help="save them, and zero each group beside random units of its layers"
    )
    parser.add_argument(
        "--ablate-limit", type=at_least(1), metavar="N", help="pictures to zero them in; the first N of the run"
    )
    parser.add_argument("--draws", type=draws(), metavar="N", help="draws of random units; default 3")
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    rules = _rules(options)
    require_given_with(options, "--ablate", "ablate_limit", "draws")
    scored = open_scored_run(options)
    sets = _measure(options, scored, rules)
    found = {"by": options.by, "sets": [one.name for one in sets], "groups": []}

    def summed() -> dict[str, Any]:
        return summary(options.cache, scored.run.run_id, options.by, rules)

    return finish(options, scored, found, summed, _print_result)


def _rules(options: argparse.Namespace) -> tuple[str, ...]:
    rules = entries(options.rules, "--rules", USUAL_RULES)
    if wrong := [rule for rule in rules if rule not in RULES]:
        raise UsageError(f"--rules {wrong[0]}: there are {', '.join(RULES)}")
    return rules


def _measure(options: argparse.Namespace, scored: RunToExtend, rules: Sequence[str]) -> list[UnitSet]:
    """Measures, and returns the sets that were saved."""
    from mmn.runs.engines.local import stoppable
    from mmn.runs.reopen import open_run
    from mmn.store.labels import read_label
    from mmn.studies.domains.measure import measure_domains
    from mmn.units.kept import save_set

    chosen = entries(options.names, "--names", "dog,cat") if options.names else ()
    asked = Asked(options.by, chosen, options.domains, options.most)
    tags = read_label(options.cache, scored.run.run_id).tags if options.by == TAG else ()
    model = scored.load()
    with stoppable():
        opened = open_run(model, scored.path)
        shard_names = measure_domains(opened, asked, tags, options.attention, scored.progress)
        if not (options.save or options.ablate):
            return []
        sets = list(_sets(options, scored, rules, shard_names))
        for one in sets:
            save_set(options.cache, one)
        if options.ablate:
            _ablate(options, scored, model, sets)
    return sets


def _sets(
    options: argparse.Namespace, scored: RunToExtend, rules: Sequence[str], shard_names: Sequence[str]
) -> Iterator[UnitSet]:
    from mmn.specimen import RUN_PATHS
    from mmn.studies.domains.groups import groups
    from mmn.studies.domains.sets import sets_of
    from mmn.studies.domains.stored import measured_in, runs_of

    facts, run_id = scored.run.model, scored.run.run_id
    others = runs_of([options.cache / "runs", *RUN_PATHS], facts.fingerprint, run_id) if options.by == TAG else ()
    measured = measured_in(scored.path, shard_names, others)
    for rule in rules:
        if rule == DAPE and len(measured.rates.domains) < 2 and len(rules) > 1:
            continue  # one domain: the other rules need none
        yield from sets_of(groups(rule, measured.rates), rule, options.by, facts, run_id).values()


def _ablate(options: argparse.Namespace, scored: RunToExtend, model: Any, sets: Sequence[UnitSet]) -> None:
    """Zeroes each set whole, beside random units of its layers, as `mmn degrade --units` does."""
    from mmn.studies.degradation.measure import InterventionPlan, degrade

    n_draws = options.draws or USUAL_DRAWS
    for one in sets:
        plan = InterventionPlan(
            names.ABLATE, (one.label,), (0, len(one.units)), (names.TOP, names.RANDOM), n_draws, given=one
        )
        degrade(model, scored.path, plan, None, scored.progress, options.ablate_limit)


def summary(cache_path: Path, run_id: str, by: str, rules: Sequence[str]) -> dict[str, Any]:
    """The groups of each rule, whether the other half of the pictures finds them, and what zeroing them left."""
    from mmn.store import Store
    from mmn.studies.domains.rows import Found, ablation_rows, group_table

    found: list[dict[str, Any]] = []
    with Store.open(cache_path) as store:
        run, failed = store.run(run_id), store.table(run_id, "failure")
        for rule in rules:
            what = Found(store, run, by, rule)
            try:
                table = group_table(what)
            except UsageError as error:
                found.append({"rule": rule, "refused": str(error)})
                continue
            left = ablation_rows(what)
            found += [
                {"rule": rule, **row, "left": left[left["group"] == row["group"]].to_dict("records")}
                for row in table.to_dict("records")
            ]
    return {"groups": found, "n_failed": int((failed["stage"] == "domains").sum())}


def _print_result(result: dict[str, Any]) -> None:
    if not is_loaded(result):
        print(f"{result['run_id']}: counted; the database is {result['database']}, and its Domains page shows the rest")
        return
    print(f"{result['run_id']}: by {result['by']}, {result['seconds']:.1f} s")
    for one in result["groups"]:
        print(_line(one))
    if result["sets"]:
        print(f"saved: {', '.join(result['sets'])} (mmn degrade RUN --kind ablate --units NAME)")
    tell_failed(result)


def _line(one: dict[str, Any]) -> str:
    """A group in a line, what zeroing it left behind it."""
    from mmn.statistics.interval_words import bracket, percent

    if "refused" in one:
        return f"{one['rule']}: {one['refused']}"
    again = f"{percent(one['again'])} found by both halves (chance {percent(one['chance'], 1)})"
    left = [
        f"{'zeroed' if row['selection'] == names.TOP else 'random'} in {row['pictures']}: "
        f"{percent(row['mean'], 1)} left{bracket(row['low'], row['high'], '.1%')}"
        for row in one["left"]
    ]
    said = again if one["again"] == one["again"] else "no half finds it alone"
    size = f"{counted(one['n_units'], 'unit')}, {counted(one['n_images'], 'picture')}"
    return "; ".join([f"{one['rule']} {one['group']}: {size}, {said}", *left])

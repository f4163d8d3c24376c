"""`mmn degrade`: what becomes of a run's nouns when their units are zeroed, multiplied or put under noise, with the
controls.

Another picture's units, text and the noun's share are measured after the rest, of all that was just asked for; with
`--controls only` of all that the run has of this kind, which is not measured again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

from mmn import names
from mmn.cli import DONE, SOME_FAILED, add_common, print_json
from mmn.cli.finishing import failed_words
from mmn.cli.options import at_least, draws, entries, numbers, sizes
from mmn.cli.running import RunToExtend, add_run_options, load_into_database, open_scored_run
from mmn.cli.unit_options import add_units_option, chosen_set, require_without, told
from mmn.core import Run
from mmn.counts import counted
from mmn.errors import UsageError
from mmn.runs.plan import Progress
from mmn.runs.presets import PRESETS, Noise
from mmn.units.sets import UnitSet

SHARES = "0,.001,.003,.01,.014,.03,.05,.1,.25"
CONTROLS = ("with", "without", "only")
FACTORS = "0.5,2,4"
SIGMA = "1"
TOP_AND_RANDOM = f"{names.TOP},{names.RANDOM}"
SELECTIONS = {
    names.ABLATE: ",".join(names.SELECTIONS),
    names.SCALE: TOP_AND_RANDOM,
    names.PERTURB: TOP_AND_RANDOM,
}


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser(
        "degrade", help="zero a noun's units, multiply them or add noise to them, and measure what is left"
    )
    add_run_options(parser)
    parser.add_argument(
        "--kind",
        required=True,
        choices=names.INTERVENTIONS,
        help="zero units, multiply them, or add noise to their weights",
    )
    add_units_option(parser, "use this set for every noun instead of its own units")
    parser.add_argument(
        "--preset",
        choices=[name for name, one in PRESETS.items() if one.noise],
        help="the paper's settings; for perturb",
    )
    parser.add_argument("--method", metavar="A,B", help="scores that select the units; default contribution-folded")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--ks", metavar="K,K", help="numbers of units")
    sizes.add_argument("--shares", metavar="S,S", help=f"numbers of units as shares of all units; default {SHARES}")
    parser.add_argument(
        "--selections",
        metavar="A,B",
        help=f"default {SELECTIONS[names.ABLATE]}; for perturb, scale or --units {TOP_AND_RANDOM}; random-picture: "
        "one draw for all nouns of a picture",
    )
    parser.add_argument(
        "--at",
        default=names.EVERYWHERE,
        metavar="A,B",
        help=f"where units are zeroed or multiplied: {', '.join(names.POSITIONS)}, or both; default {names.EVERYWHERE}",
    )
    parser.add_argument(
        "--controls",
        default=CONTROLS[0],
        choices=CONTROLS,
        help="controls by another picture's units and by the perplexity of text: with the rest (default), without, "
        "or only these for earlier measurements",
    )
    parser.add_argument(
        "--text-pictures",
        type=at_least(0),
        default=8,
        metavar="N",
        help="number of pictures whose changes are also tested on text; default 8, 0 for none",
    )
    parser.add_argument("--draws", type=draws(), metavar="N", help="draws of random units and of noise; default 3")
    parser.add_argument("--sigma", metavar="S,S", help=f"size of the noise; default {SIGMA}, as long as the column")
    parser.add_argument("--factor", metavar="F,F", help=f"what --kind scale multiplies units by; default {FACTORS}")
    parser.add_argument("--sigma-unit", choices=names.SIGMA_UNITS, help="what sigma 1 is; default column norm")
    parser.add_argument(
        "--captions",
        action=argparse.BooleanOptionalAction,
        default=True,
        help=(
            "caption again under each change; without it only the noun's probability is measured, which is much faster"
        ),
    )
    parser.add_argument("--metric", default="word-f1", metavar="M", help="similarity of captions; default word-f1")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="only the first N pictures of the run")
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    noise = _noise(options)
    _require_kind(options, names.PERTURB, "sigma", "sigma_unit")
    _require_kind(options, names.SCALE, "factor")
    positions = entries(options.at, "--at", names.EVERYWHERE)
    factors = _factors(options)
    scored = open_scored_run(options)
    given = _given(options, scored.run)
    from mmn.metrics import find_text_metric
    from mmn.studies.degradation.measure import check_plan
    from mmn.studies.degradation.summary import read_effects, summarise

    plans = [_plan(options, noise, scored.run, one, factors, given) for one in positions]
    for plan in plans:
        check_plan(plan)
    metric = find_text_metric(options.metric, options.device) if options.captions else None
    started = time.monotonic()
    found = read_effects(scored.path, _measure(options, scored, plans, metric))
    scored.progress(Progress("load"))
    note = load_into_database(options.cache)
    result = {
        "run_id": scored.run.run_id,
        "kind": options.kind,
        "metric": metric.name if metric else None,
        "n_rows": len(found.effect),
        "n_failed": found.n_failed,
        "units": None if given is None else told(given),
        "effects": summarise(found.effect, scored.run.model.n_units, found.further),
        "seconds": round(time.monotonic() - started, 3),
        "database": note,
    }
    _print_result(result, _own_lines(scored.run, options.kind, found), as_json=options.json)
    return SOME_FAILED if found.n_failed else DONE


def _measure(options: argparse.Namespace, scored: RunToExtend, plans: Sequence[Any], metric: Any) -> list[str]:
    """The shards with what was asked for and its controls."""
    from mmn.runs.engines.local import stoppable
    from mmn.studies.degradation.controls import measure_controls, measured_before
    from mmn.studies.degradation.measure import degrade

    model = scored.load()
    with stoppable():
        if options.controls == "only":
            done = measured_before(scored.path, options.kind)
            if not done:
                raise UsageError(f"run {scored.run.run_id} has no measurements of kind {options.kind} to control")
        else:
            done = [
                name
                for plan in plans
                for name in degrade(model, scored.path, plan, metric, scored.progress, options.limit)
            ]
        if options.controls == "without":
            return done
        return done + measure_controls(model, scored.path, done, metric, scored.progress, options.text_pictures)


def _given(options: argparse.Namespace, run: Run) -> UnitSet | None:
    """The set of `--units`, which leaves no choice of scores."""
    if options.units is not None:
        require_without(options, "method", "preset")
    return chosen_set(options.units, options.cache, run)


def _factors(options: argparse.Namespace) -> tuple[float, ...]:
    if options.kind != names.SCALE:
        return ()
    return tuple(numbers(FACTORS if options.factor is None else options.factor, "--factor", FACTORS))


def _require_kind(options: argparse.Namespace, kind: str, *names: str) -> None:
    """Refuses options of another kind of change, which would look as if they held."""
    for name in names:
        given = getattr(options, name)
        if given is not None and options.kind != kind:
            raise UsageError(f"--{name.replace('_', '-')} {given} is for --kind {kind}")


def _plan(
    options: argparse.Namespace,
    noise: Noise | None,
    run: Run,
    positions: str,
    factors: tuple[float, ...],
    given: UnitSet | None,
) -> Any:
    from mmn.studies.degradation.measure import InterventionPlan

    has_noise = options.kind == names.PERTURB
    return InterventionPlan(
        kind=options.kind,
        methods=_methods(options, noise, run) if given is None else (given.label,),
        ks=_from_zero(options, run.model.n_units) if given is None else _of_set(options, len(given.units)),
        selections=entries(
            options.selections or _usual_selections(options, noise), "--selections", SELECTIONS[names.ABLATE]
        ),
        n_draws=options.draws or (noise.n_draws if noise else 3),
        sigmas=tuple(numbers(SIGMA if options.sigma is None else options.sigma, "--sigma")) if has_noise else (),
        sigma_unit=_sigma_unit(options, noise) if has_noise else None,
        positions=positions,
        factors=factors,
        given=given,
    )


def _usual_selections(options: argparse.Namespace, noise: Noise | None) -> str:
    if options.units is not None:
        return TOP_AND_RANDOM
    return ",".join(noise.selections) if noise else SELECTIONS[options.kind]


def _noise(options: argparse.Namespace) -> Noise | None:
    """What a preset says of noise; explicit options win over it."""
    if options.preset is None:
        return None
    if options.kind != names.PERTURB:
        raise UsageError(f"--preset {options.preset} is for --kind {names.PERTURB}: that paper put noise on units")
    return PRESETS[options.preset].noise


def _methods(options: argparse.Namespace, noise: Noise | None, run: Run) -> tuple[str, ...]:
    if options.method is not None:
        return entries(options.method, "--method")
    return noise.methods if noise else (_usual_method(run),)


def _sigma_unit(options: argparse.Namespace, noise: Noise | None) -> str:
    return options.sigma_unit or (noise.sigma_unit if noise else names.COLUMN_NORM)


def _from_zero(options: argparse.Namespace, n_units: int) -> tuple[int, ...]:
    """Numbers of units; the untouched model is always among them."""
    usual = SHARES if options.ks is None and options.shares is None else options.shares
    asked = sizes(options.ks, usual, n_units, least=0)
    assert asked is not None, options
    return tuple(sorted({0, *asked}))


def _of_set(options: argparse.Namespace, n_units: int) -> tuple[int, ...]:
    """Numbers of a set's units: an eighth, a quarter, half and all of them unless others are asked for."""
    asked = sizes(options.ks, options.shares, n_units, least=0, whose="the set's units")
    return tuple(sorted({0, *(asked or (max(1, round(n_units / part)) for part in (8, 4, 2, 1)))}))


def _usual_method(run: Run) -> str:
    stored = run.settings.methods
    return names.default_method(stored)


def _print_result(result: dict[str, Any], own: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    failed = f", {failed_words(result)}"
    print(
        f"{result['run_id']}: {result['kind']}, {counted(result['n_rows'], 'measurement')}"
        f"{failed if result['n_failed'] else ''}, {result['seconds']:.1f} s"
    )
    from mmn.statistics.interval_words import few_note  # here and below: pandas is slow to import

    for one in result["effects"]:
        print(_line(one))
    for sentence in own:
        print(sentence)
    if note := few_note(one["n_images"] for one in result["effects"]):
        print(note)
    if result["database"] != "loaded":
        print(f"the database is {result['database']}")


def _own_lines(run: Run, kind: str, effects: Any) -> list[str]:
    """Whether each drop is the noun's own, by score and place."""
    from mmn.studies.degradation.own import controls_command, describe_own, own_parts
    from mmn.studies.degradation.summary import picture_means

    if effects.effect.empty:
        return []
    means = picture_means(effects.effect, effects.further)
    command = f"mmn {controls_command(run.run_id, kind)}"
    n_units = run.model.n_units
    return [f"{one.method}: {describe_own(one, n_units, command)}" for one in own_parts(means, n_units)]


def _line(one: dict[str, Any]) -> str:
    """What happened at the largest k, in a line; brackets are 95 % intervals by picture."""
    from mmn.statistics.interval_words import bracket, percent

    where = "" if one["positions"] == names.EVERYWHERE else f", at {one['positions'].replace('-', ' ')}"
    noise = "" if one["sigma"] is None else f", sigma {one['sigma']:g} of the {one['sigma_unit']}"
    noise += "" if one["factor"] is None else f", times {one['factor']:g}"
    half = "not halved" if one["k_half"] is None else f"halved by {counted(one['k_half'], 'unit')}"
    prob = f"{one['prob']:z.3f}{bracket(one['prob_low'], one['prob_high'], 'z.3f')}"
    change = f"{percent(-one['drop'])}{bracket(-one['drop_high'], -one['drop_low'], '.0%')}"
    lost = ""
    if one["lost"] is not None:
        ends = bracket(one["lost_low"], one["lost_high"], ".0%")
        lost = f", {percent(one['lost'])}{ends} of captions lose the noun"
    draws = f", mean over {counted(one['n_draws'], 'draw')}" if one["n_draws"] > 1 else ""
    line = f"{one['method']}, {one['selection']}{where}{noise}"
    return (
        f"{line}: probability {one['prob_baseline']:z.3f} -> {prob}, {change}, "
        f"at {counted(one['k'], 'unit')} ({percent(one['share'], 1)}), {half}{lost}; "
        f"{counted(one['n_concepts'], 'noun')} of {counted(one['n_images'], 'picture')}{draws}"
    )

"""What becomes of a concept when its units are zeroed (P1, figure 6), multiplied (OURS) or put under noise (P2)?

    a scored run ─► every unit's score again (`reread`) ─► the units of each selection (`selections`)
      ─► each (units, k, σ or factor, draw) is a row of one batch: the picture and its own caption, the units changed
      ─► logit and probability of t(c) at p(c); on request the caption that the changed model writes    `effect`
      ─► and that probability's share among those of all nouns                                      `noun_share`

The caption's own tokens are given (teacher forcing), so a probability is that of the same word after the same words.
The untouched model (k = 0) is measured like the rest, once for each selection (and σ), as draw 0.

`ablate` zeroes units at every position, prompt and picture included, or at the picture's tokens alone; its controls
are random units of the same layers. The first units of another picture's noun, and text, are in `controls`.
`scale` multiplies units by a factor instead, at the same places and beside the same controls: 0 is zeroing, 1 nothing.
`perturb` adds noise to their columns of W_out; its controls are random units of all layers, and every selection is
drawn several times, since the noise is. P2's own code draws the random units once for each picture, whatever its nouns
(`random-picture`), and sizes the noise by the weight: `presets.PRESETS["p2"].noise`.

Left out: variants other than the original picture, words that the user chose; a k beyond what a ranking has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from PIL import Image

from mmn import names
from mmn.core import Example
from mmn.counts import counted
from mmn.errors import UsageError
from mmn.metrics import TextMetric
from mmn.models.model import Model
from mmn.runs import reopen
from mmn.runs.plan import ProgressCallback
from mmn.runs.reopen import ScoredRun
from mmn.runs.teacher_forcing import reread, stored_captions
from mmn.scores.methods import require_method
from mmn.scores.rows import Tables
from mmn.studies.annotate.measure import MANY_UNITS
from mmn.studies.degradation.given_sets import choices_of_set, set_table
from mmn.studies.degradation.pictures import Measured, Measuring, effect_table, share_table
from mmn.studies.degradation.selections import (
    Choice,
    Control,
    Interpretable,
    Row,
    all_layers,
    choose,
    same_layers,
)
from mmn.studies.degradation.told import Told
from mmn.studies.tables import failure_table
from mmn.units.sets import UnitSet, fitting, require_awake

STAGE: Final = "degrade"
MOST_FACTOR: Final = 1000.0  # and of sigma: what is far beyond tells no more, until nothing is finite
MOST_SIGMA: Final = 1000.0
PICTURES_AT_ONCE: Final = 4  # in one shard, of a model of few units; of a large one each picture is a shard


@dataclass(frozen=True)
class InterventionPlan:
    """What to measure. `ks` are numbers of units; 0, the untouched model, is always among them.

    `given` is a set of units that is taken instead of each noun's ranking: `methods` is then its label alone.
    """

    kind: str
    methods: tuple[str, ...]
    ks: tuple[int, ...]
    selections: tuple[str, ...] = names.SELECTIONS
    n_draws: int = 3
    sigmas: tuple[float, ...] = ()
    sigma_unit: str | None = None
    positions: str = names.EVERYWHERE
    factors: tuple[float, ...] = ()
    given: UnitSet | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """All that can change a number, as plain values: of an ablation everywhere as versions without others had it,
        so that what they measured is found.
        """
        plain = asdict(replace(self, given=None))
        del plain["given"]  # `methods` holds its digest
        if self.positions == names.EVERYWHERE:
            del plain["positions"]
        if not self.factors:
            del plain["factors"]
        return plain


def degrade(
    model: Model,
    run_path: Path,
    plan: InterventionPlan,
    metric: TextMetric | None = None,
    progress: ProgressCallback = lambda _progress: None,
    limit: int | None = None,
) -> list[str]:
    """Measures what an intervention does to every noun of a run's captions, as shards of the run.

    Args:
        model: the one that the run was scored with.
        run_path: the run's folder.
        plan: what to measure.
        metric: compares new captions with the original ones; None measures no captions, which is many times faster.
        progress: is called with the number of pictures done.
        limit: only the first so many pictures of the run.

    Returns:
        The names of the shards that hold the answer, those that earlier calls wrote included.

    Raises:
        UsageError: another model than the run's, or a method, selection or number of units that does not exist.
        CacheError: no run there, a broken shard, or no space left; what was finished is kept.
    """
    scored = reopen.open_run(model, run_path)
    plan = _checked(plan, scored)
    interpretable = Interpretable.of(scored)

    measuring = Measuring(scored, plan, metric, Told.of(scored).token_ids)

    def answer(tables: Tables, tell: Callable[[], None]) -> Tables:
        return _answer(measuring, interpretable, tables, tell)

    size = PICTURES_AT_ONCE if model.facts.n_units <= MANY_UNITS else 1
    plain = [plan.asked, metric.name if metric else None]
    return reopen.for_each_part(scored, f"{STAGE}-{plan.kind}", plain, answer, progress, STAGE, limit, size)


def _checked(plan: InterventionPlan, scored: ScoredRun) -> InterventionPlan:
    """The plan in order and without repeats."""
    check_plan(plan)
    _check_units(plan, scored)
    has_noise = plan.kind == names.PERTURB
    return InterventionPlan(
        plan.kind,
        (plan.given.label,) if plan.given is not None else tuple(dict.fromkeys(plan.methods)),
        tuple(sorted({0, *plan.ks})),
        tuple(one for one in names.ALL_SELECTIONS if one in plan.selections),
        plan.n_draws,
        tuple(sorted(set(plan.sigmas))) if has_noise else (),
        plan.sigma_unit if has_noise else None,
        plan.positions,
        tuple(sorted(set(plan.factors))) if plan.kind == names.SCALE else (),
        plan.given,
    )


def check_plan(plan: InterventionPlan) -> None:
    """What can be told without a model, which takes long to load.

    Raises:
        UsageError: words and rankings that there are none of, places and sizes of a change that cannot be.
    """
    words = [(plan.kind, names.INTERVENTIONS), (plan.positions, names.POSITIONS)]
    for word, known in [*words, *((one, names.CHOSEN_SELECTIONS) for one in plan.selections)]:
        if word not in known:
            raise UsageError(f"there is no {word!r}; there are {', '.join(known)}")
    for method in plan.methods if plan.given is None else ():
        if method not in names.METHODS or method == names.RANDOM_MATCHED:
            possible = [name for name in names.METHODS if name != names.RANDOM_MATCHED]
            raise UsageError(f"no ranking by {method!r} to select units with; there are {', '.join(possible)}")
    has_noise = plan.kind == names.PERTURB
    if plan.positions != names.EVERYWHERE and has_noise:
        raise UsageError(
            f"--at {plan.positions} is for --kind {names.ABLATE} or {names.SCALE}: noise is on weights, everywhere"
        )
    if plan.kind == names.SCALE and not (plan.factors and all(0 <= one <= MOST_FACTOR for one in plan.factors)):
        raise UsageError(f"scaling needs factors from 0 to {MOST_FACTOR:g}, as --factor 0,.5,2: {plan.factors}")
    if has_noise and not (plan.sigmas and all(0 < one <= MOST_SIGMA for one in plan.sigmas)):
        raise UsageError(f"noise needs sigmas above 0, up to {MOST_SIGMA:g}, as --sigma .5,1: {plan.sigmas}")
    if has_noise and plan.sigma_unit not in names.SIGMA_UNITS:
        raise UsageError(f"noise needs a sigma in the unit {' or '.join(names.SIGMA_UNITS)}: {plan.sigma_unit}")


def _check_units(plan: InterventionPlan, scored: ScoredRun) -> None:
    """Raises `UsageError` for scores and numbers of units that the model does not have."""
    if plan.given is not None:
        _check_given(plan, plan.given, scored)
        return
    for method in plan.methods:
        require_method(scored.model, method)
    n_units = scored.model.anatomy.n_awake
    if wrong := [k for k in plan.ks if not 0 <= k <= n_units]:
        raise UsageError(
            f"{counted(wrong[0], 'unit')} cannot be taken: {scored.model.facts.name} has {n_units} at a token"
        )


def _check_given(plan: InterventionPlan, given: UnitSet, scored: ScoredRun) -> None:
    fitting(given, scored.model.facts)
    require_awake(given, scored.model.anatomy.widths, scored.model.facts)
    if too_many := [k for k in plan.ks if k > len(given.units)]:
        raise UsageError(f"--ks {too_many[0]}: the set {given.name!r} has {counted(len(given.units), 'unit')}")
    if names.RANDOM_PICTURE in plan.selections:
        raise UsageError(f"--selections {names.RANDOM_PICTURE} is P2's control of rankings: a set has random instead")


def _answer(measuring: Measuring, interpretable: Interpretable, tables: Tables, tell: Callable[[], None]) -> Tables:
    """The rows of a few pictures."""
    there, images, failures = reopen.open_all(tables, STAGE)
    for _ in failures:
        tell()
    choices = choices_of(measuring.scored, measuring.plan, interpretable, tables, there, images)
    captions = stored_captions(measuring.scored.model, tables, there)
    rows: list[Measured] = []
    for number, image in enumerate(images):
        rows += measuring.measure(image, captions[number], list(rows_of(measuring.plan, choices[number])))
        tell()
    found = {"effect": effect_table(rows), "noun_share": share_table(rows, len(measuring.nouns))}
    found |= {} if measuring.plan.given is None else {"unit_set": set_table(measuring.plan.given)}
    return found | ({"failure": failure_table(failures)} if failures else {})


def choices_of(
    scored: ScoredRun,
    plan: InterventionPlan,
    interpretable: Interpretable,
    tables: Tables,
    there: Sequence[Example],
    images: Sequence[Image.Image],
) -> list[list[Choice]]:
    """By picture, the units of all its nouns."""
    found: list[list[Choice]] = [[] for _ in images]
    if not images:
        return found
    control, draws = _controls(plan)
    if plan.given is not None:
        for one in choices_of_set(scored, plan.given, plan.selections, interpretable, draws, tables, there):
            found[one.said.row].append(one)
        return found
    for measured, by_method in reread(scored, tables, there, images, plan.methods):
        for one in choose(measured, by_method, plan.selections, plan.ks[-1], interpretable, control, draws):
            found[one.said.row].append(one)
    return found


def _controls(plan: InterventionPlan) -> tuple[Control, Mapping[str, int]]:
    """How random units are drawn, and how often each selection is: noise is drawn for all of them."""
    if plan.kind == names.PERTURB:
        return all_layers, dict.fromkeys(names.ALL_SELECTIONS, plan.n_draws)
    drawn = (names.RANDOM, names.RANDOM_PICTURE)
    return same_layers, dict.fromkeys(names.ALL_SELECTIONS, 1) | dict.fromkeys(drawn, plan.n_draws)


def rows_of(plan: InterventionPlan, choices: Sequence[Choice]) -> Iterator[Row]:
    """Every (units, k, σ or factor) to measure; the untouched model once for each selection and σ."""
    for choice in choices:
        for k in plan.ks:
            if k <= len(choice.units) and (k > 0 or choice.draw == 0):
                factors = plan.factors if plan.factors and k else (None,)
                yield from (Row(choice, k, sigma, factor) for sigma in plan.sigmas or (None,) for factor in factors)

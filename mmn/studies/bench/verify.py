"""Do planted units do on other pictures what their roles say? Measured, before any ranking is judged by them (OURS).

    activity   the chance that a is higher where the unit is to be active than where it is not (area under the ROC
               curve), over all positions of all judged pictures, with the object and without
    effect     what zeroing the unit takes from the noun's logit, by picture that says the noun

A unit whose role does not hold is left out of what is judged, and listed; where a role holds for fewer than half of the
nouns, nothing is judged at all. In a picture where a unit's effect is not what its role says it does not count, either.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float

from mmn.core import Neuron
from mmn.counts import counted
from mmn.errors import ModelError
from mmn.models.model import Model
from mmn.reading.hooks import capture_units
from mmn.reading.hooks.streams import Replayed
from mmn.studies.bench.detectors import where_active
from mmn.studies.bench.rankings import average_ranks
from mmn.studies.bench.roles import NAMED, ROLES, STRENGTH, Planted, Role
from mmn.studies.bench.told import Told

LEAST_ACTIVITY: Final = 0.95
LEAST_EFFECT: Final = 0.25  # of what the role says, the mean over pictures
MOST_EFFECT: Final = 0.3 * STRENGTH  # of a decoy, likewise


@dataclass(frozen=True)
class Evidence:
    """One picture's: the activation of each planted unit at each position, where it is to be active, and its effect.

    `effects` hold what zeroing takes from its own noun, NaN where the caption does not say it of its object.
    """

    a: Float[np.ndarray, "units positions"]
    active: Bool[np.ndarray, "units positions"]
    effects: Float[np.ndarray, " units"]


@dataclass(frozen=True)
class Verified:
    """What was measured of a planted unit; `why` it does not hold, empty where it does."""

    planted: Planted
    activity: float
    effect: float
    n: int
    why: str

    @property
    def holds(self) -> bool:
        return not self.why


@torch.inference_mode()
def evidence(
    model: Model,
    told: Told,
    replayed: Replayed,
    planted: Sequence[Planted],
    effects: Mapping[tuple[str, Neuron], float],
) -> Evidence:
    """What one picture tells of planted units; `effects` by noun and unit, as `yardstick` measures them."""
    with capture_units(model, [one.unit for one in planted]) as captured:
        replayed.again(1)
    a = captured.read()[0].T.cpu().numpy()
    active = np.stack([where_active(told, one.noun, NAMED[one.role]).numpy() for one in planted])
    return Evidence(a, active, np.array([effects.get((one.noun, one.unit), np.nan) for one in planted]))


def verify(planted: Sequence[Planted], seen: Sequence[Evidence], without: Collection[str] = ()) -> tuple[Verified, ...]:
    """Each unit, over all pictures; those of roles that are not judged by (`without`) count as none that hold.

    Raises:
        ModelError: a role that is judged by holds for fewer than half of the nouns.
    """
    found = tuple(_left_out(_verified(one, place, seen), without) for place, one in enumerate(planted))
    if failing := [role.name for role in ROLES if role.name not in without and _fails(role, found)]:
        raise ModelError(_refusal(failing, found, without))
    return found


def _fails(role: Role, found: Sequence[Verified]) -> bool:
    """Whether a role holds for fewer than half of its nouns."""
    own = [one for one in found if one.planted.role == role.name]
    return 2 * sum(one.holds for one in own) < len(own)


def _refusal(failing: Sequence[str], found: Sequence[Verified], without: Collection[str]) -> str:
    """Every role that fails, one of its nouns and what is wrong there, and what to do."""
    wrong = [next(one for one in found if one.planted.role == role and not one.holds) for role in failing]
    told = "; ".join(f"{one.planted.role} ({one.planted.noun}): {one.why}" for one in wrong)
    is_any_left = any(role.name not in {*failing, *without} for role in ROLES)
    left_out = ",".join(role.name for role in ROLES if role.name in {*failing, *without}) if is_any_left else "all"
    return (
        f"planted units do not do what they should for most nouns, and nothing is judged by them: {told}. Give more "
        f"pictures with masks (--build, --images) or another model, or judge by the rest alone: --without {left_out}"
    )


def _left_out(verified: Verified, without: Collection[str]) -> Verified:
    """The same, as what does not hold where its role is not judged by."""
    if verified.planted.role not in without:
        return verified
    return replace(verified, why=f"left out: {verified.why or 'not asked for'}")


def _verified(planted: Planted, place: int, seen: Sequence[Evidence]) -> Verified:
    a = np.concatenate([one.a[place] for one in seen])
    active = np.concatenate([one.active[place] for one in seen])
    effects = [float(one.effects[place]) for one in seen if not np.isnan(one.effects[place])]
    activity, effect = area_under_roc(a, active), statistics.fmean(effects) if effects else float("nan")
    return Verified(planted, activity, effect, len(effects), _why(planted, activity, effects))


def _why(planted: Planted, activity: float, effects: Sequence[float]) -> str:
    """What does not hold; the eraser is active where another unit wrote, which is not where its noun is alone."""
    wanted = NAMED[planted.role].effect
    if len(effects) < 2:
        return f"the noun is said of {counted(len(effects), 'picture')}"
    effect = statistics.fmean(effects)
    if not activity >= LEAST_ACTIVITY:
        return f"active elsewhere, too: {activity:z.3f} of pairs are in order"
    if not has_effect(NAMED[planted.role], effect):
        return f"zeroing it takes {effect:z.2f} logits".replace("-", "−") + ("" if wanted else ", and should take none")
    return ""


def has_effect(role: Role, effect: float) -> bool:
    """Whether what zeroing takes from the noun's logit is what the role says."""
    return bool(effect / role.effect >= LEAST_EFFECT if role.effect else abs(effect) <= MOST_EFFECT)


def area_under_roc(values: Float[np.ndarray, " n"], wanted: Bool[np.ndarray, " n"]) -> float:
    """The share of pairs, one wanted and one not, in which the wanted one is higher; ties count half; NaN of none."""
    n_in, n_out = int(wanted.sum()), int((~wanted).sum())
    if not n_in or not n_out:
        return float("nan")
    ranks = average_ranks(values)[wanted].sum()
    return float((ranks - n_in * (n_in + 1) / 2) / (n_in * n_out))

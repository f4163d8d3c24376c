"""How far does what a model says fall when units are silenced? Curves against k, with intervals, from pictures' means.

    prob, logit, similarity, lost    mean over pictures of each picture's mean over its nouns
    relative                         mean probability / mean probability of the same nouns in the untouched model

Each draw (of random units, or of noise) has its interval by picture; a curve is the mean over draws, and its band goes
from the lowest to the highest end of theirs, so that it holds the draws as well as the pictures. OURS; the experiments
are P1's (figures 6 and S.3, arXiv 2308.01544) and P2's (arXiv 2311.07470).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from mmn.bootstrap import ratio_intervals
from mmn.experiments.degradation_summary import half_at
from mmn.figures.wording import k_text
from mmn.names import RANDOM, TOP

QUANTITIES: Final[dict[str, tuple[str, str | None]]] = {  # name -> column, and the one it is divided by
    "prob": ("prob", None),
    "relative": ("prob", "baseline_prob"),
    "logit": ("logit", None),
    "similarity": ("similarity", None),
    "lost": ("lost", None),
}
COLUMNS: Final = ("method", "selection", "k", "sigma", "mean", "low", "high", "n", "n_draws")


@dataclass(frozen=True)
class Fall:
    """What ablation does to a probability: `drop` at `k`, the largest one measured, as a share of the untouched
    model's, with its 95 % interval; `control` is the drop by random units (NaN without); `halved_at` is the k that
    leaves half of it, linear between the measured ones, None if none does.
    """

    k: int
    drop: float
    low: float
    high: float
    control: float
    halved_at: float | None


def curves(means: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Returns the points of all curves: method, selection, k, sigma, mean, low, high, n (pictures), n_draws.

    Args:
        means: `Store.effect_means`: one row per picture and setting.
        quantity: a key of `QUANTITIES`. Pictures where it was not measured are left out.
    """
    column, weight = QUANTITIES[quantity]
    rows = means.dropna(subset=[column])
    by = ["method", "selection", "k", *(["sigma"] if rows["sigma"].notna().any() else [])]
    if rows.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    values = rows.pivot(index="image_id", columns=[*by, "draw"], values=column)
    is_there = values.notna().to_numpy()
    weights = is_there.astype(float)
    if weight is not None:
        weights = rows.pivot(index="image_id", columns=[*by, "draw"], values=weight).fillna(0.0).to_numpy(dtype=float)
    mean, low, high = ratio_intervals(values.fillna(0.0).to_numpy(dtype=float), weights)
    told = {"mean": mean, "low": low, "high": high, "n": is_there.sum(0)}
    points = pd.DataFrame(told, index=values.columns).reset_index()
    ends = {"mean": ("mean", "mean"), "low": ("low", "min"), "high": ("high", "max"), "n": ("n", "max")}
    found = points.groupby(by, sort=False, observed=True).agg(**ends, n_draws=("draw", "nunique")).reset_index()
    if "sigma" not in found:
        found["sigma"] = np.nan
    order = {method: place for place, method in enumerate(dict.fromkeys(means["method"]))}
    found["method_place"] = found["method"].map(order)
    return found.sort_values(["method_place", "selection", "k", "sigma"], ignore_index=True)[list(COLUMNS)]


def fall(relative: pd.DataFrame, method: str, selection: str = TOP) -> Fall:
    """Returns how far the probability falls by ablating a selection of a method's units.

    Args:
        relative: `curves(means, "relative")` of an ablation, with that method and selection.
        method: one of its methods.
        selection: one of its selections.
    """
    of_method = relative[relative["method"] == method]
    ours = of_method[of_method["selection"] == selection].sort_values("k")
    assert len(ours), f"no curve of {method}, {selection}"
    last = ours.iloc[-1]
    control = of_method[(of_method["selection"] == RANDOM) & (of_method["k"] == last["k"])]["mean"]
    return Fall(
        k=int(last["k"]),
        drop=1 - float(last["mean"]),
        low=1 - float(last["high"]),
        high=1 - float(last["low"]),
        control=1 - float(control.iloc[0]) if len(control) else float("nan"),
        halved_at=half_at(ours["k"].tolist(), ours["mean"].tolist()),
    )


def told(found: Fall, n_units: int) -> str:
    """`At k = 768 (25 %) the probability falls by 53 % (95 % interval 49 to 57 %; random units: 4 %); half of it is
    gone at k = 92 (3 %).`
    """
    is_fall = found.drop >= 0
    drop, low, high = (found.drop, found.low, found.high) if is_fall else (-found.drop, -found.high, -found.low)
    interval = f"95 % interval {100 * low:.0f} to {_percent(high)}"
    random = "" if np.isnan(found.control) else f"; random units: {_percent(found.control)}"
    half = (
        "no measured k halves it"
        if found.halved_at is None
        else f"half of it is gone at k = {k_text(round(found.halved_at), n_units)}"
    )
    return (
        f"At k = {k_text(found.k, n_units)} the probability {'falls' if is_fall else 'rises'} by {_percent(drop)} "
        f"({interval}{random}); {half}."
    )


def counted(means: pd.DataFrame) -> tuple[int, int]:
    """How many pictures, and how many of their nouns, the means are of."""
    return means["image_id"].nunique(), int(means.groupby("image_id")["n_nouns"].max().sum())


def _percent(share: float) -> str:
    """`53 %`; below zero with a minus: what rises instead. Never `-0 %`."""
    return f"{round(100 * share):d} %".replace("-", "−")

"""How far does what a model says fall when units are silenced? Curves against k, with intervals, from pictures' means.

    prob, logit, similarity, lost    mean over pictures of each picture's mean over its nouns and draws
    relative                         mean probability / mean probability of the same nouns in the untouched model
    share                            as prob, of the noun's share among all nouns
    perplexity, perplexity-captions  exp of the mean over pictures of the nats per token: their geometric mean

Draws (of random units, or of noise) are a picture's own: they are averaged first, and the interval is by picture. The
page, its figures and the terminal take their numbers from here. OURS; the experiments are P1's (figures 6 and S.3,
arXiv 2308.01544) and P2's (arXiv 2311.07470).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from mmn.figures.theme import FIRST, MUTED, SECOND, THIRD
from mmn.figures.wording import k_text
from mmn.names import ANOTHER, EVERYWHERE, IMAGE_TOKENS, INTERPRETABLE, RANDOM, RANDOM_PICTURE, TOP
from mmn.statistics.interval_words import percent, why_none
from mmn.statistics.intervals import ANYWHERE, SHARE, Range, mean_intervals, ratio_intervals

MEASURES: Final[dict[str, tuple[str, Range]]] = {  # name -> column, and what its interval cannot leave
    "prob": ("prob", SHARE),
    "baseline_prob": ("baseline_prob", SHARE),
    "relative": ("prob", ANYWHERE),
    "logit": ("logit", ANYWHERE),
    "similarity": ("similarity", SHARE),
    "lost": ("lost", SHARE),
    "share": ("noun_share", SHARE),
    "perplexity": ("nats", ANYWHERE),
    "perplexity-captions": ("nats_captions", ANYWHERE),
}
OF_TEXT: Final = ("perplexity", "perplexity-captions")
TO_UNTOUCHED: Final = ("relative", "similarity", "lost")  # the untouched model's own are known by definition
SELECTION_WORDS: Final = {
    TOP: "top",
    INTERPRETABLE: "interpretable",
    ANOTHER: "another picture's",
    RANDOM: "random",
    RANDOM_PICTURE: "random, one draw a picture",
}
SELECTION_COLOURS: Final = {TOP: FIRST, INTERPRETABLE: SECOND, ANOTHER: THIRD, RANDOM: MUTED, RANDOM_PICTURE: MUTED}
POSITION_WORDS: Final = {EVERYWHERE: "everywhere", IMAGE_TOKENS: "at image tokens only"}
NONE: Final = -1.0  # instead of a missing sigma or factor: rows without a value drop out of tables by picture
LINE: Final = ("method", "selection", "positions", "k", "sigma", "factor")  # what tells the points of curves apart
COLUMNS: Final = (*LINE, "mean", "low", "high", "n", "n_draws")


@dataclass(frozen=True)
class ProbabilityDrop:
    """What ablation does to a probability.

    Attributes:
        k: the largest one measured.
        drop: there, as a share of the untouched model's probability.
        low: lower end of its 95 % interval; NaN where `n` pictures are too few.
        high: upper end.
        control: the drop by random units; NaN without.
        halved_at: the k that leaves half of the probability, linear between the measured ones; None if none does.
        n: pictures.
    """

    k: int
    drop: float
    low: float
    high: float
    control: float
    halved_at: float | None
    n: int


def curves(means: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Returns the points of all curves: `LINE`, mean, low, high, n (pictures), n_draws.

    Args:
        means: `EffectQueries.means`: one row per picture, draw and setting.
        measure: a key of `MEASURES`. Pictures where it was not measured are left out; points that compare the untouched
            model with itself have no interval.
    """
    column, within = MEASURES[measure]
    rows = means.dropna(subset=[column])
    if rows.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    by = list(LINE)
    rows = filled(rows)
    wide = _by_picture(rows, column, by)
    if measure == "relative":
        mean, low, high = ratio_intervals(*_parts(wide, _by_picture(rows, "baseline_prob", by)), within)
        low = np.maximum(low, 0.0)  # no picture has less than nothing left, though its linear part in the ratio may
    else:
        mean, low, high = mean_intervals(wide.to_numpy(dtype=float), within)
    if measure in OF_TEXT:
        mean, low, high = np.exp(mean), np.exp(low), np.exp(high)
    found = pd.DataFrame({"mean": mean, "low": low, "high": high, "n": wide.notna().sum().to_numpy()}, wide.columns)
    found = found.join(rows.groupby(by)["draw"].nunique().rename("n_draws")).reset_index()
    found = emptied(found)
    if measure in TO_UNTOUCHED:
        found.loc[is_untouched(found), ["low", "high"]] = np.nan
    order = {method: place for place, method in enumerate(dict.fromkeys(means["method"]))}
    found["method_place"] = found["method"].map(order)
    return found.sort_values(["method_place", *LINE[1:]], ignore_index=True)[list(COLUMNS)]


def is_untouched(rows: pd.DataFrame) -> pd.Series:
    """Which rows are of the model as it is: no unit, no noise, or units multiplied by 1."""
    return (rows["k"] == 0) | (rows["sigma"] == 0) | (rows["factor"] == 1)


def filled(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with a number where sigma or factor is missing, for grouping."""
    return rows.assign(**{name: rows[name].astype(float).fillna(NONE) for name in ("sigma", "factor")})


def emptied(rows: pd.DataFrame) -> pd.DataFrame:
    """What `filled` filled in, empty again."""
    return rows.assign(**{name: rows[name].where(rows[name] != NONE) for name in ("sigma", "factor")})


def _by_picture(rows: pd.DataFrame, column: str, by: list[str]) -> pd.DataFrame:
    """A row for each picture, a column for each setting: the mean over draws."""
    return rows.pivot_table(index="image_id", columns=by, values=column, aggfunc="mean", observed=True)


def _parts(values: pd.DataFrame, weights: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The two sides of a ratio, 0 where a picture was not measured."""
    weights = weights.reindex(columns=values.columns)
    return values.fillna(0.0).to_numpy(dtype=float), weights.fillna(0.0).to_numpy(dtype=float)


def probability_drop(
    relative: pd.DataFrame, method: str, selection: str = TOP, positions: str = EVERYWHERE
) -> ProbabilityDrop:
    """Returns how far the probability falls by ablating a selection of a method's units.

    Args:
        relative: `curves(means, "relative")` of an ablation, with that method and selection.
        method: one of its methods.
        selection: one of its selections.
        positions: where they were ablated.
    """
    of_method = relative[(relative["method"] == method) & (relative["positions"] == positions)]
    ours = of_method[of_method["selection"] == selection].sort_values("k")
    assert len(ours), f"no curve of {method}, {selection}"
    last = ours.iloc[-1]
    control = of_method[(of_method["selection"] == RANDOM) & (of_method["k"] == last["k"])]["mean"]
    return ProbabilityDrop(
        k=int(last["k"]),
        drop=1 - float(last["mean"]),
        low=1 - float(last["high"]),
        high=1 - float(last["low"]),
        control=1 - float(control.iloc[0]) if len(control) else float("nan"),
        halved_at=half_at(ours["k"].tolist(), ours["mean"].tolist()),
        n=int(last["n"]),
    )


def half_at(ks: Sequence[int], probs: Sequence[float]) -> float | None:
    """The first k at which the probability is half of the first one, linear between measured k; None if it never is."""
    half = probs[0] / 2
    for index in range(1, len(ks)):
        if probs[index] <= half:
            share = (probs[index - 1] - half) / (probs[index - 1] - probs[index])
            return ks[index - 1] + share * (ks[index] - ks[index - 1])
    return None


def describe_drop(found: ProbabilityDrop, n_units: int) -> str:
    """`At k = 768 (25 %) the probability falls by 53 % (95 % interval 49 to 57 %; random units: 4 %); half of it
    is gone at k = 92 (3 %).`
    """
    is_fall = found.drop >= 0
    drop, low, high = (found.drop, found.low, found.high) if is_fall else (-found.drop, -found.high, -found.low)
    interval = (
        why_none(found.n) if np.isnan(low) else f"95 % interval {percent(low).removesuffix(' %')} to {percent(high)}"
    )
    random = "" if np.isnan(found.control) else f"; random units: {percent(found.control)}"
    half = (
        "no measured k halves it"
        if found.halved_at is None
        else f"half of it is gone at k = {k_text(round(found.halved_at), n_units)}"
    )
    return (
        f"At k = {k_text(found.k, n_units)} the probability {'falls' if is_fall else 'rises'} by {percent(drop)} "
        f"({interval}{random}); {half}."
    )


def count_sample(means: pd.DataFrame) -> tuple[int, int]:
    """How many pictures, and how many of their nouns, the means are of."""
    return means["image_id"].nunique(), int(means.groupby("image_id")["n_nouns"].max().sum())

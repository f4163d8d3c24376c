"""How well does a score tell what is there from what is not? AUROC, average precision, and precision against recall.

    AUROC   the share of pairs (one that is there, one that is not) in which the one that is there scores higher,
            ties counting half: .5 by chance
    AP      the mean of the precisions at each one that is there, by falling score: by chance the share that is there

Intervals are by picture: each picture's linear part in the statistic (its influence) stands for its value, as for
ratios of sums (`intervals`). Simulated with 24 to 100 pictures, 5 to 50 % of whose objects are not there, they cover
94 to 97 %. None where fewer than `intervals.N_LEAST` pictures show one that is there, or one that is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from mmn.statistics.intervals import ANYWHERE, N_LEAST, mean_intervals, ratio_intervals

RECALLS: Final = tuple(np.round(np.arange(0.05, 1.0001, 0.05), 2))  # that a curve is drawn at


@dataclass(frozen=True)
class Detected:
    """AUROC with its 95 % interval by picture (NaN where there is none), AP, and the share that AP has by chance."""

    auroc: float
    low: float
    high: float
    average_precision: float
    chance: float
    n_positive: int
    n_negative: int
    n_images: int


def detection(rows: pd.DataFrame, score: str, positive: str = "is_positive", image: str = "image_id") -> Detected:
    """How well `score` tells rows with `positive` from those without.

    Raises:
        AssertionError: all rows are positive, or none is.
    """
    values, is_there = rows[score].to_numpy(float), rows[positive].to_numpy(bool)
    assert is_there.any(), "nothing is there"
    assert not is_there.all(), "everything is there"
    ahead = _shares_passed(values, is_there)
    auroc = float(ahead[is_there].mean())
    low, high = _ends(rows[image], ahead - auroc, is_there, auroc)
    return Detected(
        auroc,
        low,
        high,
        average_precision(values, is_there),
        float(is_there.mean()),
        int(is_there.sum()),
        int((~is_there).sum()),
        int(rows[image].nunique()),
    )


def average_precision(values: Float[np.ndarray, " n"], is_there: Bool[np.ndarray, " n"]) -> float:
    """AP; of rows that score the same each counts as if it came with all of them."""
    order = np.argsort(-values, kind="stable")
    falling = values[order]
    last = np.searchsorted(-falling, -falling, side="right")  # rows that score as high, or higher
    found = np.concatenate([[0], np.cumsum(is_there[order])])[last]
    return float((found / last)[is_there[order]].mean())


def precision_curve(
    rows: pd.DataFrame, score: str, positive: str = "is_positive", image: str = "image_id"
) -> pd.DataFrame:
    """Returns recall, precision, low, high, n (pictures): the precision where so much of what is there is found, with
    its 95 % interval by picture. At each of `RECALLS` the highest threshold that reaches it.
    """
    values, is_there = rows[score].to_numpy(float), rows[positive].to_numpy(bool)
    falling = np.sort(values[is_there])[::-1]
    at = np.unique(np.ceil(np.array(RECALLS) * len(falling) - 1e-9).astype(int)) - 1
    is_said = values[:, None] >= falling[at][None]
    pictures = rows[image].to_numpy()
    sums = pd.DataFrame(is_said & is_there[:, None]).groupby(pictures).sum()
    counts = pd.DataFrame(is_said).groupby(pictures).sum()
    precision, low, high = ratio_intervals(sums.to_numpy(float), counts.to_numpy(float))
    recall = (is_said & is_there[:, None]).sum(0) / len(falling)
    n = (counts.to_numpy() > 0).sum(0)
    return pd.DataFrame({"recall": recall, "precision": precision, "low": low, "high": high, "n": n})


def _shares_passed(values: Float[np.ndarray, " n"], is_there: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Of one that is there the share of the others below it, of one that is not the share of those above it; ties half.

    The mean over those that are there is AUROC, and so is the mean over the others.
    """
    there, others = np.sort(values[is_there]), np.sort(values[~is_there])
    below = (np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")) / (2 * len(others))
    under = (np.searchsorted(there, values, "left") + np.searchsorted(there, values, "right")) / (2 * len(there))
    return np.where(is_there, below, 1 - under)


def _ends(
    pictures: pd.Series, apart: Float[np.ndarray, " n"], is_there: Bool[np.ndarray, " n"], auroc: float
) -> tuple[float, float]:
    """Both ends of AUROC's interval, from what each picture adds to it through its positives and its negatives."""
    names = pictures.to_numpy()
    if min(len(set(names[is_there])), len(set(names[~is_there]))) < N_LEAST:
        return np.nan, np.nan
    share = np.where(is_there, apart / is_there.sum(), apart / (~is_there).sum())
    parts = pd.Series(share).groupby(names).sum().to_numpy()
    _, low, high = mean_intervals((auroc + len(parts) * parts)[:, None], ANYWHERE)
    low, high = np.clip([low[0], high[0]], 0.0, 1.0)
    return float(low), float(high)

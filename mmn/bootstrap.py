"""How sure is a mean over pictures? Percentile bootstrap, resampled by picture, never by concept (METHODS: Intervals).

Concepts of one picture share its caption, so a resampled picture brings all of them. All resamples are one matrix
product: 1,000 of 1,000 pictures take milliseconds.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np
import pandas as pd
from jaxtyping import Float

N_RESAMPLES: Final = 1000
CONFIDENCE: Final = 0.95


def mean_intervals(
    values: Float[np.ndarray, "images columns"], seed: int = 0, n_resamples: int = N_RESAMPLES
) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " columns"], Float[np.ndarray, " columns"]]:
    """Returns each column's mean over pictures and the ends of its 95 % interval.

    A picture without a value in a column (NaN) does not count there. All columns see the same resamples, so that
    their differences may be compared. A column of one picture has that value for all three; of none, NaN.
    """
    is_there = ~np.isnan(values)
    filled = np.where(is_there, values, 0.0)
    drawn = np.random.default_rng(seed).multinomial(len(values), np.full(len(values), 1 / len(values)), n_resamples)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(0) / is_there.sum(0)
        resampled = (drawn @ filled) / (drawn @ is_there)
    tail = (1 - CONFIDENCE) / 2
    with np.errstate(invalid="ignore"):
        low, high = np.nanquantile(np.where(np.isfinite(resampled), resampled, np.nan), [tail, 1 - tail], axis=0)
    return mean, low, high


def interval_table(rows: pd.DataFrame, by: list[str], value: str, image: str = "image_id") -> pd.DataFrame:
    """Returns for each group of `by` the mean of `value` over pictures: `by`, mean, low, high, n (pictures).

    A picture's value is the mean of its rows in the group; rows without a value are left out.
    """
    per_image = rows.dropna(subset=[value]).groupby([image, *by], observed=True)[value].mean()
    wide = per_image.unstack(level=list(range(1, 1 + len(by))))
    seed = int.from_bytes(hashlib.sha256(value.encode()).digest()[:4], "big")
    mean, low, high = mean_intervals(wide.to_numpy(dtype=float), seed)
    index = wide.columns if len(by) > 1 else pd.MultiIndex.from_arrays([wide.columns], names=by)
    counted = wide.notna().sum().to_numpy()
    told = {"mean": mean, "low": low, "high": high, "n": counted}
    return pd.DataFrame(told, index=index).reset_index()

"""How sure is a mean over pictures? Percentile bootstrap, resampled by picture, never by concept (METHODS: Intervals).

Concepts of one picture share its caption, so a resampled picture brings all of them. All resamples are one matrix
product: 1,000 of 1,000 pictures take milliseconds.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
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
    return ratio_intervals(np.where(is_there, values, 0.0), is_there.astype(float), seed, n_resamples)


def ratio_intervals(
    sums: Float[np.ndarray, "images columns"],
    counts: Float[np.ndarray, "images columns"],
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " columns"], Float[np.ndarray, " columns"]]:
    """Returns each column's sum of `sums` over its sum of `counts` (pictures weigh by their counts), and the ends of
    its 95 % interval; all columns see the same resamples. NaN where nothing was counted.
    """
    return _centre(sums, counts), *_ends(_resampled(sums, counts, seed, n_resamples))


def draw_intervals(
    values: Float[np.ndarray, "images columns draws"], seed: int = 0, n_resamples: int = N_RESAMPLES
) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " columns"], Float[np.ndarray, " columns"]]:
    """Returns each column's mean over pictures, then over draws (seeds), and the ends of its 95 % interval.

    Pictures alone are resampled, each with all its draws. A missing value (NaN) does not count in its draw, and a
    draw without any value not in the mean over draws.
    """
    n_images, n_columns, n_draws = values.shape
    is_there = ~np.isnan(values).reshape(n_images, -1)
    sums, counts = np.where(is_there, values.reshape(n_images, -1), 0.0), is_there.astype(float)
    mean = _mean_over_draws(_centre(sums, counts).reshape(n_columns, n_draws))
    resampled = _resampled(sums, counts, seed, n_resamples).reshape(n_resamples, n_columns, n_draws)
    return mean, *_ends(_mean_over_draws(resampled))


def _centre(
    sums: Float[np.ndarray, "images columns"], counts: Float[np.ndarray, "images columns"]
) -> Float[np.ndarray, " columns"]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums.sum(0) / counts.sum(0)


def _resampled(
    sums: Float[np.ndarray, "images columns"],
    counts: Float[np.ndarray, "images columns"],
    seed: int,
    n_resamples: int,
) -> Float[np.ndarray, "resamples columns"]:
    """The ratio of each resample of pictures, drawn with replacement, as many as there are; NaN for one of nothing."""
    drawn = _draws(len(sums), seed, n_resamples)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (drawn @ sums) / (drawn @ counts)


@lru_cache(maxsize=4)
def _draws(n: int, seed: int, n_resamples: int) -> Float[np.ndarray, "resamples n"]:
    """How often each of `n` pictures is drawn; kept, as all charts of a page draw alike."""
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), n_resamples).astype(float)
    drawn.setflags(write=False)
    return drawn


def _mean_over_draws(values: Float[np.ndarray, "*shape draws"]) -> Float[np.ndarray, "*shape"]:
    """The mean over the last axis of what is there; NaN where nothing is."""
    is_there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(is_there, values, 0.0).sum(-1) / is_there.sum(-1)


def _ends(
    resampled: Float[np.ndarray, "resamples columns"],
) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " columns"]]:
    tail = (1 - CONFIDENCE) / 2
    finite = np.where(np.isfinite(resampled), resampled, np.nan)
    is_any = ~np.isnan(finite).all(0)  # numpy warns of columns of nothing
    ends = np.full((2, resampled.shape[1]), np.nan)
    ends[:, is_any] = np.nanquantile(finite[:, is_any], [tail, 1 - tail], axis=0)
    return ends[0], ends[1]


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

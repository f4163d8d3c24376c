"""95 % intervals of means over pictures, by picture, never by concept, that cover 95 % (METHODS: Intervals).

    a share of pictures (every picture 0 or 1)   Clopper and Pearson (1934): exact, covers 95 % at least
    any other mean                               Student's t, or t with Hall's correction for skewness, whichever end
                                                 is further out: g⁻¹(±t/√n), Hall (1992), J. R. Stat. Soc. B 54: 221
    a ratio of sums, a mean over draws           the same, of each picture's linear part in it (influence)
    fewer than `N_LEAST` pictures                none: low and high are NaN

Two things are OURS, set by simulated coverage (docs/methods.md has the table): the wider of the two ends, and a sample
skewness times 1 + 4/n, since small samples of a skewed quantity rarely show its tail. A percentile bootstrap covers
.85 at n = 5. Concepts of one picture share its caption, and draws its nouns, so a picture brings all of them.

Pictures that all have one value tell nothing about how far others lie: no interval, unless they are a share's 0 or 1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from mmn.statistics.beta_distribution import beta_quantile, t_quantile

CONFIDENCE: Final = 0.95
N_LEAST: Final = 8  # pictures: below, skewed quantities are covered less often than .93
SHARE: Final = (0.0, 1.0)
ANYWHERE: Final = (-np.inf, np.inf)

Range = tuple[float, float]
Intervals = tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " columns"], Float[np.ndarray, " columns"]]


def mean_intervals(values: Float[np.ndarray, "images columns"], within: Range = SHARE) -> Intervals:
    """Returns each column's mean over pictures and the ends of its 95 % interval.

    A picture without a value in a column (NaN) does not count there; a column of none is NaN.

    Args:
        values: a picture's value of each quantity.
        within: what the quantity cannot leave, which then its interval does not, either; where all pictures are at one
            of these two ends, it is a share of pictures. Columns with values outside may be anything, as differences
            are: `ANYWHERE`.
    """
    is_there = ~np.isnan(values)
    ends = _ends(values, within, _is_inside(values, within))
    return _centre(np.where(is_there, values, 0.0), is_there.astype(float)), *ends


def ratio_intervals(
    sums: Float[np.ndarray, "images columns"], counts: Float[np.ndarray, "images columns"], within: Range = SHARE
) -> Intervals:
    """Returns each column's sum of `sums` over its sum of `counts` (pictures weigh by their counts), and the ends of
    its 95 % interval. NaN where nothing was counted; pictures without a count do not count. The interval stays within
    the range where every picture's own ratio does, however far its linear part reaches.
    """
    ratio = _centre(sums, counts)
    n = (counts > 0).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = ratio + (sums - ratio * counts) * (n / counts.sum(0))
        is_inside = _is_inside(np.where(counts > 0, sums / counts, np.nan), within)
    return ratio, *_ends(np.where(counts > 0, values, np.nan), within, is_inside)


def draw_intervals(values: Float[np.ndarray, "images columns draws"], within: Range = SHARE) -> Intervals:
    """Returns each column's mean over pictures, then over draws (seeds), and the ends of its 95 % interval.

    Pictures are what varies, each with all its draws, which are its own. A missing value (NaN) does not count in its
    draw, and a draw without any value not in the mean over draws. Its range as in `ratio_intervals`.
    """
    is_there = ~np.isnan(values)
    n_there = is_there.sum(0)
    n, n_draws = is_there.any(2).sum(0), (n_there > 0).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(is_there, values, 0.0).sum(0) / n_there
        mean = np.where(n_there > 0, means, 0.0).sum(1) / n_draws
        parts = np.where(is_there, (values - means) * (n[:, None] / n_there), 0.0).sum(2) / n_draws
    is_inside = np.all(_is_inside(values, within), axis=1)
    return mean, *_ends(np.where(is_there.any(2), mean + parts, np.nan), within, is_inside)


def interval_table(
    rows: pd.DataFrame, by: list[str], value: str, image: str = "image_id", within: Range = SHARE
) -> pd.DataFrame:
    """Returns for each group of `by` the mean of `value` over pictures: `by`, mean, low, high, n (pictures).

    A picture's value is the mean of its rows in the group; rows without a value are left out.
    """
    per_image = rows.dropna(subset=[value]).groupby([image, *by], observed=True)[value].mean()
    wide = per_image.unstack(level=list(range(1, 1 + len(by))))
    mean, low, high = mean_intervals(wide.to_numpy(dtype=float), within)
    index = wide.columns if len(by) > 1 else pd.MultiIndex.from_arrays([wide.columns], names=by)
    counted = wide.notna().sum().to_numpy()
    told = {"mean": mean, "low": low, "high": high, "n": counted}
    return pd.DataFrame(told, index=index).reset_index()


def _centre(
    sums: Float[np.ndarray, "images columns"], counts: Float[np.ndarray, "images columns"]
) -> Float[np.ndarray, " columns"]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums.sum(0) / counts.sum(0)


def _is_inside(
    values: Float[np.ndarray, "images columns *draws"], within: Range
) -> Bool[np.ndarray, " columns *draws"]:
    """Of which columns no picture's value leaves the range."""
    return ((values >= within[0]) & (values <= within[1]) | np.isnan(values)).all(0)


def _ends(
    values: Float[np.ndarray, "images columns"], within: Range, is_inside: Bool[np.ndarray, " columns"]
) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of every column's interval, NaN where there is none; cut at the range where the column is inside it."""
    n = (~np.isnan(values)).sum(0)
    ends = np.full((2, len(n)), np.nan)
    is_share = _at_ends(values, within) & (n >= N_LEAST)
    is_mean = ~is_share & (n >= N_LEAST)
    ends[:, is_share] = _share_ends(values[:, is_share], within)
    ends[:, is_mean] = _mean_ends(values[:, is_mean])
    low, high = np.where(is_inside, np.clip(ends, *within), ends)
    return low, high


def _at_ends(values: Float[np.ndarray, "images columns"], within: Range) -> Bool[np.ndarray, " columns"]:
    """Which columns hold nothing but the two ends of their range, up to rounding (a mean over draws)."""
    is_end = np.zeros(values.shape, dtype=bool)
    for end in within:
        is_end |= np.abs(values - end) < 1e-9
    return (is_end | np.isnan(values)).all(0)


def _share_ends(values: Float[np.ndarray, "images columns"], within: Range) -> Float[np.ndarray, "2 columns"]:
    """Clopper and Pearson: below the lower end (or above the upper one) so many or more (fewer) have 2.5 %."""
    low, high = within
    n = (~np.isnan(values)).sum(0).astype(float)
    n_high = np.nansum(np.round((values - low) / (high - low)), axis=0)
    tail = (1 - CONFIDENCE) / 2
    ends = np.tile(np.array([[0.0], [1.0]]), (1, len(n)))
    is_any, is_not_all = n_high > 0, n_high < n
    ends[0, is_any] = beta_quantile(tail, n_high[is_any], (n - n_high)[is_any] + 1)
    ends[1, is_not_all] = beta_quantile(1 - tail, n_high[is_not_all] + 1, (n - n_high)[is_not_all])
    return low + (high - low) * ends


def _mean_ends(values: Float[np.ndarray, "images columns"]) -> Float[np.ndarray, "2 columns"]:
    """Mean − s·max(t/√n, g⁻¹(t/√n)) and mean + s·max(t/√n, −g⁻¹(−t/√n)).

    g(W) = W + γW²/3 + γ²W³/27 + γ/(6n) takes the skewness γ out of W = (x̄ − μ)/s, to the order 1/n.
    """
    is_there = ~np.isnan(values)
    n = is_there.sum(0).astype(float)
    values = np.where(is_there, values, 0.0)
    mean = values.sum(0) / n
    apart = np.where(is_there, values - mean, 0.0)
    square = (apart**2).sum(0) / n
    deviation = np.sqrt(square * n / (n - 1))
    varies = deviation > 1e-9 * np.abs(values).max(0, initial=_SMALLEST)
    with np.errstate(invalid="ignore", divide="ignore"):
        skewness = (apart**3).sum(0) / n / square**1.5 * np.sqrt(n * (n - 1)) / (n - 2)
    skewness = np.where(varies, skewness, 0.0) * (1 + 4 / n)
    sizes, place = np.unique(n, return_inverse=True)
    t = _t(tuple(sizes - 1))[place] / np.sqrt(n)
    below, above = np.maximum(t, _unskewed(t, skewness, n)), np.maximum(t, -_unskewed(-t, skewness, n))
    ends = np.stack([mean - deviation * below, mean + deviation * above])
    return np.where(varies, ends, np.nan)


@lru_cache(maxsize=512)
def _t(freedom: tuple[float, ...]) -> Float[np.ndarray, " n"]:
    """The quantiles that intervals of so many pictures less one take: a page asks for the same ones all the time."""
    found = t_quantile(1 - CONFIDENCE, np.array(freedom))
    found.flags.writeable = False
    return found


def _unskewed(
    w: Float[np.ndarray, " columns"], skewness: Float[np.ndarray, " columns"], n: Float[np.ndarray, " columns"]
) -> Float[np.ndarray, " columns"]:
    """g⁻¹(w) = 3/γ · (∛(1 + γ(w − γ/(6n))) − 1), which is w without skewness."""
    is_none = np.abs(skewness) < 1e-7
    gamma = np.where(is_none, 1.0, skewness)
    return np.where(is_none, w, 3 / gamma * (np.cbrt(1 + gamma * (w - gamma / (6 * n))) - 1))


_SMALLEST: Final = float(np.finfo(float).tiny)

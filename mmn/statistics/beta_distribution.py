"""Quantiles of the beta distribution, and by it of Student's t, without SciPy. All arguments broadcast."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from jaxtyping import Float

_STEPS: Final = 60  # enough for halving alone to reach 1e-18; Newton's steps need about ten
_TINY: Final = 1e-300
_lgamma = np.vectorize(math.lgamma, otypes=[float])


def beta_share(
    x: Float[np.ndarray, " n"], a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """I_x(a, b), the share of a beta distribution below `x`, 0 < x < 1, to about 1e-13.

    Continued fraction of the incomplete beta function (Abramowitz & Stegun 26.5.8), summed by Lentz's method, on the
    side of the mean where it converges fast.
    """
    is_upper = x > (a + 1) / (a + b + 2)
    a, b = np.where(is_upper, b, a), np.where(is_upper, a, b)
    x = np.where(is_upper, 1 - x, x)
    log_front = a * np.log(x) + b * np.log1p(-x) - _log_beta(a, b) - np.log(a)
    below = np.exp(log_front) * _continued_fraction(x, a, b)
    return np.where(is_upper, 1 - below, below)


def beta_quantile(share: float, a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The x below which `share` of a beta distribution of parameters `a` and `b` lies: Newton's steps, held in by
    halving.
    """
    low, high = np.zeros_like(a), np.ones_like(a)
    x = a / (a + b)
    log_beta = _log_beta(a, b)
    for _ in range(_STEPS):
        excess = beta_share(x, a, b) - share
        low, high = np.where(excess < 0, x, low), np.where(excess < 0, high, x)
        density = np.exp((a - 1) * np.log(x) + (b - 1) * np.log1p(-x) - log_beta)
        step = x - excess / np.maximum(density, _TINY)
        following = np.where((low < step) & (step < high), step, (low + high) / 2)
        if (np.abs(following - x) <= 1e-13 * x).all():
            break
        x = following
    return x


def t_quantile(tails: float, freedom: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The t beyond which, up and down together, `tails` of Student's distribution lies: 2.262 for .05 and 9 degrees.

    Of T with ν degrees of freedom, ν / (ν + T²) is beta with ν/2 and 1/2.
    """
    x = beta_quantile(tails, freedom / 2, np.full_like(freedom, 0.5))
    return np.sqrt(freedom * (1 - x) / x)


def _log_beta(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return _lgamma(a) + _lgamma(b) - _lgamma(a + b)


def _continued_fraction(
    x: Float[np.ndarray, " n"], a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    d = 1 / _nonzero(1 - (a + b) * x / (a + 1))
    c, found = np.ones_like(x), d
    for m in range(1, 10_000):  # takes about the root of the larger parameter
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _nonzero(1 + term * d)
            c = _nonzero(1 + term / c)
            found = found * c * d
        if (np.abs(c * d - 1) < 1e-14).all():
            break
    return found


def _nonzero(value: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return np.where(np.abs(value) < _TINY, _TINY, value)

"""The two-sample test of Kolmogorov and Smirnov, without SciPy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class KolmogorovSmirnov:
    """`statistic`: the largest distance D between two empirical distribution functions. `p_value`: asymptotic."""

    statistic: float
    p_value: float
    n_first: int
    n_second: int

    @property
    def p_text(self) -> str:
        """The p-value as it follows a p: `= 0.53`, `< .005`."""
        return f"=\u00a0{self.p_value:.2f}" if self.p_value >= 0.005 else "<\u00a0.005"


def kolmogorov_smirnov(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " m"]) -> KolmogorovSmirnov:
    """The two-sample test: do two samples come from one distribution?

    D = sup |F_n − G_m|, and p = Q(√(nm / (n + m)) · D) with Kolmogorov's limit Q (Smirnov 1948): right for large
    samples, and for small ones too large, so that it errs on the side of no difference.
    """
    n, m = len(first), len(second)
    assert min(n, m) > 0, f"samples of {n} and {m}"
    every = np.sort(np.concatenate([first, second]))
    shares = [np.searchsorted(np.sort(sample), every, side="right") / len(sample) for sample in (first, second)]
    statistic = float(np.abs(shares[0] - shares[1]).max())
    return KolmogorovSmirnov(statistic, kolmogorov_tail(math.sqrt(n * m / (n + m)) * statistic), n, m)


def kolmogorov_tail(x: float) -> float:
    """Q(x) = 2 Σ_{j≥1} (−1)^{j−1} exp(−2 j² x²), the probability of a larger x; 1 at 0.

    Below 1 that converges slowly, and Jacobi's form of the same function is used:
    1 − √(2π)/x · Σ_{j≥1} exp(−(2j − 1)² π² / (8 x²)). Twenty terms are exact to rounding in either.
    """
    if x <= 0:
        return 1.0
    if x < 1:
        terms = [math.exp(-(((2 * j - 1) * math.pi) ** 2) / (8 * x * x)) for j in range(1, 21)]
        return 1 - math.sqrt(2 * math.pi) / x * sum(terms)
    return 2 * sum((-1) ** (j - 1) * math.exp(-2 * (j * x) ** 2) for j in range(1, 21))

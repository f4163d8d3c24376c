"""A test for each row of a table, and Benjamini-Hochberg over all rows.

A row compares something with its control on the same pictures, so its test is paired by picture: under no difference,
each picture's difference could as well have the other sign (`sign_flip`; Fisher 1935), or be another picture's
(`swapped_labels`, where pictures of a class are compared with others). Of m rows some look different by
chance alone; those that survive have a false discovery rate of at most q (Benjamini and Hochberg 1995, step-up).
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Final

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from mmn.counts import counted

Q: Final = 0.05  # share of false discoveries among what is marked
EXACT: Final = 12  # pictures up to which all sign patterns are counted, 4,096 of them
LEAST_FLIPPED: Final = 6  # pictures whose signs can make p less than Q: 2 / 2^6
N_FLIPS: Final = 9_999  # drawn beyond that: p is at least 1 in 10,000
_ROUNDING: Final = 1e-9  # relative: sums of the same numbers in another order are no more extreme


def benjamini_hochberg(p: Float[np.ndarray, " m"], q: float = Q) -> Bool[np.ndarray, " m"]:
    """Returns which of m tests survive: all up to the largest i with p_(i) ≤ i·q/m. NaN is no test and does not count.

    Valid where tests are independent or positively dependent, as rows that share pictures are.
    """
    is_test = ~np.isnan(p)
    ordered = np.sort(p[is_test])
    below = np.flatnonzero(ordered <= q * np.arange(1, len(ordered) + 1) / max(1, len(ordered)))
    if not len(below):
        return np.zeros(len(p), dtype=bool)
    return is_test & (np.where(is_test, p, 2.0) <= ordered[below[-1]])


def sign_flip(differences: Float[np.ndarray, " n"]) -> float:
    """Returns the two-sided p of a mean difference of 0, one difference for each picture; NaN values do not count.

    The share of sign patterns with a sum at least as far from 0: of all 2^n up to `EXACT` pictures, else of `N_FLIPS`
    random ones and the one observed, the same for every call. With n pictures p is at least 2 / 2^n: five cannot reach
    .05. NaN without any picture.
    """
    values = differences[~np.isnan(differences)]
    if not len(values):
        return float("nan")
    sums = np.abs(_signs(len(values)) @ values)
    observed = np.abs(values.sum()) - _ROUNDING * np.abs(values).sum()
    return float((sums >= observed).mean())


@lru_cache(maxsize=8)
def _signs(n: int) -> Float[np.ndarray, "patterns n"]:
    """Sign patterns of n differences; the first is the observed one, all plus."""
    if n <= EXACT:
        return np.array(list(itertools.product((1.0, -1.0), repeat=n)))
    drawn = np.random.default_rng(n).choice((1.0, -1.0), size=(N_FLIPS, n))
    return np.concatenate([np.ones((1, n)), drawn])


def swapped_labels(values: Float[np.ndarray, " n"], is_own: Bool[np.ndarray, " n"]) -> float:
    """Returns the two-sided p of own pictures' mean being that of the others, one value for each picture.

    Under no difference any pictures could as well be the own ones: the share of choices of as many at random whose mean
    differs as far from the rest's, of `N_FLIPS` and the one observed, the same for every call. NaN without both kinds.
    """
    n, n_own = len(values), int(is_own.sum())
    if n_own in (0, n):
        return float("nan")
    # the difference to the rest grows with the own mean, and is 0 where that is the mean of all
    drawn = np.abs(values[_choices(n, n_own)].mean(axis=1) - values.mean())
    observed = np.abs(values[is_own].mean() - values.mean())
    n_extreme = int((drawn >= observed - _ROUNDING * np.abs(values).max()).sum())
    return (1 + n_extreme) / (1 + N_FLIPS)


@lru_cache(maxsize=8)
def _choices(n: int, n_own: int) -> Int[np.ndarray, "choices own"]:
    """Random choices of `n_own` of n pictures, without replacement."""
    return np.random.default_rng([n, n_own]).random((N_FLIPS, n)).argpartition(n_own - 1, axis=1)[:, :n_own]


def marked(table: pd.DataFrame, p: Float[np.ndarray, " m"]) -> pd.DataFrame:
    """`table` with each row's `p`, and whether it survives among all of them (`is_discovery`)."""
    return table.assign(p=p, is_discovery=benjamini_hochberg(p))


def at_least_by_chance(found: Float[np.ndarray, " m"], expected: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Returns p of finding at least so much of something that is never negative, by Markov: expected / found, up to 1.

    Needs nothing but the mean under chance, so that it holds for means of draws that overlap, too; it is cautious.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(found > expected, expected / found, 1.0)


def survivors_line(table: pd.DataFrame, n: str = "") -> list[str]:
    """`survivors` as a line of a subtitle; none where nothing was tested.

    Args:
        table: of the tests.
        n: the column of their pictures, where they are `sign_flip`'s: few of them survive nothing, however far apart.
    """
    if "p" not in table or not table["p"].notna().any():
        return []
    n_too_few = int((table["p"].notna() & (table[n] < LEAST_FLIPPED)).sum()) if n else 0
    told = f", and {n_too_few} cannot, of fewer than {LEAST_FLIPPED} pictures" if n_too_few else ""
    return [survivors(table) + told]


def survivors(table: pd.DataFrame) -> str:
    """`31 of 144 comparisons with the control survive Benjamini–Hochberg at q = .05`, for a subtitle."""
    n = int(table["p"].notna().sum())
    of = f"{int(table['is_discovery'].sum())} of {counted(n, 'comparison')} with the control"
    return f"{of} {'survives' if n == 1 else 'survive'} Benjamini–Hochberg at q = .05"

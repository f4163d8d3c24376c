"""A ranking of units for a noun, whoever made it, and the numbers that need nothing else (OURS).

    recall      share of some units among the first k
    place       of a unit, as a share of all units: 0 is the first, 1 the last; 1/2 by chance
    agreement   Spearman's rank correlation with measured effects, over the units that were measured
    overlap     |A ∩ B| / k

Units that a ranking leaves out share the places behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Ranking:
    """Units, best first, as flat indices layer · m + i; of a model of `n_units`."""

    units: Int[np.ndarray, " n"]
    n_units: int

    @cached_property
    def places(self) -> Float[np.ndarray, " n_units"]:
        """Of every unit, from 1; the mean of the places behind for what is not ranked."""
        n = len(self.units)
        found = np.full(self.n_units, (n + 1 + self.n_units) / 2)
        found[self.units] = np.arange(1, n + 1)
        return found

    def recall(self, units: Sequence[int], k: int) -> float:
        """The share of `units` among the first k; NaN of none."""
        return float(np.isin(units, self.units[:k]).mean()) if len(units) else float("nan")

    def recall_from_end(self, units: Sequence[int], k: int) -> float:
        """The share of `units` among the last k of what is ranked; NaN of none."""
        return float(np.isin(units, self.units[-k:]).mean()) if len(units) else float("nan")

    def place(self, unit: int) -> float:
        """Where a unit stands: 0 first, 1 last."""
        return float((self.places[unit] - 1) / (self.n_units - 1))

    def agreement(self, units: Int[np.ndarray, " n"], effects: Float[np.ndarray, " n"]) -> float:
        """Spearman's rank correlation of the ranking with the effects of some units; NaN where either is constant."""
        return correlation(-self.places[units], effects)

    def overlap(self, other: Ranking, k: int) -> float:
        """The share of the first k that both have."""
        return len(np.intersect1d(self.units[:k], other.units[:k])) / k


def correlation(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> float:
    """Spearman's: Pearson's of ranks, ties at their mean rank."""
    a, b = average_ranks(first), average_ranks(second)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else float("nan")


def average_ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Ranks from 1, ascending; equal values get the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[inverse]

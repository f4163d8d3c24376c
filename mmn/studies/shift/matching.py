"""Which concept of one model is which of the other's? The one-to-one assignment of least cost (Kuhn 1955).

Shortest augmenting paths with potentials, O(n³): a few dozen concepts take milliseconds, and scipy is not needed.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def assign(cost: Float[np.ndarray, "n m"]) -> Int[np.ndarray, " n"]:
    """For each row its own column, so that the sum of costs is least; n rows of at most as many columns."""
    n, m = cost.shape
    assert n <= m, f"{n} rows cannot each have one of {m} columns"
    of_column = np.full(m, -1)
    rows, columns = np.zeros(n), np.zeros(m)  # potentials: cost − rows − columns is never negative
    for row in range(n):
        _augment(cost, row, of_column, rows, columns)
    found = np.empty(n, dtype=int)
    assigned = np.flatnonzero(of_column >= 0)
    found[of_column[assigned]] = assigned
    return found


def _augment(
    cost: Float[np.ndarray, "n m"],
    row: int,
    of_column: Int[np.ndarray, " m"],
    rows: Float[np.ndarray, " n"],
    columns: Float[np.ndarray, " m"],
) -> None:
    """Gives `row` a column along the shortest path of reassignments; potentials follow."""
    m = cost.shape[1]
    distance, before, is_done = np.full(m, np.inf), np.full(m, -1), np.zeros(m, dtype=bool)
    at, column, reached = row, -1, 0.0
    while True:
        through = reached + cost[at] - rows[at] - columns
        is_nearer = ~is_done & (through < distance)
        distance[is_nearer], before[is_nearer] = through[is_nearer], column
        column = int(np.where(is_done, np.inf, distance).argmin())
        reached, is_done[column] = float(distance[column]), True
        if of_column[column] < 0:
            break
        at = int(of_column[column])
    rows[row] += reached
    for other in np.flatnonzero(is_done):
        columns[other] -= reached - distance[other]
        if of_column[other] >= 0:
            rows[of_column[other]] += reached - distance[other]
    while column >= 0:
        earlier = int(before[column])
        of_column[column] = of_column[earlier] if earlier >= 0 else row
        column = earlier

"""The k best tokens of each row of scores: the last step of decoding units and of both lenses.

On a CPU `torch.topk` takes as long as the product that made the scores, so there a bar that surely k columns reach is
found first, from the maxima of groups of columns; only what reaches it, a dozen or two of a row, is put in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

MIN_GROUPS: Final = 64  # of columns; more make a higher bar, fewer a cheaper one
CROWD: Final = 16  # times k columns that reach the bar are too many


@dataclass(frozen=True)
class TopTokens:
    """The k best tokens of n vectors, by falling score, ties by rising id."""

    token_ids: Int[Tensor, "n k"]
    scores: Float[Tensor, "n k"]


def top_tokens(scores: Float[Tensor, "n width"], k: int) -> TopTokens:
    """The k highest scores of each row and their columns; equal scores by rising column, NaN above all."""
    assert k < scores.shape[1], f"{k} tokens of {scores.shape[1]}"
    top = _over_a_bar(scores.numpy(), k) if scores.device.type == "cpu" and len(scores) else None
    return top or _by_topk(scores, k)


def joined(parts: Sequence[TopTokens]) -> TopTokens:
    """The rows of all parts, one after the other; of one part itself."""
    if len(parts) == 1:
        return parts[0]
    return TopTokens(torch.cat([part.token_ids for part in parts]), torch.cat([part.scores for part in parts]))


def _over_a_bar(scores: Float[np.ndarray, "n width"], k: int) -> TopTokens | None:
    """None where it does not pay: a row with many equals at its bar, or with NaN."""
    n, width = scores.shape
    is_over = scores >= _bar(scores, k)[:, None]
    if np.isnan(scores.min()) or np.count_nonzero(is_over) > n * CROWD * k:
        return None
    places = np.flatnonzero(is_over)
    rows = places // width
    n_over = np.bincount(rows, minlength=n)
    if n_over.max() > CROWD * k:
        return None
    slots = np.arange(len(rows)) - np.repeat(n_over.cumsum() - n_over, n_over)
    few = np.full((n, n_over.max()), np.inf, dtype=scores.dtype)  # negated, so that the best come first
    few[rows, slots] = -scores.ravel()[places]
    order = few.argsort(axis=1, kind="stable")[:, :k]
    ids = np.zeros(few.shape, dtype=np.int64)
    ids[rows, slots] = places - rows * width
    ids, best = np.take_along_axis(ids, order, axis=1), -np.take_along_axis(few, order, axis=1)
    return TopTokens(torch.from_numpy(ids), torch.from_numpy(best))


def _bar(scores: Float[np.ndarray, "n width"], k: int) -> Float[np.ndarray, " n"]:
    """For each row a score that at least k of its columns reach: the k-th highest maximum of groups of columns."""
    n, width = scores.shape
    n_groups = min(width, max(MIN_GROUPS, 4 * k))
    depth = width // n_groups  # the columns left over are in no group: the bar is a little lower than it could be
    maxima = scores[:, : depth * n_groups].reshape(n, depth, n_groups).max(axis=1)
    return np.partition(maxima, n_groups - k, axis=1)[:, n_groups - k]


def _by_topk(scores: Float[Tensor, "n width"], k: int) -> TopTokens:
    """`torch.topk` chooses and orders equals as it likes. Inside the first k they are put in order; where they straddle
    the k-th place, that row is sorted whole. Both are rare.
    """
    best, ids = scores.topk(k + 1, dim=1)
    equals_next = best[:, :-1] == best[:, 1:]
    best, ids = best[:, :k], ids[:, :k]
    if equals_next.any():
        ids, by_id = ids.sort(dim=1)
        best, by_score = best.gather(1, by_id).sort(dim=1, descending=True, stable=True)
        ids = ids.gather(1, by_score)
        for row in equals_next[:, -1].nonzero()[:, 0].tolist():
            ids[row] = scores[row].sort(descending=True, stable=True).indices[:k]
    return TopTokens(ids, best)

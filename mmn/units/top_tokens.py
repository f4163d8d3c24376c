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
from jaxtyping import Float, Int, UInt32
from torch import Tensor

MIN_GROUPS: Final = 64  # of columns; more make a higher bar, fewer a cheaper one
CROWD: Final = 16  # times k columns that reach the bar are too many
KEY_BITS: Final = 32  # of a sorting key that are not its score: row and column


@dataclass(frozen=True)
class TopTokens:
    """The k best tokens of n vectors, by falling score, ties by rising id."""

    token_ids: Int[Tensor, "n k"]
    scores: Float[Tensor, "n k"]


def top_tokens(scores: Float[Tensor, "n width"], k: int) -> TopTokens:
    """The k highest scores of each row and their columns; equal scores by rising column, NaN above all."""
    assert k < scores.shape[1], f"{k} tokens of {scores.shape[1]}"
    pays = scores.device.type == "cpu" and scores.dtype == torch.float32 and scores.shape[0] > 0
    top = _over_a_bar(scores, k) if pays else None
    return top or _by_topk(scores, k)


def joined(parts: Sequence[TopTokens]) -> TopTokens:
    """The rows of all parts, one after the other; of one part itself."""
    if len(parts) == 1:
        return parts[0]
    return TopTokens(torch.cat([part.token_ids for part in parts]), torch.cat([part.scores for part in parts]))


def _over_a_bar(scores: Float[Tensor, "n width"], k: int) -> TopTokens | None:
    """None where it does not pay: with NaN, many equals at a row's bar, or more columns than a key can name."""
    n, width = scores.shape
    column_bits = (width - 1).bit_length()
    bar = _bar(scores, k)
    if bar is None or (n - 1).bit_length() + column_bits > KEY_BITS:
        return None
    values = scores.numpy()
    is_over = values >= bar[:, None]
    if np.count_nonzero(is_over) > n * CROWD * k:
        return None
    places = np.flatnonzero(is_over)
    rows, columns = np.divmod(places, width)
    keys = (rows.astype(np.uint64) << (32 + column_bits)) | columns.astype(np.uint64)
    keys |= _falling(values.ravel()[places]).astype(np.uint64) << column_bits
    keys.sort()  # by row, falling score, rising column
    firsts = np.searchsorted(rows, np.arange(n))  # of each row
    ids = (keys[firsts[:, None] + np.arange(k)] & ((1 << column_bits) - 1)).astype(np.int64)
    best = values.ravel()[ids + np.arange(0, n * width, width)[:, None]]
    return TopTokens(torch.from_numpy(ids), torch.from_numpy(best))


def _falling(values: Float[np.ndarray, " n"]) -> UInt32[np.ndarray, " n"]:
    """Whole numbers in the opposite order of the floats, equal where these are: an IEEE float's bits, all flipped, but
    those behind the sign of a negative one.
    """
    bits = (values + 0.0).view(np.int32)  # -0.0 becomes 0.0
    return np.where(bits < 0, bits, ~(bits | np.int32(-(2**31)))).view(np.uint32)


def _bar(scores: Float[Tensor, "n width"], k: int) -> Float[np.ndarray, " n"] | None:
    """For each row a score that at least k of its columns reach: the k-th highest maximum of groups of columns. None
    where a score is NaN.
    """
    n, width = scores.shape
    n_groups = min(width, max(MIN_GROUPS, 4 * k))
    depth, n_over = divmod(width, n_groups)
    maxima = scores[:, : width - n_over].view(n, depth, n_groups).amax(dim=1)
    if n_over:
        maxima[:, :n_over] = torch.maximum(maxima[:, :n_over], scores[:, width - n_over :])
    best = np.partition(maxima.numpy(), n_groups - k, axis=1)[:, n_groups - k :]  # the k-th first; NaN is the highest
    return None if np.isnan(best).any() else best[:, 0]


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

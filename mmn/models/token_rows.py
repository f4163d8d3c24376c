"""The rows of an unembedding that are tokens: their mean, and their lengths.

    mean = (1 / V) Σ_t W_U[t]       lengths[t] = ‖W_U[t]‖       over the V tokens that the tokenizer knows

OURS. A logit is only defined up to a constant over tokens: softmax is the same for W_U[t] and W_U[t] − mean. Rows that
pad the matrix, and ids that the tokenizer does not know, are no tokens and count for nothing. The matrix is read in
parts, once for each model (`Model.token_rows`); no intervention of ours changes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

PART_BYTES: Final = 1 << 26  # of the matrix upcast to float32 at a time


@dataclass(frozen=True)
class TokenRows:
    """What centred and cosine-normalised rows of a matrix need; float32, on its device.

    `mean` is over tokens. `lengths` has one number for each row up to the last token; a row of zeros has length 1, so
    that its cosine is 0.
    """

    mean: Float[Tensor, " d"]
    lengths: Float[Tensor, " V"]


def known_ids(tokenizer: Any) -> Int[np.ndarray, " n"]:
    """The ids that a tokenizer knows, ascending."""
    return np.unique(np.fromiter(tokenizer.get_vocab().values(), dtype=np.int64))


@torch.no_grad()
def token_rows(
    matrix: Float[Tensor, "padded d"], ids: Int[np.ndarray, " n"], part_bytes: int = PART_BYTES
) -> TokenRows:
    """The mean and the lengths of the rows of `matrix` that are tokens.

    Args:
        matrix: W_U, in any float dtype.
        ids: of tokens, ascending; those beyond the matrix are left out.
        part_bytes: of float32 rows held at a time.
    """
    is_token = torch.zeros(len(matrix), dtype=torch.bool)
    is_token[torch.from_numpy(ids[ids < len(matrix)])] = True
    n_rows = int(is_token.nonzero()[-1]) + 1
    size = max(1, part_bytes // (4 * matrix.shape[1]))
    total, lengths = torch.zeros(matrix.shape[1], dtype=torch.float64), []
    for first in range(0, n_rows, size):
        part = matrix[first : min(first + size, n_rows)].float()
        told = is_token[first : first + len(part)].to(part.device)
        total += part[told].sum(0).cpu().double()
        lengths.append(part.norm(dim=1))
    length = torch.cat(lengths)
    mean = (total / is_token.sum()).float().to(matrix.device)
    return TokenRows(mean, length.where(length > 0, 1.0))

"""How much of a logit its terms may miss: what the number format explains, and no more (OURS).

A residual beyond that means that a matrix, a norm or a position is not what the adapter takes it for: the scores are
then no parts of the logit, whatever they look like.

The limits stand well above what was measured (docs/methods.md): rounding to the format at every layer, and at the
logit itself. Relative to max(|logit|, 1), as the residual is told everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import torch

from mmn.columns import as_numpy

# Measured on every tiny family at 3 and 32 layers and on the specimen, over said words and words far from being said:
# at most 6e-7 in float32, 2e-3 in float16 and 2e-2 in bfloat16, which has an eighth of float16's precision.
LIMITS: Final = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 8e-2}


def limit_of(dtype: torch.dtype) -> float:
    """The largest |residual| / max(|logit|, 1) that rounding to `dtype` explains."""
    return LIMITS.get(dtype, LIMITS[torch.float32])


def relative(concepts: pa.Table) -> np.ndarray:
    """|residual| / max(|logit|, 1) of each row of a `concept` table; NaN where either is."""
    logit, residual = (as_numpy(concepts[name], np.nan) for name in ("logit", "residual"))
    return np.abs(residual) / np.maximum(np.abs(logit), 1)


def inexact(concepts: pa.Table, n: int, dtype: torch.dtype) -> dict[int, float]:
    """Which of n concepts miss more than `dtype` explains in any of their variants, and by how much at most.

    Args:
        concepts: the n concepts' rows, in their order, of one variant after the other.
        n: how many there are.
        dtype: what the model computes in.
    """
    worst = relative(concepts).reshape(-1, n).max(axis=0)  # NaN wins
    return {int(index): float(worst[index]) for index in np.flatnonzero(~(worst <= limit_of(dtype)))}


def sentence(nouns: Sequence[str], largest: float, dtype: torch.dtype) -> str:
    """What is wrong with the logits of these words."""
    return (
        f"the terms of the logit of {', '.join(map(repr, nouns))} miss {largest:.2g} of it, and "
        f"{str(dtype).removeprefix('torch.')} explains {limit_of(dtype):g}"
    )

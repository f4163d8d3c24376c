"""Directions projected out of the residual stream after one layer, at the picture's tokens.

    h ← h − α · max(h·v, 0) / (v·v) · v       one direction v after the other

ProjectAway, Jiang et al. 2025 (arXiv 2410.02762; their code): after layer l_I, at every image token, while the prompt
is read; tokens that point away from v (h·v ≤ 0) stay as they are. No weight is touched, and each row of a batch has
directions of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmn.models.model import Model
from mmn.reading.hooks.residual import stream_of


@contextmanager
def projected_away(
    model: Model,
    layer: int,
    directions: Float[Tensor, "rows n d"],
    is_image: Bool[Tensor, " prompt"],
    alpha: float,
) -> Iterator[None]:
    """Takes each row's directions out of the residual stream after `layer`, at the prompt's image tokens.

    In every pass that holds the whole prompt; a generation's later passes are left alone. A direction of zeros takes
    nothing away: rows with fewer directions are filled up with them, and a row of zeros computes what the plain model
    does, bit for bit.

    Args:
        model: Its lock is held inside the block.
        layer: From 0.
        directions: Of each row of the batch, in any length.
        is_image: Which positions of the prompt hold the picture, the same in all rows.
        alpha: How much is taken away; 1 leaves nothing of the direction where it was positive.

    Raises:
        AssertionError: another number of rows, a pass of a part of the prompt, or a hook that never fired.
    """
    n_edited = 0

    def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        nonlocal n_edited
        states = stream_of(output)
        n_rows, n_positions = states.shape[:2]
        assert n_rows == len(directions), f"{n_rows} rows in a pass, directions of {len(directions)}"
        if n_positions == 1:
            return None
        assert n_positions >= len(is_image), f"a pass of {n_positions} positions, of a prompt of {len(is_image)}"
        at = is_image.nonzero()[:, 0].to(states.device)
        n_edited += 1
        changed = states.index_copy(1, at, without(states[:, at], directions.to(states.device), alpha))
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    with model.lock:
        handle = model.anatomy.layers[layer].register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()
    assert n_edited > 0, "no pass over the whole prompt ran inside the block, or the layer's hook never fired"


def without(
    states: Float[Tensor, "rows tokens d"], directions: Float[Tensor, "rows n d"], alpha: float
) -> Float[Tensor, "rows tokens d"]:
    """H − α · max(h·v, 0) / (v·v) · v, for each direction v of the row in turn; in float32, handed back as it came."""
    left = states.float()
    for v in directions.float().unbind(1):
        square = (v * v).sum(-1)
        along = (left @ v[:, :, None]) / torch.where(square > 0, square, 1.0)[:, None, None]
        left = left - alpha * along.clamp(min=0) * v[:, None]
    return left.to(states.dtype)

"""Units that are set to a value of their own, as their mean over pictures, instead of being zeroed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmn.models.model import Model
from mmn.reading.hooks.intervene import _borrowed


@contextmanager
def replace_units(model: Model, mask: Bool[Tensor, "rows L m"], values: Float[Tensor, "L m"]) -> Iterator[None]:
    """Sets a of each row's masked units to `values` at every position of the forward passes inside the block.

    At 0 it is `ablate`. A row without masked units computes what the plain model does.

    Args:
        model: its lock is held inside the block; of one FFN in each layer.
        mask: which units of which row; every pass inside the block has that many rows.
        values: of each unit, the same in all rows.

    Raises:
        AssertionError: another number of rows, or a hook that never fired.
    """
    layers = mask.any(2).any(0).nonzero()[:, 0].tolist()

    def set_to(layer: int) -> Callable[..., Any]:
        chosen, value = mask[:, None, layer], values[layer].to(model.dtype)

        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            rows = args[0].reshape(len(mask), -1, args[0].shape[-1])
            return (torch.where(chosen, value, rows).reshape(args[0].shape), *args[1:])

        return hook

    with _borrowed(model, len(mask)) as borrowed:
        for layer in layers:
            module = model.anatomy.ffn_outs[layer]
            borrowed.add(module.register_forward_pre_hook(borrowed.counted(layer, set_to(layer))))
        yield

"""The residual stream behind each decoder layer: read at every position, and written over at one.

`capture_residual` and `write_residual` are borrowed with `with`, as all hooks here. Both act on what a layer hands to
the next one, before any final norm, so that what the first read can be given to the second at any layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmn.models.model import Model
from mmn.reading.hooks.lending import lent


@contextmanager
def capture_residual(model: Model) -> Iterator[list[Float[Tensor, "batch positions d"]]]:
    """Records the residual stream after every layer during the one forward pass inside the block.

    Args:
        model: Its lock is held inside the block.

    Yields:
        A list that holds one tensor for each layer, in order, once the pass has run.

    Raises:
        AssertionError: not exactly one forward pass ran, or a hook never fired.
    """
    after: list[Tensor] = []

    def keep(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        after.append(stream_of(output).detach().to(model.device))

    with lent(model) as handles:
        handles += [layer.register_forward_hook(keep) for layer in model.anatomy.layers]
        yield after
    assert len(after) == len(handles), f"{len(after)} layers were seen of {len(handles)}: not one pass, or a dead hook"


@contextmanager
def read_after(model: Model, layer: int) -> Iterator[list[Float[Tensor, "rows positions d"]]]:
    """Collects the residual stream after `layer` (from 0), before any final norm, of every pass inside the block.

    Raises:
        AssertionError: no pass ran inside the block.
    """
    seen: list[Tensor] = []

    def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        seen.append(stream_of(output).detach().to(model.device))

    with model.lock:
        handle = model.anatomy.layers[layer].register_forward_hook(hook)
        try:
            yield seen
        finally:
            handle.remove()
    assert seen, "no forward pass ran inside the block, or the layer's hook never fired"


@contextmanager
def write_residual(model: Model, layer: int, position: int, states: Float[Tensor, "rows d"]) -> Iterator[None]:
    """Writes `states[r]` over the residual stream of row r at `position`, behind `layer`, in the passes of the block.

    What the layer itself made there is gone; other positions and earlier layers stay as they are, bit for bit.

    Args:
        model: Its lock is held inside the block.
        layer: behind which it is written, from 0; behind the last one only the final norm is left.
        position: from 0, the same in all rows.
        states: one for each row of every pass inside the block.

    Raises:
        AssertionError: another number of rows, a pass that ends before the position, or a hook that never fired.
    """
    n_fired = 0

    def write(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        nonlocal n_fired
        n_fired += 1
        stream = stream_of(output)
        assert len(stream) == len(states), f"{len(states)} states for a pass of {len(stream)} rows"
        assert stream.shape[1] > position, f"position {position} in a pass of {stream.shape[1]}"
        written = stream.clone()
        written[:, position] = states.to(stream)
        return (written, *output[1:]) if isinstance(output, tuple) else written

    with model.lock:
        handle = model.anatomy.layers[layer].register_forward_hook(write)
        try:
            yield
        finally:
            handle.remove()
    assert n_fired > 0, f"no pass went through layer {layer} inside the block"


def stream_of(output: Any) -> Float[Tensor, "batch positions d"]:
    """What a layer hands on; some hand out more beside it."""
    stream = output[0] if isinstance(output, tuple) else output
    assert isinstance(stream, torch.Tensor), f"a layer hands out a {type(stream).__name__}, no residual stream"
    assert stream.ndim == 3, f"a layer hands out {tuple(stream.shape)}, no residual stream"
    return stream

"""What every FFN reads and what every layer hands on, recorded in one forward pass; and how many passes ran.

    reads    the input of a layer's FFN, behind its norm: what the rows of W_gate and W_up are multiplied with (d)
    streams  the residual stream behind a layer (d)

Both at every position. With gradients on, streams are differentiable: the graph starts at the first layer's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmn.models.model import Model
from mmn.reading.hooks.capture import first_given


@dataclass
class Streams:
    """Of one forward pass, by layer."""

    reads: dict[int, Float[Tensor, "batch positions d"]] = field(default_factory=dict)
    streams: dict[int, Float[Tensor, "batch positions d"]] = field(default_factory=dict)


@contextmanager
def capture_streams(model: Model, readers: Mapping[int, nn.Module]) -> Iterator[Streams]:
    """Records the one forward pass inside the block.

    Args:
        model: its lock is held inside the block.
        readers: by layer, a matrix that reads the FFN's input: W_gate.

    Raises:
        AssertionError: a hook never fired.
    """
    found, handles = Streams(), []

    def read(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found.reads[layer] = first_given(args, kwargs).detach()

        return hook

    def hand_on(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            stream = output[0] if isinstance(output, tuple) else output
            if torch.is_grad_enabled() and not stream.requires_grad:
                stream.requires_grad_(True)
            found.streams[layer] = stream

        return hook

    with model.lock:
        try:
            for layer, reader in readers.items():
                handles.append(reader.register_forward_pre_hook(read(layer), with_kwargs=True))
                handles.append(model.anatomy.layers[layer].register_forward_hook(hand_on(layer)))
            yield found
        finally:
            for handle in handles:
                handle.remove()
    assert set(found.reads) == set(found.streams) == set(readers), "a hook never fired, or no pass ran"


@dataclass
class Passes:
    """How much of the decoder was computed: 1 is one row through all of its layers, forward or backward."""

    n_layers: int
    n_forward: int = 0  # rows of layers
    n_backward: int = 0  # rows that a gradient went through

    @property
    def forward(self) -> float:
        return self.n_forward / self.n_layers

    @property
    def backward(self) -> float:
        return float(self.n_backward)


@contextmanager
def count_passes(model: Model) -> Iterator[Passes]:
    """Counts the rows that go through the decoder inside the block, layer by layer, and back through its last layer.

    A row whose gradient is zero at all positions is not asked for anything, and does not count.
    """
    passes, handles = Passes(model.anatomy.n_layers), []

    def forward(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        passes.n_forward += len(first_given(args, kwargs))

    def backward(gradient: Tensor) -> None:
        passes.n_backward += int(gradient.flatten(1).any(1).sum())

    def behind(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        stream = output[0] if isinstance(output, tuple) else output
        if stream.requires_grad:
            stream.register_hook(backward)

    with model.lock:
        try:
            for layer in model.anatomy.layers:
                handles.append(layer.register_forward_pre_hook(forward, with_kwargs=True))
            handles.append(model.anatomy.layers[-1].register_forward_hook(behind))
            yield passes
        finally:
            for handle in handles:
                handle.remove()

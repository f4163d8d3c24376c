"""What every FFN reads and what every layer hands on, recorded in one forward pass; and how many passes ran.

    reads    the input of a layer's FFN, behind its norm: what the rows of W_gate and W_up are multiplied with (d)
    streams  the residual stream behind a layer (d)

Both at every position. With gradients on, streams are differentiable: the graph starts at the first layer's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmn.models.model import Model
from mmn.reading.hooks.capture import first_given
from mmn.reading.hooks.lending import lent
from mmn.reading.hooks.replay import handed_on
from mmn.reading.hooks.residual import stream_of


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
    found = Streams()

    def read(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found.reads[layer] = first_given(args, kwargs).detach()

        return hook

    def hand_on(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            stream = stream_of(output)
            if torch.is_grad_enabled() and not stream.requires_grad:
                stream.requires_grad_(True)
            found.streams[layer] = stream

        return hook

    with lent(model) as handles:
        for layer, reader in readers.items():
            handles.append(reader.register_forward_pre_hook(read(layer), with_kwargs=True))
            handles.append(model.anatomy.layers[layer].register_forward_hook(hand_on(layer)))
        yield found
    assert set(found.reads) == set(found.streams) == set(readers), "a hook never fired, or no pass ran"


@dataclass
class Passes:
    """How much of the decoder was computed: 1 is a whole row, all its positions through all layers, one way."""

    n_layers: int
    n_positions: int  # of a whole row
    n_forward: int = 0  # positions of layers
    n_backward: int = 0  # rows that a gradient went through

    @property
    def forward(self) -> float:
        return self.n_forward / self.n_layers / self.n_positions

    @property
    def backward(self) -> float:
        return float(self.n_backward)


@contextmanager
def count_passes(model: Model, n_positions: int) -> Iterator[Passes]:
    """Counts what goes through the decoder inside the block, layer by layer, and back through its last layer.

    A row whose gradient is zero at all positions is not asked for anything, and does not count.
    """
    passes = Passes(model.anatomy.n_layers, n_positions)

    def forward(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stream = first_given(args, kwargs)
        passes.n_forward += stream.shape[0] * stream.shape[1]

    def backward(gradient: Tensor) -> None:
        passes.n_backward += int(gradient.flatten(1).any(1).sum())

    def behind(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        stream = stream_of(output)
        if stream.requires_grad:
            stream.register_hook(backward)

    with lent(model) as handles:
        handles += [one.register_forward_pre_hook(forward, with_kwargs=True) for one in model.anatomy.layers]
        handles.append(model.anatomy.layers[-1].register_forward_hook(behind))
        yield passes


@dataclass
class Replayed:
    """What each layer was given in one pass over one row, to be gone through again by many rows of their own changes.

    The vision tower, the prompt's embeddings and the layers before a change are computed once.
    """

    model: Model
    given: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)

    def again(self, n_rows: int, first: int = 0) -> Float[Tensor, "rows positions d"]:
        """The stream before the final norm, of so many rows that begin alike at the input of layer `first`."""
        args, kwargs = self.given[first]
        stream = first_given(args, kwargs).expand(n_rows, -1, -1)
        for layer in range(first, self.model.anatomy.n_layers):
            stream = handed_on(self.model.anatomy.layers[layer], *self.given[layer], stream)
        return stream

    def without(self, layer: int, units: Sequence[int]) -> Float[Tensor, "rows positions d"]:
        """`again` with another unit of one layer zeroed at every position of each row; of -1 none is."""

        def zero(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            a = args[0].clone()
            for row, unit in enumerate(units):
                if unit >= 0:
                    a[row, :, unit] = 0
            return (a, *args[1:])

        with lent(self.model) as handles:
            handles.append(self.model.anatomy.ffn_outs[layer].register_forward_pre_hook(zero))
            return self.again(len(units), layer)


@torch.no_grad()
def replay(model: Model, inputs: Mapping[str, Any]) -> Replayed:
    """Runs one row, and keeps what each layer was given.

    Raises:
        AssertionError: a layer is not given one row of positions, or hands on something else when it is asked again.
    """
    replayed, final = _kept(model, lambda: model.module(**inputs, use_cache=False))
    again = replayed.again(2)
    assert torch.allclose(again[1], final[0], atol=1e-4, rtol=1e-3), "a layer asked again says otherwise"
    return replayed


@torch.no_grad()
def replay_now(replayed: Replayed) -> Replayed:
    """The same row from the first layer on, with what each layer is given by the weights as they are now."""
    return _kept(replayed.model, lambda: replayed.again(1))[0]


def _kept(model: Model, run: Callable[[], object]) -> tuple[Replayed, Float[Tensor, "1 positions d"]]:
    """What each layer was given in one pass, and the stream before the final norm."""
    replayed = Replayed(model)
    final: list[Tensor] = []

    def note(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            replayed.given[layer] = (args, dict(kwargs))

        return hook

    def note_last(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        final.append(stream_of(output))

    with lent(model) as handles:
        for layer, module in enumerate(model.anatomy.layers):
            handles.append(module.register_forward_pre_hook(note(layer), with_kwargs=True))
        handles.append(model.anatomy.layers[-1].register_forward_hook(note_last))
        run()
    assert len(final) == 1, f"{len(final)} passes"
    return replayed, final[0]

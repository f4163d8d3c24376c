"""One token's way through the decoder, gone again from any layer on by many rows that differ there.

While a caption is read token by token with a KV cache, each layer is given one position's residual stream and the keys
and values of what came before. What it was given is kept for the latest pass; `Recorded.again` calls the layers with it
once more, for n rows at once. So a change at one position costs the layers behind it at that position alone: nothing
before it is computed again, and its rows share their past.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmn.models.model import Model
from mmn.reading.hooks.capture import Captured, first_given, watch_mixture
from mmn.reading.hooks.lending import lent
from mmn.reading.hooks.residual import stream_of

Change = Callable[[Float[Tensor, "n width"]], Float[Tensor, "n width"]]


@dataclass(frozen=True)
class Call:
    """What one layer was given, with the cache as it was before the layer added to it."""

    number: int
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def stream(self) -> Float[Tensor, "1 positions d"]:
        return first_given(self.args, self.kwargs)

    @property
    def is_repeatable(self) -> bool:
        """Whether it was of one position of one row, and its past is keys and values alone."""
        return tuple(self.stream.shape[:2]) == (1, 1) and len(self.past) == 1 and _holds_keys(self.past[0], self.number)

    @property
    def past(self) -> list[Any]:
        """The caches that it was given."""
        given = [*self.args, *self.kwargs.values()]
        return [value for value in given if hasattr(value, "update") and hasattr(value, "reset")]

    def again(self, stream: Float[Tensor, "n 1 d"]) -> Float[Tensor, "n 1 d"]:
        """The layer's output for n rows of one past."""
        args = [_widened(value, self.number, len(stream)) for value in self.args]
        kwargs = {name: _widened(value, self.number, len(stream)) for name, value in self.kwargs.items()}
        return handed_on(self.module, tuple(args), kwargs, stream)


def handed_on(
    layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], stream: Float[Tensor, "n positions d"]
) -> Float[Tensor, "n positions d"]:
    """What a layer hands on when it is called once more with another stream, all else as it was given."""
    output = layer(stream, *args[1:], **kwargs) if args else layer(**kwargs | {"hidden_states": stream})
    return stream_of(output)


@dataclass
class Recorded:
    """The latest pass, by layer; `again` does not change it."""

    model: Model
    calls: dict[int, Call] = field(default_factory=dict)
    is_open: bool = True

    @property
    def is_repeatable(self) -> bool:
        return len(self.calls) == self.model.anatomy.n_layers and all(one.is_repeatable for one in self.calls.values())

    def again(
        self,
        first: int,
        n_rows: int,
        into: nn.Module,
        change: Change,
        watched: dict[int, Tensor] | None = None,
        units: Int[Tensor, "L w"] | None = None,
    ) -> Float[Tensor, "n d"]:
        """The residual stream before the final norm, of n rows whose input of one module was changed.

        Args:
            first: the layer to begin with, at whose input the rows are alike.
            n_rows: n.
            into: a module of that layer; what it is given is changed.
            change: of what it is given at the one position.
            watched: receives a of each layer from `first` on, a row each.
            units: in a mixture of experts whose a that is, -1 behind the last; it is 0 in a row that does not go
                through the unit's expert.
        """
        anatomy = self.model.anatomy
        with lent(self.model) as handles:
            handles.append(into.register_forward_pre_hook(_changing(change, n_rows, anatomy.home)))
            layers = range(first, anatomy.n_layers)
            captured = Captured(anatomy.n_layers, n_rows=n_rows, mixtures=anatomy.mixtures, home=anatomy.home)
            if watched is not None:
                handles += [hook for layer in layers for hook in self._watch(layer, n_rows, captured, watched)]
            final = self.onward(first, n_rows)
        if watched is not None and units is not None:
            watched |= {layer: captured.of_units(layer, units[layer]) for layer in layers}
        return final

    def _watch(self, layer: int, n_rows: int, captured: Captured, watched: dict[int, Tensor]) -> list[Any]:
        anatomy = self.model.anatomy
        if anatomy.mixtures:
            return watch_mixture(captured, layer, anatomy.layers[layer], anatomy.mixtures[layer])
        note = _noting(watched, layer, n_rows, anatomy.home)
        return [anatomy.ffn_outs[layer].register_forward_pre_hook(note)]

    def onward(self, first: int, n_rows: int) -> Float[Tensor, "n d"]:
        """The residual stream before the final norm, of n rows that are alike at the input of layer `first`."""
        self.is_open = False
        try:
            stream = self.calls[first].stream.expand(n_rows, -1, -1)
            for layer in range(first, self.model.anatomy.n_layers):
                stream = self.calls[layer].again(stream)
        finally:
            self.is_open = True
        return stream[:, -1].to(self.model.anatomy.home)


@contextmanager
def record_layers(model: Model) -> Iterator[Recorded]:
    """Keeps what each layer is given in the latest forward pass inside the block, of one row. Holds the model's lock.

    Raises:
        AssertionError: no forward pass ran.
    """
    recorded = Recorded(model)

    def note(number: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if recorded.is_open:
                kept = {name: _as_it_is(value) for name, value in kwargs.items()}
                recorded.calls[number] = Call(number, module, tuple(map(_as_it_is, args)), kept)

        return hook

    with lent(model) as handles:
        handles += [
            layer.register_forward_pre_hook(note(number), with_kwargs=True)
            for number, layer in enumerate(model.anatomy.layers)
        ]
        yield recorded
    assert recorded.calls, "no forward pass ran inside the block, or no layer's hook fired"


def zero_one_each(units: Int[Tensor, " n"]) -> Change:
    """Sets another unit of each row to 0; a row whose unit is -1 keeps all."""
    rows = (units >= 0).nonzero()[:, 0]

    def change(a: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
        changed = a.clone()
        changed[rows, units[rows]] = 0
        return changed

    return change


def mean_of_others_each(heads: Int[Tensor, " n"], n_heads: int) -> Change:
    """Puts the mean of the other heads' output in the place of another head's in each row; -1 leaves all."""
    rows = (heads >= 0).nonzero()[:, 0]

    def change(output: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
        by_head = output.reshape(len(output), n_heads, -1)
        own = by_head[rows, heads[rows]]
        changed = by_head.clone()
        changed[rows, heads[rows]] = (by_head[rows].sum(1) - own) / (n_heads - 1)
        return changed.reshape(output.shape)

    return change


def _changing(change: Change, n_rows: int, home: torch.device) -> Callable[..., Any]:
    def hook(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        changed = change(args[0].reshape(n_rows, -1).to(home))
        return (changed.reshape(args[0].shape).to(args[0].device), *args[1:])

    return hook


def _noting(watched: dict[int, Tensor], layer: int, n_rows: int, home: torch.device) -> Callable[..., None]:
    def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
        watched[layer] = args[0].reshape(n_rows, -1).to(home)

    return hook


def past_is_keys(model: Model) -> bool:
    """Whether each layer's past is to be keys and values alone, and no indexer's or prompt's keys beside them."""
    from transformers import DynamicCache

    return all(map(_is_keys, DynamicCache(config=model.module.config.get_text_config(decoder=True)).layers))


def _holds_keys(value: Any, number: int) -> bool:
    """Whether it is a cache whose layer of that number holds keys and values, which grow by concatenation."""
    layers = getattr(value, "layers", None)
    return isinstance(layers, list) and len(layers) > number and _is_keys(layers[number])


def _is_keys(layer: Any) -> bool:
    """Other classes than these two hold more."""
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    return type(layer) in (DynamicLayer, DynamicSlidingWindowLayer)


def _as_it_is(value: Any) -> Any:
    """A cache as it is now, whatever is added to it later: its tensors are replaced, never written to."""
    if not isinstance(getattr(value, "layers", None), list):
        return value
    kept = copy.copy(value)
    kept.layers = [copy.copy(layer) for layer in value.layers]
    return kept


def _widened(value: Any, number: int, n_rows: int) -> Any:
    """What is given of one row's position, for n rows: of a cache a copy with the keys and values of one layer.

    Other tensors than those of a number for each position are broadcast by whoever takes them.
    """
    if isinstance(value, Tensor) and value.shape == (1, 1):
        return value.expand(n_rows, 1)
    if not _holds_keys(value, number):
        return value
    wide = _as_it_is(value)
    layer = wide.layers[number]
    if layer.is_initialized and layer.keys.numel():
        layer.keys = layer.keys.expand(n_rows, *layer.keys.shape[1:])
        layer.values = layer.values.expand(n_rows, *layer.values.shape[1:])
    return wide

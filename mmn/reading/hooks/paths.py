"""One forward pass whose graph can be asked what passes through attention, and activations of every unit, streamed.

`capture_paths` keeps what enters the first layer, a of every layer and the stream before the final norm, with their
graph. What attention adds to the stream has a gate on its gradient: inside `Paths.without_attention` a backward pass
goes around it, so that the derivative along residual stream, norms and FFNs alone is told from the total one. The
values of the pass are those of the plain model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmn.models.model import Model
from mmn.reading.hooks.capture import first_given, given_instead
from mmn.reading.hooks.lending import lent


@dataclass
class Paths:
    """One forward pass with its autograd graph; OPT hands its FFN all rows' positions as one list."""

    embedding: Float[Tensor, "batch positions d"] = field(default_factory=lambda: torch.empty(0, 0, 0))
    a: list[Float[Tensor, "*batch_and_positions m"]] = field(default_factory=list)
    final: Float[Tensor, "batch positions d"] = field(default_factory=lambda: torch.empty(0, 0, 0))
    has_attention: bool = True

    @contextmanager
    def without_attention(self) -> Iterator[None]:
        """Backward passes inside the block take no path through an attention."""
        self.has_attention = False
        try:
            yield
        finally:
            self.has_attention = True

    def gate(self, gradient: Tensor) -> Tensor:
        """What of a gradient goes on into an attention."""
        return gradient if self.has_attention else torch.zeros_like(gradient)


@contextmanager
def capture_paths(model: Model) -> Iterator[Paths]:
    """Records a differentiable pass; parameters are frozen, the graph starts at what enters the first layer.

    What a layer on another GPU is given goes home and back, so that all that is kept is in one place.

    Raises:
        AssertionError: not exactly one forward pass ran, or a hook never fired.
    """
    anatomy = model.anatomy
    paths = Paths()
    embedding: list[Tensor] = []
    final: list[Tensor] = []
    n_gated = 0

    def note(values: list[Tensor]) -> Callable[..., Any]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            value = first_given(args, kwargs)
            if not value.requires_grad:
                value.requires_grad_(True)
            values.append(value.to(anatomy.home))
            return given_instead(args, kwargs, values[-1].to(value.device))

        return hook

    def gate(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        nonlocal n_gated
        (output[0] if isinstance(output, tuple) else output).register_hook(paths.gate)
        n_gated += 1

    attentions = [module for module in anatomy.attentions if module is not None]
    with lent(model) as handles:
        handles.append(anatomy.layers[0].register_forward_pre_hook(note(embedding), with_kwargs=True))
        keep_a = note(paths.a)
        handles += [module.register_forward_pre_hook(keep_a, with_kwargs=True) for module in anatomy.ffn_outs]
        handles += [module.register_forward_hook(gate) for module in attentions]
        handles.append(anatomy.final_norm.register_forward_pre_hook(note(final), with_kwargs=True))
        yield paths
    counts = (len(embedding), len(paths.a), len(final), n_gated)
    assert counts == (1, anatomy.n_layers, 1, len(attentions)), f"hooks fired unevenly: {counts}"
    paths.embedding, paths.final = embedding[0], final[0]


@contextmanager
def each_activation(model: Model, then: Callable[[int, Float[Tensor, "batch positions m"]], None]) -> Iterator[None]:
    """Hands a of each layer, at every position, to `then(layer, a)` in the forward passes inside the block.

    Raises:
        AssertionError: no pass ran inside the block.
    """
    anatomy = model.anatomy
    n_rows = n_seen = 0

    def note_rows(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal n_rows
        n_rows = len(first_given(args, kwargs))

    def hand(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal n_seen
            a = first_given(args, kwargs).detach()
            then(layer, a.reshape(n_rows, -1, a.shape[-1]).to(anatomy.home))
            n_seen += 1

        return hook

    with lent(model) as handles:
        handles.append(anatomy.layers[0].register_forward_pre_hook(note_rows, with_kwargs=True))
        for layer, module in enumerate(anatomy.ffn_outs):
            handles.append(module.register_forward_pre_hook(hand(layer), with_kwargs=True))
        yield
    assert n_seen > 0, "no forward pass ran inside the block, or a hook never fired"

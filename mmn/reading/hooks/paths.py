"""One forward pass whose graph can be asked what passes through attention.

`capture_paths` keeps what enters the first layer, a of every layer and the stream before the final norm, with their
graph. What attention adds to the stream has a gate on its gradient: inside `Paths.without_attention` a backward pass
goes around it, so that the derivative along residual stream, norms and FFNs alone is told from the total one. The
values of the pass are those of the plain model.

In a mixture of experts a has a part for each expert that some token goes through. The model makes and multiplies it
inside a module, so it is made once more from what that was given, and what it writes stands for the module's output:
the same value, with the graph through a. Which experts a token goes through is no matter of slopes; the router's
weights, and the gate of shared experts, have gradients as everything else has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from mmn.models.adapters.experts import Mixture, Routed
from mmn.models.model import Model
from mmn.reading.hooks.at_tokens import AtTokens
from mmn.reading.hooks.capture import first_given, given_instead
from mmn.reading.hooks.experts import Call, watch_calls
from mmn.reading.hooks.lending import lent
from mmn.reading.hooks.relevance import instead

OfExperts = Callable[[Routed, Float[Tensor, "n d"], int], Float[Tensor, "n m"]]  # `Routed.units`, or by other rules


@dataclass
class Paths:
    """One forward pass with its autograd graph.

    Attributes:
        embedding: what enters the first layer.
        a: by layer what its output matrices are given, each unit in at most one part; a constant that multiplies what
            is written, and a gate, are not in it.
        gates: by layer and first unit of a part, the gate on what it writes over itself: 1, with the gate's gradient.
        final: the residual stream before the final norm.
        has_attention: whether a gradient goes on into attentions.
    """

    embedding: Float[Tensor, "batch positions d"] = field(default_factory=lambda: torch.empty(0, 0, 0))
    a: list[list[AtTokens]] = field(default_factory=list)
    gates: dict[tuple[int, int], Float[Tensor, "n 1"]] = field(default_factory=dict)
    final: Float[Tensor, "batch positions d"] = field(default_factory=lambda: torch.empty(0, 0, 0))
    has_attention: bool = True

    def gated(self, layer: int, part: AtTokens) -> Float[Tensor, "n m"]:
        """The values of a part of a, that change as what it writes does: with a gate on that, too."""
        gate = self.gates.get((layer, part.first))
        return part.values if gate is None else part.values * gate

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
def capture_paths(model: Model, of_experts: OfExperts = Routed.units) -> Iterator[Paths]:
    """Records a differentiable pass; parameters are frozen, the graph starts at what enters the first layer.

    What a layer on another GPU is given goes home and back, so that all that is kept is in one place.

    Args:
        model: its lock is held inside the block.
        of_experts: how routed experts make their units, in a mixture.

    Raises:
        AssertionError: not exactly one forward pass ran, or a hook never fired.
    """
    anatomy = model.anatomy
    paths = Paths(a=[[] for _ in range(anatomy.n_layers)])
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

    def keep_a(layer: int, first: int, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = first_given(args, kwargs)
        part = AtTokens.everywhere(first, value.to(anatomy.home), len(embedding[0]))
        paths.a[layer].append(part)
        return given_instead(args, kwargs, part.values.view(value.shape).to(value.device))

    def gate(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        nonlocal n_gated
        (output[0] if isinstance(output, tuple) else output).register_hook(paths.gate)
        n_gated += 1

    attentions = [module for module in anatomy.attentions if module is not None]
    with lent(model) as handles:
        handles.append(anatomy.layers[0].register_forward_pre_hook(note(embedding), with_kwargs=True))
        for layer, (first, module) in _matrices(model):
            handles.append(module.register_forward_pre_hook(partial(keep_a, layer, first), with_kwargs=True))
        for layer, mixture in enumerate(anatomy.mixtures):
            handles += _watch_experts(paths, layer, mixture, of_experts, embedding)
        handles += [module.register_forward_hook(gate) for module in attentions]
        handles.append(anatomy.final_norm.register_forward_pre_hook(note(final), with_kwargs=True))
        yield paths
    counts = (len(embedding), len(final), n_gated)
    assert counts == (1, 1, len(attentions)), f"hooks fired unevenly: {counts}"
    assert [bool(parts) for parts in paths.a] == [bool(width) for width in anatomy.widths], "a hook never fired"
    paths.embedding, paths.final = embedding[0], final[0]


def _matrices(model: Model) -> Iterator[tuple[int, tuple[int, nn.Module]]]:
    """By layer the output matrix of units that every token goes through, if there is one, and its first unit."""
    anatomy = model.anatomy
    if not anatomy.mixtures:
        yield from enumerate((0, module) for module in anatomy.ffn_outs)
    for layer, mixture in enumerate(anatomy.mixtures):
        if mixture.plain is not None:
            yield layer, (mixture.start, mixture.plain)


def _watch_experts(
    paths: Paths, layer: int, mixture: Mixture, of_experts: OfExperts, embedding: list[Tensor]
) -> list[Any]:
    """Hooks that let the graph go through a of a layer's routed experts, and keep the gate of shared ones."""
    handles: list[Any] = []

    def written(call: Call, output: Tensor) -> Tensor:
        home = embedding[0].device
        experts = call.experts(partial(of_experts, call.routed))
        parts = [AtTokens.of_expert(call, one, home) for one in experts]
        paths.a[layer] += parts
        here = [one._replace(a=part.values.to(output.device)) for one, part in zip(experts, parts, strict=True)]
        return instead(output, call.written(here, output))

    def keep_gate(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
        log = logsigmoid(output.reshape(-1, 1).to(embedding[0].device))
        paths.gates[layer, mixture.start] = (log - log.detach()).exp()

    if mixture.routed is not None:
        handles += watch_calls(mixture.routed, lambda: len(embedding[0]), written)
    if mixture.gate is not None:
        handles.append(mixture.gate.register_forward_hook(keep_gate))
    return handles

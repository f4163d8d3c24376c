"""One forward pass of a mixture of experts with its autograd graph: what attribution is differentiated by.

    routed experts ─► what their module wrote, whose gradient g gives that of every unit that a token went through:
                      ∂y/∂a_i = g · W_out[e][:, i], at a token of expert e
    beside them    ─► z and a of the shared experts, or of a layer without a mixture, as in a single FFN

Of routed experts nothing is kept for a unit: it is computed again when it is asked for, one expert at a time
(`experts.Call`). Routing is what it was in the pass; the routers' weights have gradients as everything else has.
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
from mmn.reading.hooks.capture import first_given
from mmn.reading.hooks.experts import Call, watch_calls
from mmn.reading.hooks.lending import lent


@dataclass
class ExpertGraph:
    """What the pass computed, by layer; a layer has an entry where it has such a part.

    Attributes:
        calls: of the routed experts.
        routed: what their module wrote, before their factor; differentiable, as z and a are.
        z: of the units beside them; wider than a where one matrix makes z and what it is multiplied with.
        a: of the units beside them, before a gate.
        gates: the sigmoid that their output is multiplied by.
        final: the residual stream before the final norm.
    """

    calls: dict[int, Call] = field(default_factory=dict)
    routed: dict[int, Float[Tensor, "t d"]] = field(default_factory=dict)
    z: dict[int, Tensor] = field(default_factory=dict)
    a: dict[int, Tensor] = field(default_factory=dict)
    gates: dict[int, Tensor] = field(default_factory=dict)
    final: Float[Tensor, "batch positions d"] = field(default_factory=lambda: torch.empty(0, 0, 0))

    def own(self, of_activation: bool) -> dict[int, Tensor]:
        """a, or z, of the units beside routed experts."""
        return self.a if of_activation else self.z


@contextmanager
def capture_expert_graph(model: Model) -> Iterator[ExpertGraph]:
    """Records every layer's parts, differentiable, during the one forward pass inside the block.

    The graph starts at the first of them: parameters are frozen and nothing before it needs a gradient.

    Raises:
        AssertionError: not exactly one forward pass ran, or a hook never fired.
    """
    anatomy, graph = model.anatomy, ExpertGraph()
    n_rows: list[int] = []
    final: list[Tensor] = []

    def note_rows(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        n_rows.append(len(first_given(args, kwargs)))

    def note_final(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        final.append(first_given(args, kwargs))

    with lent(model) as handles:
        handles.append(anatomy.layers[0].register_forward_pre_hook(note_rows, with_kwargs=True))
        for layer, mixture in enumerate(anatomy.mixtures):
            if mixture.routed is not None:
                handles += watch_calls(mixture.routed, lambda: n_rows[-1], _keep_call(graph, layer))
            if mixture.plain is not None:
                keep_a = _keep_input(graph.a, layer)
                handles.append(mixture.plain.register_forward_pre_hook(keep_a, with_kwargs=True))
            if mixture.gate is not None:
                handles.append(mixture.gate.register_forward_hook(_keep_gate(graph, layer)))
            handles += _watch_z(graph, layer, mixture.activation)
        handles.append(anatomy.final_norm.register_forward_pre_hook(note_final, with_kwargs=True))
        yield graph
    expected = tuple(sum(part is not None for part in of) for of in _parts(model))
    counts = (len(graph.routed), len(graph.a), len(graph.z), len(graph.gates))
    assert (len(n_rows), len(final)) == (1, 1), f"{len(n_rows)} passes, {len(final)} final norms"
    assert counts == expected, f"hooks fired unevenly: routed, a, z, gates {counts}, not {expected}"
    graph.final = final[0]


def _parts(model: Model) -> list[list[Any]]:
    """What each layer has of each kind that is hooked."""
    mixtures = model.anatomy.mixtures
    return [[getattr(one, name) for one in mixtures] for name in ("routed", "plain", "activation", "gate")]


def _once(values: dict[int, Tensor], layer: int, value: Tensor) -> Tensor:
    """Keeps a value, from which on there is a graph."""
    assert layer not in values, f"layer {layer} ran twice: one forward pass at a time"
    values[layer] = value if value.requires_grad else value.requires_grad_()
    return values[layer]


def _keep_call(graph: ExpertGraph, layer: int) -> Callable[[Call, Tensor], Tensor]:
    def then(call: Call, output: Tensor) -> Tensor:
        graph.calls[layer] = call.detached()
        return _once(graph.routed, layer, output).clone()  # a block may go on in place

    return then


def _keep_input(values: dict[int, Tensor], layer: int) -> Callable[..., None]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        _once(values, layer, first_given(args, kwargs))

    return hook


def _keep_gate(graph: ExpertGraph, layer: int) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
        graph.gates[layer] = output.detach().sigmoid()

    return hook


def _watch_z(graph: ExpertGraph, layer: int, activation: nn.Module | None) -> list[Any]:
    """Hooks on what z is given to; on the matrix that makes it where that is all there is."""

    def keep_output(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor:
        return _once(graph.z, layer, output).clone()

    if activation is None:
        return []
    if isinstance(activation, nn.Linear):
        return [activation.register_forward_hook(keep_output)]
    return [activation.register_forward_pre_hook(_keep_input(graph.z, layer), with_kwargs=True)]

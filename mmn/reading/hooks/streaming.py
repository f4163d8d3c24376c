"""act or a of every unit at every position of a pass, handed over layer by layer while it is computed: nothing is kept.

A prompt's activations are L · T · m numbers, where `capture` keeps those of its last position: who counts over tokens
takes each layer's when it is there, and lets it go. On request the same layer's attention weights come with it.

In a mixture of experts a layer's are in several parts, one for each expert that some token goes through, with those
tokens alone: what sleeps is 0, and no number is held for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from mmn.errors import UsageError
from mmn.models.adapters.experts import Mixture
from mmn.models.model import Model
from mmn.reading.hooks.at_tokens import AtTokens
from mmn.reading.hooks.capture import ACT, ACTIVATION, first_given, makes_z, require_act
from mmn.reading.hooks.experts import Call, watch_calls
from mmn.reading.hooks.lending import lent

EAGER: Final = "eager"  # the one kind of attention in transformers that hands its weights out


# Called with a layer's number, its act or a, each unit's in at most one part, and its attention weights (batch, query,
# key), the mean over heads; None where they were not asked for.
TakesLayer = Callable[[int, Sequence[AtTokens], Tensor | None], None]


@dataclass
class _Pass:
    """What the hooks of one forward pass know: its rows, the weights of the layer before, how often each fired."""

    take: TakesLayer
    with_attention: bool
    home: torch.device
    n_rows: int = 0
    weights: Tensor | None = None
    fired: dict[int, int] = field(default_factory=dict)

    def everywhere(self, first: int, values: Tensor) -> AtTokens:
        return AtTokens.everywhere(first, values.detach().to(self.home), self.n_rows)

    def hand_over(self, layer: int, parts: Sequence[AtTokens]) -> None:
        weights, self.weights = self.weights, None
        if self.with_attention and weights is None:
            raise UsageError(f"layer {layer} hands out no attention weights")
        self.fired[layer] = self.fired.get(layer, 0) + 1
        self.take(layer, parts, None if weights is None else weights.to(self.home))


@contextmanager
def each_layer(model: Model, take: TakesLayer, with_attention: bool = False, site: str = ACT) -> Iterator[None]:
    """Calls `take` for every layer of the forward passes inside the block, in order.

    act is act(gate) of a gated FFN, without the up factor; of a plain one the activation a itself. An expert's act and
    a have the router's weight, and those of a shared expert its gate.

    Args:
        model: its lock is held inside the block.
        take: must not keep what it is given.
        with_attention: attention weights, too; the model attends eagerly meanwhile, which differs by rounding.
        site: `ACT`, or `ACTIVATION` for a.

    Raises:
        UsageError: act(gate) is not there (`require_act`), or a layer without attention weights.
        AssertionError: a hook never fired, or unevenly.
    """
    assert site in (ACT, ACTIVATION), site
    if site == ACT:
        require_act(model, "act at every position")
    seen = _Pass(take, with_attention, model.device)
    with lent(model) as handles, _eager(model, with_attention):
        handles.append(model.anatomy.layers[0].register_forward_pre_hook(_note_rows(seen), with_kwargs=True))
        for layer, module in enumerate(model.anatomy.layers):
            if with_attention:
                handles += [one.register_forward_hook(_note_weights(seen)) for one in _attending(module)]
            watch = _watch_experts if model.anatomy.mixtures else _watch
            handles += watch(model, layer, seen, site)
        yield
    assert len(seen.fired) == model.anatomy.n_layers, f"hooks fired in layers {sorted(seen.fired)} only"
    assert len(set(seen.fired.values())) == 1, f"hooks fired unevenly: {seen.fired}"


@contextmanager
def _eager(model: Model, is_asked: bool) -> Iterator[None]:
    """The text decoder's attention as the kind that hands out its weights, inside the block."""
    modules = model.anatomy.decoder.modules() if is_asked else ()
    configs: list[Any] = list({id(one.config): one.config for one in modules if hasattr(one, "config")}.values())
    before = [(one, one._attn_implementation_internal) for one in configs]
    try:
        for config, _ in before:
            config._attn_implementation_internal = EAGER
        yield
    finally:
        for config, kind in before:
            config._attn_implementation_internal = kind


def _attending(layer: nn.Module) -> Iterator[nn.Module]:
    return (one for one in layer.modules() if "attention" in type(one).__name__.lower())


def _note_rows(seen: _Pass) -> Callable[..., None]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.n_rows = len(first_given(args, kwargs))

    return hook


def _note_weights(seen: _Pass) -> Callable[..., None]:
    """Keeps (batch, heads, queries, keys) that a module hands out beside its output, as the mean over heads."""

    def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if isinstance(weights, Tensor) and weights.ndim == 4 and weights.shape[2] == weights.shape[3]:
            seen.weights = weights.detach().float().mean(1)

    return hook


def _watch(model: Model, layer: int, seen: _Pass, site: str) -> list[Any]:
    anatomy = model.anatomy
    if site == ACTIVATION or not anatomy.is_gated:

        def read(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.hand_over(layer, [seen.everywhere(0, first_given(args, kwargs))])

        return [anatomy.ffn_outs[layer].register_forward_pre_hook(read, with_kwargs=True)]
    module = anatomy.activations[layer]
    then = silu if makes_z(module) else torch.Tensor.detach

    def write(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
        seen.hand_over(layer, [seen.everywhere(0, then(output))])

    return [module.register_forward_hook(write)]


def _watch_experts(model: Model, layer: int, seen: _Pass, site: str) -> list[Any]:
    """Hooks on a layer's experts and on what is beside them; at its end all parts are handed over."""
    mixture, found = model.anatomy.mixtures[layer], list[AtTokens]()
    beside: dict[str, Tensor] = {}

    def note_call(call: Call, _output: Tensor) -> None:
        read = call.routed.units if site == ACTIVATION else call.routed.gate_acts
        for one in call.detached().experts(read):
            part = AtTokens.of_expert(call, one, seen.home)
            found.append(replace(part, values=part.values * call.routed.factor))

    def hand_over(_module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        if "own" in beside:
            part = seen.everywhere(mixture.start, beside["own"])
            gate = beside["gate"].detach().reshape(-1, 1).sigmoid().to(seen.home) if "gate" in beside else 1
            found.append(replace(part, values=part.values * gate))
        seen.hand_over(layer, found)
        beside.clear()
        found.clear()

    handles = _watch_beside_experts(mixture, beside, site)
    if mixture.routed is not None:
        handles += watch_calls(mixture.routed, lambda: seen.n_rows, note_call)
    return [*handles, model.anatomy.layers[layer].register_forward_hook(hand_over)]


def _watch_beside_experts(mixture: Mixture, beside: dict[str, Tensor], site: str) -> list[Any]:
    """Hooks that note what units beside the experts have, as `own`, and what their gate is made of."""

    def note_given(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        beside["own"] = first_given(args, kwargs)

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
            beside[name] = output

        return hook

    handles: list[Any] = []
    if mixture.plain is not None and site == ACTIVATION:
        handles.append(mixture.plain.register_forward_pre_hook(note_given, with_kwargs=True))
    elif mixture.activation is not None:
        handles.append(mixture.activation.register_forward_hook(note("own")))
    if mixture.gate is not None:
        handles.append(mixture.gate.register_forward_hook(note("gate")))
    return handles

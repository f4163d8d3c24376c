"""A forward pass whose backward pass hands relevance on, by RelP's rules (Jafari et al. 2025; Transluce's code).

    norm            x / s · γ           s, the rms or deviation, is constant
    attention       Σ_k A_qk v_k        A is constant: queries and keys have no gradient, nor has a gate on the sum
    activation      z · (act(z) / z)    the factor is constant: σ(z) of SiLU, Φ(z) of GELU, 0 or 1 of ReLU
    gated product   act(gate) · up      each of both gets half of the gradient
    experts         Σ_e g_e · e(x)      the router's weights g are constant, and so is the gate of shared experts

Values are those of the plain pass; only gradients differ. What is left is linear in what enters the first layer, but
for biases: input · gradient, summed over all of it, and what the biases add, are the logit (`Relevance.bias` has them).
The rules are put on the loaded modules by hooks, and are gone behind the block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mmn.errors import UnsupportedModelError, UsageError
from mmn.models.adapters import Anatomy
from mmn.models.adapters.elsewhere import held
from mmn.models.adapters.experts import Mixture
from mmn.models.adapters.norms import Norm, gain, norm_form, scale
from mmn.models.adapters.structure import is_norm
from mmn.models.model import Model
from mmn.reading.hooks.capture import first_given, given_instead, makes_z
from mmn.reading.hooks.entering import ROTATION
from mmn.reading.hooks.experts import Call, watch_calls
from mmn.reading.hooks.lending import lent

QUERIES_AND_KEYS = ("q_proj", "k_proj")
ATTENTION_GATES = ("g_proj", "gate_proj")  # whose sigmoid what the heads make is multiplied by (Step, Muse Glimmer)
NORM_OF_QUERIES = re.compile(r"\b(q|k|qk)_norm\b")  # behind what is constant already
VALUES = "v_proj"
FUSED = "qkv_proj"  # of all three, the values last
NO_WEIGHTS = (nn.Dropout, nn.Identity)


@dataclass
class Relevance:
    """One pass with its graph.

    Attributes:
        stream: the residual stream before the first layer.
        bias: a number for each row, 0; its gradient is what all biases of the layers add to what is differentiated.
        a: by layer, the input of W_out; its gradient is whole, only what is before it gets half. In a mixture of
            experts of the matrix beside the routed ones, which not every layer has.
        calls: of a mixture, by layer, of its routed experts.
        routed: by layer what they wrote.
        final: the residual stream before the final norm.
        outside: what a layer is given or adds that no layer before it wrote, as (value, where its gradient is): the
            picture's features that deep stacks add, an attention to the picture alone.
    """

    stream: list[Float[Tensor, "batch positions d"]] = field(default_factory=list)
    bias: list[Float[Tensor, " batch"]] = field(default_factory=list)
    a: dict[int, Float[Tensor, "batch positions m"]] = field(default_factory=dict)
    calls: dict[int, Call] = field(default_factory=dict)
    routed: dict[int, Float[Tensor, "t d"]] = field(default_factory=dict)
    final: list[Float[Tensor, "batch positions d"]] = field(default_factory=list)
    outside: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _written: list[Float[Tensor, "batch positions d"]] = field(default_factory=list)

    @property
    def n_rows(self) -> int:
        return len(self.stream[0])


def require_relevance(model: Model, what: str) -> None:
    """Raises `UsageError` for a decoder that has a part whose rule is not known; nothing is run."""
    name = model.facts.name
    if model.has_encoder:
        raise UsageError(f"{what} is not there for encoder-decoders, and {name} is one")
    if model.anatomy.others:
        raise UsageError(f"{what} is not there for {name}: its layers add {', '.join(model.anatomy.others)}")
    for number, mixture in enumerate(model.anatomy.mixtures):
        if mixture.routed is not None and mixture.routed.block is not None:
            raise UsageError(f"{what} is not there for {name}: its image tokens go through experts that are no units")
        if mixture.routed is not None and (mixture.router is None or not mixture.routed.multiplies_up):
            raise UsageError(f"{what} is not there for {name}: no rule is known for the experts of layer {number}")
    for number, layer in enumerate(model.anatomy.layers):
        for path, part in layer.named_modules():
            if not list(part.children()) and not _is_known(model, number, path, part):
                kind = type(part).__name__
                raise UsageError(f"{what} is not there for {name}: no rule is known for {path} ({kind}) of its layers")
        _require_attention(model, number, what)


def _is_known(model: Model, number: int, path: str, part: nn.Module) -> bool:
    if part is _activation(model.anatomy, number):
        return not makes_z(part)
    if part in _parts_of_experts(model.anatomy, number) or NORM_OF_QUERIES.search(path):
        return True
    if is_norm(part):
        try:
            return bool(norm_form(path, part))
        except UnsupportedModelError:
            return False
    return isinstance(part, (nn.Linear, Conv1D, *NO_WEIGHTS)) or ROTATION.search(type(part).__name__) is not None


def _activation(anatomy: Anatomy, number: int) -> nn.Module | None:
    return anatomy.mixtures[number].activation if anatomy.mixtures else anatomy.activations[number]


def _parts_of_experts(anatomy: Anatomy, number: int) -> set[nn.Module]:
    """What is inside a layer's routed experts, whose rule is put on them as a whole, and inside what weighs them."""
    if not anatomy.mixtures:
        return set()
    mixture = anatomy.mixtures[number]
    whole = [None if mixture.routed is None else mixture.routed.module, *_weighing(mixture)]
    return {part for one in whole if one is not None for part in one.modules()}


def _weighing(mixture: Mixture) -> list[nn.Module]:
    """The modules whose output is constant: the router, and the gate of shared experts."""
    return [one for one in (mixture.router if mixture.routed is not None else None, mixture.gate) if one is not None]


def _require_attention(model: Model, number: int, what: str) -> None:
    """Queries, keys and values from a matrix each, or from one in that order: the gradient of two of them is cut."""
    named = {path.rpartition(".")[2] for path, _ in model.anatomy.layers[number].named_modules()}
    if FUSED in named:
        return
    missing = [name for name in (*QUERIES_AND_KEYS, VALUES) if name not in named]
    if missing:
        raise UsageError(
            f"{what} is not there for {model.facts.name}: its attention has no {', '.join(missing)}, so that what the "
            "attention weights are made of cannot be told from what they weigh"
        )


@contextmanager
def relevance_graph(model: Model) -> Iterator[Relevance]:
    """Records the one forward pass inside the block, under the rules. Holds the model's lock.

    Raises:
        AssertionError: not exactly one forward pass ran, or a hook never fired.
    """
    anatomy, found = model.anatomy, Relevance()

    def begin(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        stream = first_given(args, kwargs).detach().requires_grad_(True)
        found.stream.append(stream)
        found.bias.append(torch.zeros(len(stream), device=stream.device, requires_grad=True))
        return given_instead(args, kwargs, stream)

    def end(_module: nn.Module, args: tuple[Any, ...]) -> None:
        found.final.append(args[0].to(anatomy.home))

    with lent(model) as handles:
        handles.append(anatomy.layers[0].register_forward_pre_hook(begin, with_kwargs=True))
        for number, layer in enumerate(anatomy.layers):
            handles += _notice_what_comes_from_outside(layer, anatomy.attentions[number], found)
            handles += _put_rules_on(anatomy, number, found)
            if anatomy.mixtures:
                handles += _put_rules_on_experts(anatomy, number, found)
            else:
                keep = _keep_a(found, number, anatomy, is_gated=anatomy.is_gated)
                handles.append(anatomy.ffn_outs[number].register_forward_pre_hook(keep))
        handles.append(anatomy.final_norm.register_forward_pre_hook(end))
        yield found
    counts = (len(found.stream), len(found.a), len(found.routed), len(found.final))
    n_plain = sum(one.plain is not None for one in anatomy.mixtures) if anatomy.mixtures else anatomy.n_layers
    n_routed = sum(one.routed is not None for one in anatomy.mixtures)
    assert counts == (1, n_plain, n_routed, 1), f"hooks fired unevenly: stream, a, routed, final {counts}"


def _notice_what_comes_from_outside(layer: nn.Module, attention: nn.Module | None, found: Relevance) -> list[Any]:
    """Hooks on a layer's input, on its attention's output and on its own; what is told of a layer is of the next."""

    def given(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stream = first_given(args, kwargs)
        if found._written and not torch.equal(stream, found._written[-1]):
            found.outside.append(((stream - found._written[-1]).detach(), stream))

    def added(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        if first.requires_grad:
            return None
        source = first.detach().clone().requires_grad_(True)
        found.outside.append((source.detach(), source))
        return (source, *output[1:]) if isinstance(output, tuple) else source

    def written(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        found._written[:] = [(output[0] if isinstance(output, tuple) else output).detach()]

    handles: list[Any] = [layer.register_forward_pre_hook(given, with_kwargs=True)]
    if attention is not None:
        handles.append(attention.register_forward_hook(added))
    return [*handles, layer.register_forward_hook(written)]


def frozen_norm(form: Norm, module: nn.Module, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """What a norm makes of x but for its own bias, its scale held at what it is: linear in x. Float32."""
    wide = x.float()
    centred = wide - wide.mean(dim=-1, keepdim=True) if form is Norm.LAYER else wide
    return centred / scale(form, module, wide).detach() * gain(form, module).to(x.device)


def _put_rules_on(anatomy: Anatomy, number: int, found: Relevance) -> list[Any]:
    """The hooks of one layer, but for those of its experts."""
    layer, activation = anatomy.layers[number], _activation(anatomy, number)
    of_experts, constant = _parts_of_experts(anatomy, number), _constant_in_attention(layer)
    handles: list[Any] = []
    for path, part in layer.named_modules():
        if part in of_experts or NORM_OF_QUERIES.search(path):
            continue
        if part in constant:
            handles.append(part.register_forward_hook(_constant))
        elif path.rpartition(".")[2] == FUSED:
            handles.append(part.register_forward_hook(_values_alone(layer.get_submodule(path.rpartition(".")[0]))))
        elif activation is not None and part is activation:
            handles.append(part.register_forward_hook(_constant_factor))
        elif is_norm(part):
            handles.append(part.register_forward_hook(_constant_scale(norm_form(path, part), found)))
        elif getattr(part, "bias", None) is not None and isinstance(part, (nn.Linear, Conv1D)):
            handles.append(part.register_forward_hook(_counted_bias(found)))
    return handles


def _constant_in_attention(layer: nn.Module) -> set[nn.Module]:
    """What makes a layer's queries and keys, and gates beside them: an FFN's gate may have the same name."""
    parts = {path.rpartition(".")[::2]: part for path, part in layer.named_modules()}  # by (parent, name)
    attentions = {parent for parent, name in parts if name in (*QUERIES_AND_KEYS, FUSED)}
    return {
        part
        for (parent, name), part in parts.items()
        if name in QUERIES_AND_KEYS or (name in ATTENTION_GATES and parent in attentions)
    }


def _put_rules_on_experts(anatomy: Anatomy, number: int, found: Relevance) -> list[Any]:
    """The hooks of one layer of a mixture: on its experts, on what weighs them, and on the matrix beside them."""
    mixture = anatomy.mixtures[number]

    def written(call: Call, output: Tensor) -> Tensor:
        found.calls[number] = call.detached()
        rule = call.written(call.experts(call.routed.relevant_units), output)
        found.routed[number] = instead(output, rule)
        return found.routed[number].clone()  # a block may go on in place

    handles = [one.register_forward_hook(_constant) for one in _weighing(mixture)]
    if mixture.routed is not None:
        handles += watch_calls(mixture.routed, lambda: found.n_rows, written)
    if mixture.plain is not None:
        keep = _keep_a(found, number, anatomy, is_gated=mixture.is_gated)
        handles.append(mixture.plain.register_forward_pre_hook(keep))
    return handles


def _constant(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
    if isinstance(output, tuple):
        return tuple(one.detach() if isinstance(one, Tensor) else one for one in output)
    return output.detach()


def _keep_a(found: Relevance, number: int, anatomy: Anatomy, *, is_gated: bool) -> Callable[..., Any]:
    """Keeps a at home; what a layer on another GPU is given comes back from there."""

    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        a = args[0] * 0.5 + (args[0] * 0.5).detach() if is_gated else args[0]
        found.a[number] = a.to(anatomy.home)
        return (found.a[number].to(a.device), *args[1:])

    return hook


def _values_alone(attention: Any) -> Callable[..., Tensor]:
    n_values = attention.config.num_key_value_heads * attention.head_dim

    def hook(_module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return torch.cat([output[..., :-n_values].detach(), output[..., -n_values:]], dim=-1)

    return hook


def _constant_factor(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    z = args[0]
    factor = torch.where(z == 0, 0.0, output / z).detach()
    return instead(output, z * factor)


def _constant_scale(form: Norm, found: Relevance) -> Callable[..., Tensor]:
    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return _with_bias(module, instead(output, frozen_norm(form, module, args[0]).to(output.dtype)), found)

    return hook


def _counted_bias(found: Relevance) -> Callable[..., Tensor]:
    def hook(module: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return _with_bias(module, output, found)

    return hook


def _with_bias(module: nn.Module, output: Tensor, found: Relevance) -> Tensor:
    """The same values, with each row's `bias` differentiable in them by the module's own bias."""
    if not isinstance(getattr(module, "bias", None), Tensor):
        return output
    by_row, bias = output.reshape(found.n_rows, -1, output.shape[-1]), held(module, "bias").to(output.device)
    return (by_row + found.bias[0][:, None, None].to(output) * bias).reshape(output.shape)


def instead(values: Tensor, rule: Tensor) -> Tensor:
    """The values of one computation with the gradient of another."""
    return rule + (values - rule).detach()

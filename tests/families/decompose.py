"""Proof on one forward pass: a layer's output is its input plus what its parts write, each times one number.

Every module's output is recorded. For each layer the fewest parts are looked for whose outputs, times one number each,
make up the layer's output together with its input. Where that fails, one number for each channel is tried (learned
vector gates), then one for each token (hyper-connections). A part that carries the stream itself (T5's sublayers, a
norm after the sum) is opened in turn.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmn.models.adapters.structure import Structure, is_norm

TOLERANCE = 2e-5  # of the largest value of what is made up, in float32


@dataclass
class Recorded:
    """First tensor that each module was given and gave, and all its arguments, by path; of several calls the last."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    arguments: dict[str, list[Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Term:
    """A module's output times a number (of several, their mean)."""

    path: str
    factor: float


@dataclass(frozen=True)
class Sum:
    """`target = kept · input + sum of terms`, by one number for each `per`, and what that misses.

    Attributes:
        target: the block whose output, or the norm whose input, is made up.
        per: "all", "channel" or "token".
        error: the largest miss as a share of the target's largest value.
    """

    target: str
    kept: float
    terms: tuple[Term, ...]
    per: str
    error: float


@contextmanager
def recording(module: nn.Module) -> Iterator[Recorded]:
    """Records all modules' inputs and outputs while it lasts."""
    recorded = Recorded()
    handles = [
        part.register_forward_hook(_recorder(path, recorded), with_kwargs=True) for path, part in module.named_modules()
    ]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def _recorder(path: str, recorded: Recorded) -> Callable[..., None]:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = [*args, *([kwargs["hidden_states"]] if "hidden_states" in kwargs else []), *kwargs.values()]
        if (first := _tensor(given)) is not None:
            recorded.inputs[path] = first.detach().clone()
        if (result := _tensor([output])) is not None:
            recorded.outputs[path] = result.detach().clone()
        recorded.arguments[path] = _distinct(given)

    return hook


def _distinct(values: list[Any]) -> list[Tensor]:
    tensors: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor) and not any(value is other for other in tensors):
            tensors.append(value)
    return [value.detach().clone() for value in tensors]


def _tensor(values: Any) -> Tensor | None:
    for value in values:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value
        if isinstance(value, tuple | list) and value and (inner := _tensor(value[:1])) is not None:
            return inner
        if hasattr(value, "last_hidden_state"):
            return value.last_hidden_state
    return None


def decompose(path: str, module: nn.Module, recorded: Recorded) -> list[Sum]:
    """What a layer's output is made of, from the last sum back to the layer's input."""
    sums: list[Sum] = []
    given, block, owner = recorded.inputs[path], path, module
    target, known = recorded.outputs[path], [path]
    for _ in range(8):
        found = _explain(block, given, target, _candidates(path, module, recorded, known))
        carrier = _carrier(found, path, module, recorded)
        if carrier is None or carrier in known:
            return [*sums, found]
        known.append(carrier)
        part = owner.get_submodule(carrier.removeprefix(f"{path}."))
        if not list(part.children()) and (gate := _gate(carrier, recorded)) is not None:
            sums.append(gate[0])
            target, block = gate[1], carrier
        elif is_norm(part) or len(found.terms) > 1:
            if len(found.terms) > 1:
                sums.append(found)
            else:
                sums.append(Sum(carrier, 0.0, (), "norm after the sum", found.error))
            target, block = recorded.inputs[carrier], carrier
        else:
            inner = _stream_input(carrier, recorded, given.numel())
            sums.append(
                _explain(carrier, inner, recorded.outputs[carrier], _candidates(carrier, part, recorded, known))
            )
            target, block = inner, carrier
        if target.numel() == given.numel() and torch.equal(target.flatten(), given.flatten()):
            return sums
    return sums


def _gate(path: str, recorded: Recorded) -> tuple[Sum, Tensor] | None:
    """A module of two streams that weighs their channels: what it kept of the first, and that stream."""
    streams = [value for value in recorded.arguments[path] if value.is_floating_point()][:2]
    if len(streams) < 2 or (fit := _fit_channels(streams[0], recorded.outputs[path], streams[1:])) is None:
        return None
    source = [
        name for name, out in recorded.outputs.items() if out.shape == streams[1].shape and torch.equal(out, streams[1])
    ]
    term = Term(source[0] if source else path, fit[0][1])
    return Sum(path, fit[0][0], (term,), "channel", fit[1]), streams[0]


def _carrier(found: Sum, path: str, module: nn.Module, recorded: Recorded) -> str | None:
    """The part through which the stream went: the only one, or a norm that is one of two."""
    if found.error > TOLERANCE or abs(found.kept) > 1e-6 or found.per != "all":
        return None
    whole = [term.path for term in found.terms if abs(term.factor - 1) < 1e-6]
    names = dict(module.named_modules())
    for term in whole:
        inside = [f"{path}.{name}" for name in names if f"{path}.{name}".startswith(term)]
        for name in reversed(inside):
            is_part_norm = is_norm(names[name[len(path) + 1 :]])
            if is_part_norm and name in recorded.outputs and _same(recorded.outputs[name], recorded.outputs[term]):
                return name
    return whole[0] if len(found.terms) == 1 and whole else None


def _same(left: Tensor, right: Tensor) -> bool:
    return left.numel() == right.numel() and torch.equal(left.flatten(), right.flatten())


def _stream_input(path: str, recorded: Recorded, size: int) -> Tensor:
    """Of a block's arguments the one that has the stream's size (BERT's output block is given two)."""
    fitting = [value for value in recorded.arguments[path] if value.numel() == size and value.is_floating_point()]
    return fitting[-1] if fitting else recorded.inputs[path]


def _explain(target_path: str, given: Tensor, target: Tensor, parts: dict[str, Tensor]) -> Sum:
    best = Sum(target_path, 0.0, (), "all", 1.0)
    shallow = min(map(_depth, parts), default=0)
    direct = [name for name in parts if _depth(name) == shallow]
    outer = [name for name in parts if _depth(name) <= shallow + 1]
    for names in (direct, outer, list(parts)):
        for size in range(5 if len(names) < 16 else 4 if len(names) < 24 else 3):
            for chosen in itertools.combinations(names, size):
                fit = _fit(given, target, [parts[name] for name in chosen])
                if fit is not None and fit[1] < min(best.error, TOLERANCE):
                    terms = tuple(Term(name, f) for name, f in zip(chosen, fit[0][1:], strict=True))
                    return Sum(target_path, fit[0][0], terms, "all", fit[1])
    for per, fitter in (("channel", _fit_channels), ("token", _fit_tokens)):
        for size in (1, 2):
            for chosen in itertools.combinations(direct, size):
                fit = fitter(given, target, [parts[name] for name in chosen])
                if fit is not None and fit[1] < min(best.error, TOLERANCE * 5):
                    terms = tuple(Term(name, f) for name, f in zip(chosen, fit[0][1:], strict=True))
                    best = Sum(target_path, fit[0][0], terms, per, fit[1])
        if best.terms:
            break
    return best


def _depth(path: str) -> int:
    return path.count(".")


def _candidates(path: str, module: nn.Module, recorded: Recorded, known: list[str]) -> dict[str, Tensor]:
    """Outputs of a block's parts, the outer ones first; one of several equal ones; not a part already opened."""
    found: dict[str, Tensor] = {}
    names = [(name, part) for name, part in module.named_modules() if name]
    for name, part in sorted(names, key=lambda item: item[0].count(".")):
        full = f"{path}.{name}"
        steps = [step for step in name.split(".") if not step.isdigit()]
        output = recorded.outputs.get(full)
        if output is None or len(steps) > 3 or isinstance(part, nn.Dropout | nn.Identity) or full in known:
            continue
        if any(full.startswith(opened) and opened != path for opened in known[1:]):
            continue
        if not any(torch.equal(output.flatten(), other.flatten()) for other in found.values()):
            found[full] = output
    return found


def _fit(given: Tensor, target: Tensor, parts: list[Tensor]) -> tuple[list[float], float] | None:
    if any(part.numel() != target.numel() for part in [given, *parts]):
        return None
    columns = torch.stack([part.flatten().double() for part in [given, *parts]], dim=1)
    flat = target.flatten().double()
    factors = torch.linalg.lstsq(columns, flat[:, None]).solution[:, 0]
    miss = (columns @ factors - flat).abs().max() / flat.abs().max()
    return factors.tolist(), float(miss)


def fit_numbers(target: Tensor, parts: list[Tensor]) -> tuple[list[float], float]:
    """The numbers with which parts make up a target, and what they miss."""
    columns = torch.stack([part.flatten().double() for part in parts], dim=1)
    flat = target.flatten().double()
    factors = torch.linalg.lstsq(columns, flat[:, None]).solution[:, 0]
    return factors.tolist(), float((columns @ factors - flat).abs().max() / flat.abs().max())


def _fit_channels(given: Tensor, target: Tensor, parts: list[Tensor]) -> tuple[list[float], float] | None:
    """One number for each channel and part, from all tokens."""
    if any(part.shape != target.shape for part in [given, *parts]) or target[..., 0].numel() < 4 * (1 + len(parts)):
        return None
    stack = torch.stack([part.flatten(0, -2).double() for part in [given, *parts]], dim=-1).transpose(0, 1)
    flat = target.flatten(0, -2).double().T[..., None]
    factors = torch.linalg.lstsq(stack, flat).solution
    miss = (stack @ factors - flat).abs().max() / flat.abs().max()
    return factors.mean(dim=0)[:, 0].tolist(), float(miss)


def _fit_tokens(given: Tensor, target: Tensor, parts: list[Tensor]) -> tuple[list[float], float] | None:
    """Streams side by side: each is a mix of all of them and of the parts, with numbers of each token's own."""
    width = parts[0].shape[-1] if parts else 0
    if not parts or target.shape != given.shape or target.numel() in (part.numel() for part in parts):
        return None
    if any(part.ndim != 3 or part.shape[-1] != width for part in parts) or target.numel() % parts[0].numel():
        return None
    rows = parts[0][..., 0].numel()
    streams = [one.reshape(rows, -1, width).double() for one in (given, target)]
    stack = torch.cat([streams[0], *(part.reshape(rows, 1, width).double() for part in parts)], dim=1).transpose(-1, -2)
    return _solve_each(stack, streams[1].transpose(-1, -2), len(parts))


def mixed_from(target: Tensor, parts: list[Tensor]) -> float:
    """How far a stream is from a sum of others with numbers of each token's own."""
    rows, width = target[..., 0].numel(), target.shape[-1]
    stack = torch.stack([part.reshape(rows, width).double() for part in parts], dim=-1)
    return _solve_each(stack, target.reshape(rows, width, 1).double(), len(parts))[1]


def _solve_each(stack: Tensor, target: Tensor, n_parts: int) -> tuple[list[float], float]:
    factors = torch.linalg.pinv(stack) @ target
    miss = (stack @ factors - target).abs().max() / target.abs().max()
    return [float("nan")] * (1 + n_parts), float(miss)


def norm_formula(part: nn.Module, given: Tensor, result: Tensor) -> tuple[str, float]:
    """Which norm a module is, by its formula rather than its name, and how far off the nearest one is."""
    x = given.double()
    eps = next((float(v) for k, v in vars(part).items() if "eps" in k and isinstance(v, float)), 1e-6)
    weight, bias = getattr(part, "weight", None), getattr(part, "bias", None)
    scale = torch.ones(()) if weight is None else weight.double()
    centred = x - x.mean(-1, keepdim=True)
    rms = x / (x.square().mean(-1, keepdim=True) + eps).sqrt()
    layer = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    formulas = {"RMS · γ": rms * scale, "RMS · (1 + γ)": rms * (1 + scale), "LayerNorm without β": layer * scale}
    if isinstance(bias, Tensor):
        formulas = {"LayerNorm": layer * scale + bias.double(), "RMS · γ + β": rms * scale + bias.double()}
    errors = {name: float((value - result).abs().max() / result.abs().max()) for name, value in formulas.items()}
    name = min(errors, key=lambda key: errors[key])
    return (name if errors[name] < TOLERANCE else f"none of the known ({type(part).__name__})"), errors[name]


def expert_units(experts: nn.Module, arguments: list[Tensor], layout: str) -> Tensor:
    """Tokens × experts × units: act(z) of every expert, before the router's weight."""
    x = arguments[0].reshape(-1, arguments[0].shape[-1])
    rule = "td,edm->tem" if layout == "e m d" else "td,emd->tem"
    if hasattr(experts, "gate_proj"):
        gate, up = (torch.einsum(rule, x, getattr(experts, name)) for name in ("gate_proj", "up_proj"))
        return experts.act_fn(gate) * up  # type: ignore[operator]
    if hasattr(experts, "gate_up_proj"):
        pre = torch.einsum(rule, x, experts.gate_up_proj)
        if hasattr(experts, "_apply_gate"):
            return experts._apply_gate(pre)  # type: ignore[operator]
        gate, up = pre.chunk(2, dim=-1)
        return experts.act_fn(gate) * up  # type: ignore[operator]
    return experts.act_fn(torch.einsum(rule, x, experts.up_proj))  # type: ignore[operator]


def expert_weights(arguments: list[Tensor], n_experts: int) -> Tensor:
    """Tokens × experts: the router's weight, 0 where an expert was not chosen."""
    if len(arguments) == 2:  # shared experts with weights of the token
        return arguments[1].reshape(-1, n_experts)
    chosen, weights = (value.reshape(-1, value.shape[-1]) for value in arguments[1:3])
    share = torch.zeros(len(chosen), n_experts + 1, dtype=weights.dtype)
    return share.scatter_add_(1, chosen, weights)[:, :n_experts]


def expert_sum(experts: nn.Module, arguments: list[Tensor], weight: Tensor, layout: str) -> Tensor:
    """Sum over experts and units of router's weight · unit · its row of W_out, each expert's normed if it has a norm.

    Llama 4's experts are given their own rows, already times the router's weight: the unit carries it.
    """
    rule = "tem,edm->ted" if layout == "e d m" else "tem,emd->ted"
    if len(arguments) == 1:
        n_experts = weight.shape[0]
        every = torch.einsum(rule, expert_units(experts, arguments, layout), weight)
        own = torch.arange(len(every)) // (len(every) // n_experts)
        return every[torch.arange(len(every)), own]
    each = torch.einsum(rule, expert_units(experts, arguments, layout), weight)
    norms = [part for name, part in experts.named_children() if is_norm(part)]
    each = norms[0](each) if norms else each
    return (each * expert_weights(arguments, weight.shape[0])[..., None]).sum(dim=1)


def between_layers(structure: Structure, recorded: Recorded) -> list[float]:
    """For each layer after the first, how much is added to the stream before it, as a share of the stream."""
    paths = [layer.path for layer in structure.layers]
    gaps = []
    for before, after in itertools.pairwise(paths):
        left, entered = recorded.outputs[before], recorded.inputs[after]
        same = left.shape == entered.shape
        gaps.append(float((entered - left).abs().max() / entered.abs().max()) if same else float("nan"))
    return gaps

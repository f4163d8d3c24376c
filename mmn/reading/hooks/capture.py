"""What a forward pass computes, read while it is computed.

`capture` is borrowed with `with`; its hooks are gone afterwards, whatever happened. A site whose hook never fired is
an error, not a warning: a chart drawn from a site that does not exist would still look right.

Sites, per decoder layer where not said otherwise, each at the last position of every forward pass, which is the one
that predicts the next token (with left padding it is no padding in any row):

    activation   a, the input of the FFN's output matrix (m); of experts the units of those that the token went
                 through and of the shared ones (`adapters/experts.py`), the router's weight in them
    experts      which routed experts the token went through; only in a layer that has some
    act          act(gate) of a gated FFN, without the up factor (m); of experts likewise, compact as `activation`, with
                 the router's weight; only on request
    attention    what the attention adds to the residual stream, before a multiplier (d)
    cross-attention  what the attention to an encoder's output adds to it (d); only in an encoder-decoder
    per-layer input  what an input of the layer's own adds to it (d); only in Gemma 4
    ffn          what W_out wrote, before the norm after it (d); only where there is one
    ffn of experts, ffn beside experts   its two parts before the norm of each (d); only where there are such norms
    embedding    the residual stream before the first layer (d), once
    final        the residual stream before the final norm (d), once
    residual     the residual stream behind a layer that is not the last (d); only on request
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from mmn.core import Neuron
from mmn.errors import UsageError
from mmn.models.adapters import Anatomy
from mmn.models.adapters.experts import Mixture
from mmn.models.model import Model
from mmn.reading.hooks.experts import Call, watch_calls
from mmn.reading.hooks.lending import lent

ACTIVATION, ACT, ATTENTION, FFN, EXPERTS = "activation", "act", "attention", "ffn", "experts"
INNER = ("ffn of experts", "ffn beside experts")
EMBEDDING, FINAL = "embedding", "final"
RESIDUAL = "residual"
ONCE = 0  # the layer under which the sites that exist once are kept
STEPS_AT_ONCE = 16  # that room is made for


@dataclass
class Captured:
    """What the hooks saw: `steps[(site, layer)][step]` is (batch, width), one step for each predicted token.

    All of it is brought to `home`, wherever the layer lies (None: it is left there).
    """

    n_layers: int
    n_last: int = 1
    n_rows: int = 0
    mixtures: tuple[Mixture, ...] = ()
    home: torch.device | None = None
    steps: dict[tuple[str, int], list[Shaped[Tensor, "batch width"]]] = field(default_factory=dict)
    room: dict[tuple[int, int, torch.dtype], list[Tensor]] = field(default_factory=dict, repr=False)

    def keep(self, values: Shaped[Tensor, "batch n width"]) -> list[Shaped[Tensor, "batch width"]]:
        """Copies of one pass's last positions, each in a slot of a large block.

        Kept one by one, among the temporaries of the pass, they would split the free memory into pieces too small to
        be used again: 190 MB more on a CPU where 20 MB are kept.
        """
        n_rows, n, width = values.shape
        slots = self.room.setdefault((n_rows, width, values.dtype), [])
        if len(slots) < n:
            n_slots = max(n, STEPS_AT_ONCE) * (self.n_layers + 2)  # the widest has two sites that exist once
            slots += values.new_empty(n_slots, n_rows, width, device=self.home).unbind()
        kept = [slots.pop() for _ in range(n)]
        for slot, value in zip(kept, values.unbind(1), strict=True):
            slot.copy_(value)
        return kept

    @property
    def n_steps(self) -> int:
        return len(self.steps[FINAL, ONCE])

    def read(
        self, site: str, layer: int, rows: Int[Tensor, " n"], steps: Int[Tensor, " n"]
    ) -> Float[Tensor, "n width"]:
        """The site's values for batch row `rows[i]` in forward pass `steps[i]`, in float32."""
        recorded = self.steps[site, layer]
        return torch.stack(
            [recorded[step][row] for row, step in zip(rows.tolist(), steps.tolist(), strict=True)]
        ).float()

    def read_layers(self, site: str, rows: Int[Tensor, " n"], steps: Int[Tensor, " n"]) -> Float[Tensor, "n L width"]:
        """Those of all layers; where they differ in width, with zeros behind the narrower ones."""
        return _side_by_side([self.read(site, layer, rows, steps) for layer in range(self.n_layers)], 0)

    def chosen(self, rows: Int[Tensor, " n"], steps: Int[Tensor, " n"]) -> tuple[Int[Tensor, "n _"], ...]:
        """By layer the routed experts that were chosen; () in a model that has none."""
        return tuple(self._chosen(layer, rows, steps) for layer in range(len(self.mixtures)))

    def _chosen(self, layer: int, rows: Int[Tensor, " n"], steps: Int[Tensor, " n"]) -> Int[Tensor, "n k"]:
        recorded = self.steps.get((EXPERTS, layer))
        if recorded is None:
            return torch.zeros(len(rows), 0, dtype=torch.long, device=self.steps[ACTIVATION, layer][0].device)
        return torch.stack([recorded[step][row] for row, step in zip(rows.tolist(), steps.tolist(), strict=True)])

    def of_units(self, layer: int, units: Int[Tensor, " w"]) -> Float[Tensor, "batch w"]:
        """Values of `activation` of some units in the only pass, ascending, -1 behind the last; 0 where one sleeps."""
        n_rows = self.n_rows
        read = (torch.arange(n_rows), torch.zeros(n_rows, dtype=torch.long))
        there = self.mixtures[layer].flat_units(self._chosen(layer, *read))
        found = looked_up(there[:, None], units.expand(n_rows, 1, -1), self.read(ACTIVATION, layer, *read)[:, None])
        return found[:, 0]

    def flat_units(self, rows: Int[Tensor, " n"], steps: Int[Tensor, " n"]) -> Int[Tensor, "n L w"] | None:
        """Which unit of its layer each value of `activation` is of, -1 behind the last; None without experts."""
        if not self.mixtures:
            return None
        pairs = zip(self.mixtures, self.chosen(rows, steps), strict=True)
        return _side_by_side([mixture.flat_units(chosen) for mixture, chosen in pairs], -1)


def _side_by_side(layers: Sequence[Tensor], filler: int) -> Tensor:
    width = max(values.shape[1] for values in layers)
    missing = [width - values.shape[1] for values in layers]
    return torch.stack(
        [pad(values, (0, n), value=filler) if n else values for values, n in zip(layers, missing, strict=True)], dim=1
    )


def looked_up(
    units: Int[Tensor, "n L m"], wanted: Int[Tensor, "n L w"], values: Float[Tensor, "n L m"]
) -> Float[Tensor, "n L w"]:
    """The value of each wanted unit among those of `units` (ascending, -1 behind the last), 0 where it is not there."""
    ascending = units.masked_fill(units < 0, torch.iinfo(units.dtype).max)
    place = torch.searchsorted(ascending, wanted.contiguous()).clamp(max=units.shape[2] - 1)
    return values.gather(2, place).where(units.gather(2, place) == wanted, 0.0)


@contextmanager
def capture(model: Model, with_act: bool = False, n_last: int = 1, behind: Sequence[int] = ()) -> Iterator[Captured]:
    """Records every site of `model` during the forward passes inside the block.

    Args:
        model: Its lock is held inside the block.
        with_act: The site `act`, too.
        n_last: How many of each pass's last positions are kept, each as a step of its own: 1 while generating, the
            caption's length and one more where a whole caption is read in one pass.
        behind: Layers behind which the site `residual` is read, none of them the last.

    Raises:
        AssertionError: a hook never fired, or the sites saw different numbers of passes.
    """
    anatomy = model.anatomy
    captured = Captured(anatomy.n_layers, n_last, mixtures=anatomy.mixtures, home=anatomy.home)

    def watch(site: str, layer: int, module: nn.Module, *, reads_input: bool) -> None:
        steps = captured.steps[site, layer] = []
        if reads_input:
            handles.append(module.register_forward_pre_hook(_record_input(captured, steps), with_kwargs=True))
        else:
            then = silu if site == ACT and makes_z(module) else _unchanged
            handles.append(module.register_forward_hook(_record_output(captured, steps, then)))

    with lent(model) as handles:
        handles.append(anatomy.layers[0].register_forward_pre_hook(_note_rows(captured), with_kwargs=True))
        watch(EMBEDDING, ONCE, anatomy.layers[0], reads_input=True)
        watch(FINAL, ONCE, anatomy.final_norm, reads_input=True)
        for layer in behind:
            watch(RESIDUAL, layer, anatomy.layers[layer + 1], reads_input=True)
        for layer in range(anatomy.n_layers):
            if anatomy.mixtures:
                handles += watch_mixture(captured, layer, anatomy.layers[layer], anatomy.mixtures[layer], with_act)
            for site, module in _read(anatomy, layer):
                watch(site, layer, module, reads_input=True)
            for site, module in _written(anatomy, layer):
                watch(site, layer, module, reads_input=False)
            if with_act and anatomy.is_gated and anatomy.activations:
                watch(ACT, layer, anatomy.activations[layer], reads_input=False)
        yield captured
    counts = {f"{site} {layer}": len(steps) for (site, layer), steps in captured.steps.items()}
    assert captured.n_steps > 0, "no forward pass ran inside the block, or the hook of the final norm never fired"
    assert set(counts.values()) == {captured.n_steps}, f"hooks fired unevenly: {counts}"


def _read(anatomy: Anatomy, layer: int) -> Iterator[tuple[str, nn.Module]]:
    """Sites of a layer that are what a module is given."""
    if not anatomy.mixtures:
        yield ACTIVATION, anatomy.ffn_outs[layer]
    if anatomy.post_ffns:
        yield FFN, anatomy.post_ffns[layer]
    if anatomy.has_inner_norms:
        yield from zip(INNER, anatomy.mixtures[layer].inner_norms, strict=True)


def _written(anatomy: Anatomy, layer: int) -> Iterator[tuple[str, nn.Module]]:
    """Sites of a layer that are what a module makes and adds to the stream."""
    if (attention := anatomy.attentions[layer]) is not None:
        yield ATTENTION, attention
    yield from ((term, parts[layer]) for term, parts in anatomy.others.items())


@dataclass
class _Parts:
    """What was seen of one layer of a mixture in the pass that runs, by site: of its experts, and of what is beside
    them with its gate.
    """

    routed: dict[str, Tensor] = field(default_factory=dict)
    plain: dict[str, Tensor] = field(default_factory=dict)
    gate: Tensor | None = None

    def compact(self, site: str, mixture: Mixture, nothing: Float[Tensor, "batch n 0"]) -> Float[Tensor, "batch n w"]:
        parts = [nothing]
        parts += [self.routed[site]] if mixture.routed is not None else []
        if mixture.plain is not None:
            parts.append(self.plain[site] if self.gate is None else self.plain[site] * self.gate)
        return torch.cat(parts, dim=-1)


def watch_mixture(
    captured: Captured, layer: int, module: nn.Module, mixture: Mixture, with_act: bool = False
) -> list[Any]:
    """Hooks that put a layer's compact activations together at its end, from what its parts were given."""
    seen = _Parts()
    sites = (ACTIVATION, ACT) if with_act else (ACTIVATION,)
    captured.steps |= {(site, layer): [] for site in sites}

    def note_call(call: Call, _output: Tensor) -> None:
        last = call.detached().at_last(captured.n_rows, captured.n_last)
        reads = {ACTIVATION: last.activations, ACT: last.gate_acts}
        seen.routed = {site: reads[site]().unflatten(0, (captured.n_rows, -1)) for site in sites}
        captured.steps[EXPERTS, layer] += captured.keep(last.chosen.unflatten(0, (captured.n_rows, -1)))

    def put_together(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        stream = output[0] if isinstance(output, tuple) else output
        nothing = stream.new_empty(captured.n_rows, min(captured.n_last, stream.shape[1]), 0)
        for site in sites:
            captured.steps[site, layer] += captured.keep(seen.compact(site, mixture, nothing))
        seen.routed, seen.plain, seen.gate = {}, {}, None

    handles = _watch_beside_experts(captured, mixture, seen, with_act)
    if mixture.routed is not None:
        captured.steps[EXPERTS, layer] = []
        handles += watch_calls(mixture.routed, lambda: captured.n_rows, note_call)
    return [*handles, module.register_forward_hook(put_together)]


def _watch_beside_experts(captured: Captured, mixture: Mixture, seen: _Parts, with_act: bool) -> list[Any]:
    def note_plain(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.plain[ACTIVATION] = _last_values(first_given(args, kwargs), captured)

    def note_act(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
        seen.plain[ACT] = _last_values(output, captured)

    def note_gate(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
        seen.gate = _last_values(output, captured).sigmoid()

    handles: list[Any] = []
    if mixture.plain is not None:
        handles.append(mixture.plain.register_forward_pre_hook(note_plain, with_kwargs=True))
    if with_act and mixture.activation is not None:
        handles.append(mixture.activation.register_forward_hook(note_act))
    if mixture.gate is not None:
        handles.append(mixture.gate.register_forward_hook(note_gate))
    return handles


def _note_rows(captured: Captured) -> Callable[..., None]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        captured.n_rows = len(first_given(args, kwargs))

    return hook


def _record_input(captured: Captured, steps: list[Tensor]) -> Callable[..., None]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        steps.extend(_last_positions(first_given(args, kwargs), captured))

    return hook


def _record_output(captured: Captured, steps: list[Tensor], then: Callable[..., Tensor]) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        steps.extend(_last_positions(then(output[0] if isinstance(output, tuple) else output), captured))

    return hook


def _unchanged(values: Tensor) -> Tensor:
    return values


def makes_z(activation: nn.Module) -> bool:
    """Whether the module is the matrix whose output is z: where SiLU is a function (LFM2), there is no module of it."""
    return isinstance(activation, nn.Linear)


def require_act(model: Model, what: str) -> None:
    """Raises `UsageError` for a mixture with a matrix beside its experts whose act(gate) no module makes (MiniMax)."""
    for layer, one in enumerate(model.anatomy.mixtures):
        if one.plain is not None and (one.activation is None or makes_z(one.activation)):
            raise UsageError(
                f"{what} is not there for {model.facts.name}: what is beside the experts of layer {layer} has no "
                "module for act(gate), so that it cannot be read without the up factor"
            )


def first_given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]


def given_instead(
    args: tuple[Any, ...], kwargs: dict[str, Any], value: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a module is given, with another value for its first."""
    return ((value, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": value})


def _last_positions(values: Tensor, captured: Captured) -> list[Float[Tensor, "batch width"]]:
    """The last positions' values, copied, so that the others can be freed.

    OPT hands its FFN all rows' positions as one list, so the shape is taken from the number of rows.
    """
    return captured.keep(_last_values(values, captured))


def _last_values(values: Tensor, captured: Captured) -> Float[Tensor, "batch n width"]:
    assert captured.n_rows > 0, "a site fired before the first decoder layer: it is no part of the text decoder"
    by_row = values.detach().reshape(captured.n_rows, -1, values.shape[-1])
    return by_row[:, -captured.n_last :]


@dataclass
class Graph:
    """One forward pass with its autograd graph: z (the input of the non-linearity) and a of every layer, and the
    residual stream before the final norm.
    """

    z: list[Float[Tensor, "batch positions m"]] = field(default_factory=list)
    a: list[Float[Tensor, "batch positions m"]] = field(default_factory=list)
    final: Float[Tensor, "batch positions d"] = field(default_factory=lambda: torch.empty(0, 0, 0))

    def sites(self, of_activation: bool) -> list[Tensor]:
        """a, or z, of all layers but the last: what attribution at image tokens is differentiated by."""
        return self.a[:-1] if of_activation else self.z[:-1]


@contextmanager
def capture_graph(model: Model) -> Iterator[Graph]:
    """Records z and a of every layer, differentiable, during the one forward pass inside the block.

    The graph starts at the first layer's z: parameters are frozen and nothing before it needs a gradient.

    Raises:
        AssertionError: not exactly one forward pass ran, or a hook never fired.
    """
    anatomy = model.anatomy
    graph = Graph()

    def note(values: list[Tensor], value: Tensor) -> None:
        if not value.requires_grad:
            value.requires_grad_(True)
        values.append(value)

    def keep(values: list[Tensor]) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            note(values, first_given(args, kwargs))

        return hook

    def keep_output(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
        note(graph.z, output)

    final: list[Tensor] = []
    with lent(model) as handles:
        for layer in range(anatomy.n_layers):
            activation = anatomy.activations[layer]
            if makes_z(activation):
                handles.append(activation.register_forward_hook(keep_output))
            else:
                handles.append(activation.register_forward_pre_hook(keep(graph.z), with_kwargs=True))
            handles.append(anatomy.ffn_outs[layer].register_forward_pre_hook(keep(graph.a), with_kwargs=True))
        handles.append(anatomy.final_norm.register_forward_pre_hook(keep(final), with_kwargs=True))
        yield graph
    counts = (len(graph.z), len(graph.a), len(final))
    assert counts == (anatomy.n_layers, anatomy.n_layers, 1), f"hooks fired unevenly: z, a, final {counts}"
    graph.final = final[0]


@dataclass
class CapturedUnits:
    """Activations a of chosen units at every position; `passes[layer][n]` is (batch, positions, units of that layer).

    `units` are the chosen ones as they were asked for; within a layer they are recorded in the order of `columns`.
    """

    units: tuple[Neuron, ...]
    columns: dict[int, tuple[int, ...]]
    home: torch.device
    n_rows: int = 0
    passes: dict[int, list[Float[Tensor, "batch positions width"]]] = field(default_factory=dict)

    def read(self, number: int = 0) -> Float[Tensor, "batch positions n"]:
        """Forward pass `number` in the order of `units`, in float32."""
        parts = [
            self.passes[one.layer][number][..., self.columns[one.layer].index(one.unit)].float() for one in self.units
        ]
        return torch.stack(parts, dim=-1)


@contextmanager
def capture_units(model: Model, units: Sequence[Neuron]) -> Iterator[CapturedUnits]:
    """Records a of `units` at every position of the forward passes inside the block, and of no other unit.

    Raises:
        AssertionError: a unit that the model does not have, or a hook that never fired.
    """
    anatomy = model.anatomy
    assert units, "no units to capture"
    for one in units:
        assert one < Neuron(anatomy.n_layers, 0), f"{one} of a model of {anatomy.n_layers} layers"
        n_units = anatomy.mixtures[one.layer].n_units if anatomy.mixtures else anatomy.d_mlp
        assert one.unit < n_units, f"{one} of a layer of {n_units} units"
    layers = sorted({one.layer for one in units})
    columns = {layer: tuple(sorted({one.unit for one in units if one.layer == layer})) for layer in layers}
    captured = CapturedUnits(tuple(units), columns, anatomy.home, passes={layer: [] for layer in layers})

    def note_rows(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        captured.n_rows = len(first_given(args, kwargs))

    def record(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            values = first_given(args, kwargs).detach()
            chosen = values[..., list(columns[layer])]  # indexing copies: the whole activation can be freed
            captured.passes[layer].append(chosen.reshape(captured.n_rows, -1, chosen.shape[-1]).to(captured.home))

        return hook

    with lent(model) as handles:
        handles.append(anatomy.layers[0].register_forward_pre_hook(note_rows, with_kwargs=True))
        for layer in layers:
            if anatomy.mixtures:
                handles += _watch_units(captured, layer, anatomy.layers[layer], anatomy.mixtures[layer])
                continue
            out = anatomy.ffn_outs[layer]
            handles.append(out.register_forward_pre_hook(record(layer), with_kwargs=True))
        yield captured
    counts = {layer: len(passes) for layer, passes in captured.passes.items()}
    assert min(counts.values()) > 0, f"no forward pass ran inside the block, or a hook never fired: {counts}"
    assert len(set(counts.values())) == 1, f"hooks fired unevenly: {counts}"


def _watch_units(captured: CapturedUnits, layer: int, module: nn.Module, mixture: Mixture) -> list[Any]:
    """Hooks that record a of chosen units of a layer with experts, 0 where a token did not go through a unit's own."""
    seen: dict[str, Tensor] = {}
    units = torch.tensor(captured.columns[layer])
    plain_units = units[units >= mixture.start] - mixture.start
    handles: list[Any] = []

    def by_row(values: Tensor) -> Tensor:
        return values.detach().reshape(captured.n_rows, -1, values.shape[-1])

    def note_call(call: Call, _output: Tensor) -> None:
        seen["routed"] = _of_units(call.detached(), mixture, units[units < mixture.start], captured.n_rows)

    def note_plain(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen["plain"] = by_row(first_given(args, kwargs)[..., plain_units])

    def note_gate(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
        seen["gate"] = by_row(output).sigmoid()

    def put_together(_module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        if "plain" in seen:
            seen["plain"] = seen["plain"] * seen.pop("gate", 1)
        parts = [seen[name] for name in ("routed", "plain") if name in seen]
        captured.passes[layer].append(torch.cat(parts, dim=-1).to(captured.home))
        seen.clear()

    if mixture.routed is not None and (units < mixture.start).any():
        handles += watch_calls(mixture.routed, lambda: captured.n_rows, note_call)
    if mixture.plain is not None and len(plain_units):
        handles.append(mixture.plain.register_forward_pre_hook(note_plain, with_kwargs=True))
        if mixture.gate is not None:
            handles.append(mixture.gate.register_forward_hook(note_gate))
    return [*handles, module.register_forward_hook(put_together)]


def _of_units(
    call: Call, mixture: Mixture, units: Int[Tensor, " n"], n_rows: int
) -> Float[Tensor, "batch positions n"]:
    found = call.x.new_zeros(n_rows, int(call.position.max()) + 1, len(units))
    for expert, at, within in mixture.by_expert(units):
        token, _, a = call.of(expert)
        where = (call.row[token][:, None], call.position[token][:, None], at.to(found.device))
        found[where] = (a[:, within] * call.routed.factor).to(found.dtype)
    return found

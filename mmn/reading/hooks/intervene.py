"""What a forward pass computes, changed while it is computed: units ablated, columns added to, image tokens permuted.

No weight is touched. Each row of a batch has its own change, so that many variants of one picture share a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmn.models.adapters.experts import Mixture
from mmn.models.adapters.structure import values_of
from mmn.models.float64 import place_of_wide
from mmn.models.model import Model
from mmn.reading.hooks.capture import first_given
from mmn.reading.hooks.entering import before_decoder
from mmn.reading.hooks.experts import Call, watch_calls
from mmn.reading.hooks.lending import lent


@contextmanager
def ablate(
    model: Model,
    mask: Bool[Tensor, "rows L m"],
    factor: float | Float[Tensor, " rows"] = 0.0,
    only_at: Bool[Tensor, " prompt"] | None = None,
    first: int = 0,
) -> Iterator[None]:
    """Multiplies a of each row's masked units by `factor` at every position of the forward passes inside the block.

    At 0 they are zeroed: what they write, in the prompt and in the picture's tokens too, is gone (P1, figure 6). At
    another factor f the FFN writes (f − 1) · a_i · W_out[:, i] more of each; at 1 nothing changes, bit for bit.
    Rows do not touch each other, and a row without masked units computes what the plain model does, bit for bit.
    Of routed experts what the units wrote is taken away again behind them: equal up to rounding.

    Args:
        model: Its lock is held inside the block.
        mask: Which units of which row of the batch; every pass inside the block has that many rows.
        factor: What a is multiplied by, the same for all rows or one for each; 1 − ε for a small step towards zero.
        only_at: The positions of the prompt, the same in all rows, at which it is done; None for all, and for those
            behind the prompt. A generation's later passes of one token are then left alone.
        first: The layer that passes inside the block begin with, where they go again from it on (`Recorded.onward`).

    Raises:
        AssertionError: another number of rows, a pass of a part of the prompt, or a hook that never fired.
    """
    layers = mask.any(2).any(0).nonzero()[:, 0].tolist()
    place = place_of_wide(mask.device)
    by_row = torch.as_tensor(factor, dtype=torch.float64).to(place).expand(len(mask))[:, None]
    kept = {layer: torch.where(mask[:, layer].to(place), by_row, 1.0).to(model.dtype)[:, None] for layer in layers}

    def multiply(layer: int, units: slice = slice(None)) -> Callable[..., Any]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            a = args[0]
            rows = a.reshape(len(mask), -1, a.shape[-1])
            share = _at(only_at, rows.shape[1], kept[layer][..., units].to(a.device))
            return ((rows * share).reshape(a.shape), *args[1:])

        return hook

    with _borrowed(model, len(mask), first) as borrowed:
        for layer in layers:
            if not model.anatomy.mixtures:
                module = model.anatomy.ffn_outs[layer]
                borrowed.add(module.register_forward_pre_hook(borrowed.counted(layer, multiply(layer))))
                continue
            mixture = model.anatomy.mixtures[layer]
            _without_routed(borrowed, mixture, only_at, mask[:, layer], by_row)
            if mixture.plain is not None and mask[:, layer, mixture.start :].any():
                of_plain = multiply(layer, slice(mixture.start, mixture.n_units))
                borrowed.add(mixture.plain.register_forward_pre_hook(of_plain))
        yield


@contextmanager
def hold(
    model: Model,
    mask: Bool[Tensor, "rows L m"],
    values: Float[Tensor, "groups L m"],
    groups: Int[Tensor, " positions"],
) -> Iterator[None]:
    """Sets a of each row's masked units to a given value at every position: their means, in a mean ablation.

    Rows do not touch each other, and a row without masked units computes what the plain model does, bit for bit. An
    expert's unit is held at every position, too, whichever experts a token goes through; routers compute.

    Args:
        model: Its lock is held inside the block; no image tokens with experts of their own.
        mask: Which units of which row of the batch are held; every pass inside the block has that many rows.
        values: What they are held at, for each group of positions: of an expert's unit with the router's weight in it,
            of a shared one's with the gate.
        groups: The group of each position of every pass inside the block.

    Raises:
        AssertionError: another number of rows or positions, or a hook that never fired.
    """
    layers = mask.any(2).any(0).nonzero()[:, 0].tolist()

    def replace_by(is_held: Bool[Tensor, "rows m"], at: Float[Tensor, "groups m"]) -> Callable[..., Any]:
        held = at[groups].to(model.dtype)

        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            a = args[0]
            rows = a.reshape(len(mask), -1, a.shape[-1])
            changed = torch.where(is_held[:, None].to(a.device), held.to(a.device), rows)
            return (changed.reshape(a.shape), *args[1:])

        return hook

    with _borrowed(model, len(mask)) as borrowed:
        for layer in layers:
            if not model.anatomy.mixtures:
                hook = replace_by(mask[:, layer], values[:, layer])
                module = model.anatomy.ffn_outs[layer]
                borrowed.add(module.register_forward_pre_hook(borrowed.counted(layer, hook)))
                continue
            mixture = model.anatomy.mixtures[layer]
            if mixture.routed is not None:
                _hold_in_experts(borrowed, mixture, mask[:, layer], values[:, layer], groups)
            if mixture.plain is not None:
                own = slice(mixture.start, mixture.n_units)
                at = torch.zeros_like(values[:, layer, own]) if mixture.gate is not None else values[:, layer, own]
                borrowed.add(mixture.plain.register_forward_pre_hook(replace_by(mask[:, layer, own], at)))
        yield


def _hold_in_experts(
    borrowed: _Borrowed,
    mixture: Mixture,
    mask: Bool[Tensor, "rows m"],
    values: Float[Tensor, "groups m"],
    groups: Int[Tensor, " positions"],
) -> None:
    """What routed experts write with units held: what is left of those that compute, and all that are held at theirs.

    Where a gate is on what the units beside the experts write, those are held here: what they write is added to what
    the experts do, behind the gate, before which they are zeroed.
    """
    routed = mixture.routed
    assert routed is not None, "no routed experts"
    assert not (mixture.gate is not None and mixture.inner_norms), "what is beside a gate is added behind a norm"
    is_held = mask.clone()
    is_held[:, mixture.start :] &= mixture.gate is not None

    def then(call: Call, output: Tensor) -> Tensor:
        constant = _written_by_held(mixture, is_held.to(output.device), values.to(output.device))
        is_kept = (~is_held[:, : mixture.start]).to(output.device).unflatten(1, (routed.n_experts, -1))
        left = [one._replace(a=one.a * is_kept[call.row[one.token], one.expert]) for one in call.experts(routed.units)]
        every = torch.arange(len(call.row), device=output.device)
        more = constant[call.row, groups.to(output.device)[call.position]] / routed.factor
        flat = call.written(left, output).flatten(0, -2)
        flat = flat.index_add(0, call.in_output(0, every), more.to(flat.dtype))
        is_touched = is_held.any(1).to(output.device)[call.row].repeat(len(flat) // len(every))
        return torch.where(is_touched[:, None], flat, output.flatten(0, -2)).view_as(output)

    for handle in watch_calls(routed, lambda: len(mask), then):
        borrowed.add(handle)


def _written_by_held(
    mixture: Mixture, is_held: Bool[Tensor, "rows m"], values: Float[Tensor, "groups m"]
) -> Float[Tensor, "rows groups d"]:
    """What held units write, one expert after the other."""
    assert mixture.routed is not None, "no routed experts"
    found = torch.zeros((), device=values.device)
    size = mixture.routed.d_expert
    matrices = ((first, mixture.routed.w_out(first // size)) for first in range(0, mixture.start, size))
    own = [] if mixture.plain is None or mixture.gate is None else [(mixture.start, values_of(mixture.plain))]
    for first, w_out in (*matrices, *own):
        units = slice(first, first + w_out.shape[1])
        held = is_held[:, None, units] * values[None, :, units]
        found = held @ w_out.to(held).T + found
    return found


def _at(
    only_at: Bool[Tensor, " prompt"] | None, n_positions: int, share: Float[Tensor, "rows 1 m"]
) -> Float[Tensor, "rows positions m"]:
    """What is left of a at each position of a pass: `share` where it is to be done, 1 elsewhere."""
    if only_at is None:
        return share
    is_there = _is_there(only_at, n_positions).to(share.device)
    return torch.where(is_there[:, None], share, torch.ones_like(share))


def _is_there(only_at: Bool[Tensor, " prompt"], n_positions: int) -> Bool[Tensor, " positions"]:
    """At which positions of a pass it is to be done."""
    n_prompt = len(only_at)
    assert n_positions == 1 or n_positions >= n_prompt, f"a pass of {n_positions} positions, of a prompt of {n_prompt}"
    is_there = torch.zeros(n_positions, dtype=torch.bool)
    if n_positions >= n_prompt:
        is_there[:n_prompt] = only_at
    return is_there


def _without_routed(
    borrowed: _Borrowed,
    mixture: Mixture,
    only_at: Bool[Tensor, " prompt"] | None,
    mask: Bool[Tensor, "rows m"],
    factor: Float[Tensor, "rows 1"],
) -> None:
    """Takes 1 − factor of what masked units of routed experts wrote away, where a token went through them."""
    units = mask[:, : mixture.start].any(0).nonzero()[:, 0]
    if mixture.routed is None or not len(units):
        return
    taken = (factor - 1).float().to(mask.device) * mask[:, units]
    _write_more(borrowed, mixture, only_at, units, taken, mixture.columns(units).T)


def _write_more(
    borrowed: _Borrowed,
    mixture: Mixture,
    only_at: Bool[Tensor, " prompt"] | None,
    units: Int[Tensor, " n"],
    scale: Float[Tensor, "rows n"],
    delta: Float[Tensor, "n d"],
) -> None:
    """Adds scale · a · delta of routed experts' units to what the experts wrote, row by row of the batch."""
    by_expert = list(mixture.by_expert(units))

    def then(call: Call, output: Tensor) -> Tensor:
        scales, deltas = scale.to(output.device), delta.to(output)
        is_meant = (scales != 0).any(1)[call.row] & _is_meant(call, only_at)
        more = output.new_zeros(output.shape).flatten(0, -2)
        for expert, at, within in by_expert:
            token, _, a = call.of(expert)
            column, place = within.to(output.device), at.to(output.device)
            written = (a[:, column] * scales[:, place].to(a.dtype)[call.row[token]]) @ deltas[place].to(a.dtype)
            more.index_add_(0, call.in_output(expert, token), written.to(more.dtype))
        is_touched = is_meant.repeat(len(more) // len(call.row))
        changed = output.flatten(0, -2) + more
        return torch.where(is_touched[:, None], changed, output.flatten(0, -2)).view_as(output)

    assert mixture.routed is not None, "no routed experts"
    for handle in watch_calls(mixture.routed, lambda: len(scale), then):
        borrowed.add(handle)


def _is_meant(call: Call, only_at: Bool[Tensor, " prompt"] | None) -> Bool[Tensor, " t"]:
    """Which tokens of a call stand where it is to be done. The last of a row, which predicts, is in every call."""
    if only_at is None:
        return torch.ones_like(call.position, dtype=torch.bool)
    return _is_there(only_at, int(call.position.max()) + 1).to(call.position.device)[call.position]


@dataclass(frozen=True)
class AddedColumns:
    """What is added to columns of one layer's W_out for some rows of a batch.

    Row `rows[r]` has `scale[r, j]` · `delta[j]` added to the column of `units[j]`.
    """

    layer: int
    rows: Int[Tensor, " r"]
    units: Int[Tensor, " n"]
    delta: Float[Tensor, "n d"]
    scale: Float[Tensor, "r n"]


@contextmanager
def add_to_columns(model: Model, n_rows: int, added: Sequence[AddedColumns]) -> Iterator[None]:
    """Runs each row of a batch as if its own columns of W_out were changed; the weights stay as they are.

    W_out is linear: with Δ_i on column i the FFN writes Σ_i a_i · Δ_i more, which is what the hook adds to its output.

    Args:
        model: Its lock is held inside the block.
        n_rows: The rows of every pass inside the block.
        added: Several of one layer and row add up.

    Raises:
        AssertionError: another number of rows, or a hook that never fired.
    """

    def write_more(one: AddedColumns) -> Callable[..., Any]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            rows, units, scale = (values.to(output.device) for values in (one.rows, one.units, one.scale))
            a = args[0].reshape(n_rows, -1, args[0].shape[-1])[rows][..., units]
            by_row = output.reshape(n_rows, -1, output.shape[-1])
            more = (a * scale.to(model.dtype)[:, None]) @ one.delta.to(a)
            return by_row.index_add(0, rows, more).reshape(output.shape)

        return hook

    with _borrowed(model, n_rows) as borrowed:
        for number, one in enumerate(added):
            if model.anatomy.mixtures:
                _add_to_experts(borrowed, model.anatomy.mixtures[one.layer], n_rows, one, write_more)
                continue
            module = model.anatomy.ffn_outs[one.layer]
            borrowed.add(module.register_forward_hook(borrowed.counted(number, write_more(one))))
        yield


def _add_to_experts(
    borrowed: _Borrowed,
    mixture: Mixture,
    n_rows: int,
    one: AddedColumns,
    write_more: Callable[[AddedColumns], Callable[..., Any]],
) -> None:
    is_routed = one.units < mixture.start
    if is_routed.any():
        scale = torch.zeros(n_rows, int(is_routed.sum()), device=one.scale.device, dtype=one.scale.dtype)
        scale[one.rows] = one.scale[:, is_routed]
        _write_more(borrowed, mixture, None, one.units[is_routed], scale, one.delta[is_routed])
    if not is_routed.all():
        assert mixture.plain is not None, one.units
        own = ~is_routed
        plain = replace(one, units=one.units[own] - mixture.start, delta=one.delta[own], scale=one.scale[:, own])
        borrowed.add(mixture.plain.register_forward_hook(write_more(plain)))


@dataclass
class _Borrowed:
    """Hooks that change what a pass computes, and how often each fired."""

    handles: list[Any] = field(default_factory=list)
    fired: dict[int, int] = field(default_factory=dict)
    n_passes: int = 0

    def add(self, handle: Any) -> None:
        self.handles.append(handle)

    def counted(self, number: int, hook: Callable[..., Any]) -> Callable[..., Any]:
        self.fired[number] = 0

        def count(*given: Any) -> Any:
            self.fired[number] += 1
            return hook(*given)

        return count


@contextmanager
def _borrowed(model: Model, n_rows: int, first: int = 0) -> Iterator[_Borrowed]:
    """Takes the hooks off again whatever happens, and asserts that every pass had its rows and fired every hook."""
    borrowed = _Borrowed()

    def check_rows(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found = len(first_given(args, kwargs))
        assert found == n_rows, f"an intervention on {n_rows} rows, but a pass of {found}"
        borrowed.n_passes += 1

    with lent(model) as borrowed.handles:
        borrowed.add(model.anatomy.layers[first].register_forward_pre_hook(check_rows, with_kwargs=True))
        yield borrowed
    assert borrowed.n_passes > 0, "no forward pass ran inside the block"
    fired = set(borrowed.fired.values())
    assert fired <= {borrowed.n_passes}, f"hooks fired unevenly in {borrowed.n_passes} passes: {borrowed.fired}"


@contextmanager
def permuted(model: Model, sources: Int[Tensor, "batch prompt"]) -> Iterator[None]:
    """Hands the decoder the prompt's embeddings in another order: position p gets the embedding of `sources[row, p]`.

    It acts on what enters the decoder, after the projector and before any position is added, in every pass that holds
    the whole prompt, with or without a caption after it; a generation's later passes are left alone.

    Args:
        model: Its lock is held inside the block.
        sources: For each row a permutation of the prompt's positions.

    Raises:
        AssertionError: no pass held the prompt, or one held a part of it.
    """
    n_prompt = sources.shape[1]
    n_permuted = 0

    def permute(embeddings: Float[Tensor, "batch positions d"]) -> Float[Tensor, "batch positions d"] | None:
        nonlocal n_permuted
        if embeddings.shape[1] == 1:
            return None
        n_rows, n_positions, width = embeddings.shape
        assert n_rows == len(sources), f"{n_rows} rows in a pass, {len(sources)} to be permuted"
        assert n_positions >= n_prompt, f"a pass of {n_positions} positions, of a prompt of {n_prompt}"
        index = sources.to(embeddings.device)[..., None].expand(-1, -1, width)
        prompt = embeddings[:, :n_prompt].gather(1, index)
        n_permuted += 1
        return torch.cat([prompt, embeddings[:, n_prompt:]], dim=1)

    with before_decoder(model, permute):
        yield
    assert n_permuted > 0, "no pass over the whole prompt ran inside the block, or the decoder's hook never fired"


@dataclass
class Spread:
    """The decoder's image tokens in one pass: `tokens` as it is given them, and how far they are from their mean.

    Both are 0 at the other positions; `tokens` can be differentiated with respect to.
    """

    tokens: Float[Tensor, "batch positions d"] = field(default_factory=lambda: torch.empty(0, 0, 0))
    spread: Float[Tensor, "batch positions d"] = field(default_factory=lambda: torch.empty(0, 0, 0))


@contextmanager
def towards_mean(model: Model, mask: Bool[Tensor, "batch prompt"], alpha: float) -> Iterator[Spread]:
    """Hands the decoder x̄ + α (x − x̄) for each image token x of the one pass inside; x̄ is their mean in that picture.

    Args:
        model: Its lock is held inside the block.
        mask: the prompt's positions that hold the picture.
        alpha: 1 leaves the tokens as they are, at 0 all are alike.

    Raises:
        AssertionError: not exactly one pass over the whole prompt ran inside.
    """
    found: list[Spread] = []
    held = Spread()

    def move(given: Float[Tensor, "batch positions d"]) -> Float[Tensor, "batch positions d"]:
        embeddings = given.detach()
        more = embeddings.shape[1] - mask.shape[1]
        assert more >= 0, f"a pass of {embeddings.shape[1]} positions, of a prompt of {mask.shape[1]}"
        is_image = torch.cat([mask, mask.new_zeros(len(mask), more)], dim=1)[..., None].to(embeddings)
        mean = (embeddings * is_image).sum(1, keepdim=True) / is_image.sum(1, keepdim=True)
        held.spread = (embeddings - mean) * is_image
        held.tokens = ((mean + alpha * held.spread) * is_image).requires_grad_(True)
        found.append(held)
        return embeddings * (1 - is_image) + held.tokens

    with before_decoder(model, move):
        yield held
    assert len(found) == 1, f"{len(found)} passes inside the block"

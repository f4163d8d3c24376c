"""The only file that registers hooks: what a forward pass computes, read while it is computed.

`capture` is borrowed with `with`; its hooks are gone afterwards, whatever happened. A site whose hook never fired is
an error, not a warning: a chart drawn from a site that does not exist would still look right.

Sites, per decoder layer where not said otherwise, each at the last position of every forward pass, which is the one
that predicts the next token (with left padding it is no padding in any row):

    activation   a, the input of the FFN's output matrix (m)
    act          act(gate) of a gated FFN, without the up factor (m); only on request
    attention    what the attention adds to the residual stream (d)
    embedding    the residual stream before the first layer (d), once
    final        the residual stream before the final norm (d), once
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmn.models import Model

ACTIVATION, ACT, ATTENTION, EMBEDDING, FINAL = "activation", "act", "attention", "embedding", "final"
ONCE = 0  # the layer under which the sites that exist once are kept


@dataclass
class Captured:
    """What the hooks saw: `steps[(site, layer)][step]` is (batch, width), one step for each forward pass."""

    n_layers: int
    n_rows: int = 0
    steps: dict[tuple[str, int], list[Float[Tensor, "batch width"]]] = field(default_factory=dict)

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
        return torch.stack([self.read(site, layer, rows, steps) for layer in range(self.n_layers)], dim=1)


@contextmanager
def capture(model: Model, with_act: bool = False) -> Iterator[Captured]:
    """Records every site of `model` during the forward passes inside the block.

    Raises:
        AssertionError: a hook never fired, or the sites saw different numbers of passes.
    """
    anatomy = model.anatomy
    captured = Captured(anatomy.n_layers)
    handles: list[Any] = []

    def watch(site: str, layer: int, module: nn.Module, *, reads_input: bool) -> None:
        steps = captured.steps[site, layer] = []
        if reads_input:
            handles.append(module.register_forward_pre_hook(_record_input(captured, steps), with_kwargs=True))
        else:
            handles.append(module.register_forward_hook(_record_output(captured, steps)))

    with model.lock:
        try:
            handles.append(anatomy.layers[0].register_forward_pre_hook(_note_rows(captured), with_kwargs=True))
            watch(EMBEDDING, ONCE, anatomy.layers[0], reads_input=True)
            watch(FINAL, ONCE, anatomy.final_norm, reads_input=True)
            for layer in range(anatomy.n_layers):
                watch(ACTIVATION, layer, anatomy.ffn_outs[layer], reads_input=True)
                watch(ATTENTION, layer, anatomy.attentions[layer], reads_input=False)
                if with_act and anatomy.activations is not None:
                    watch(ACT, layer, anatomy.activations[layer], reads_input=False)
            yield captured
        finally:
            for handle in handles:
                handle.remove()
    counts = {f"{site} {layer}": len(steps) for (site, layer), steps in captured.steps.items()}
    assert captured.n_steps > 0, "no forward pass ran inside the block, or the hook of the final norm never fired"
    assert set(counts.values()) == {captured.n_steps}, f"hooks fired unevenly: {counts}"


def _note_rows(captured: Captured) -> Callable[..., None]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        captured.n_rows = len(_first(args, kwargs))

    return hook


def _record_input(captured: Captured, steps: list[Tensor]) -> Callable[..., None]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        steps.append(_last_position(_first(args, kwargs), captured.n_rows))

    return hook


def _record_output(captured: Captured, steps: list[Tensor]) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        steps.append(_last_position(output[0] if isinstance(output, tuple) else output, captured.n_rows))

    return hook


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]


def _last_position(values: Tensor, n_rows: int) -> Float[Tensor, "batch width"]:
    """The last position's values; copied where they are part of a whole prompt's, so that this can be freed.

    OPT hands its FFN all rows' positions as one list, so the shape is taken from the number of rows.
    """
    by_row = values.detach().reshape(n_rows, -1, values.shape[-1])
    return by_row[:, -1] if by_row.shape[1] == 1 else by_row[:, -1].clone()

"""The two matrices by which a gated FFN reads: a_i = act(W_gate[i] · x) · (W_up[i] · x)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from mmn.errors import UnsupportedModelError
from mmn.models.adapters.structure import GATES, UPS
from mmn.models.model import Model


@dataclass(frozen=True)
class Readers:
    """Of one layer; row i of each is unit i's."""

    gate: nn.Linear
    up: nn.Linear


def readers(model: Model) -> tuple[Readers, ...]:
    """The matrices of every layer.

    Raises:
        UnsupportedModelError: an FFN without a gate, or with both in one matrix, or a mixture of experts.
    """
    if model.anatomy.mixtures or not model.anatomy.is_gated:
        raise UnsupportedModelError(_reason(model))
    return tuple(_of_layer(model, layer) for layer in range(model.anatomy.n_layers))


def _of_layer(model: Model, layer: int) -> Readers:
    written = model.anatomy.ffn_outs[layer]
    holders = [one for one in model.anatomy.layers[layer].modules() if written in one.children()]
    named = dict(holders[0].named_children()) if holders else {}
    gate = next((named[name] for name in GATES if name in named), None)
    up = next((named[name] for name in UPS if name in named), None)
    if not isinstance(gate, nn.Linear) or not isinstance(up, nn.Linear):
        raise UnsupportedModelError(_reason(model))
    return Readers(gate, up)


def _reason(model: Model) -> str:
    return (
        f"units are planted in FFNs that have one matrix for the gate and one beside it, and {model.facts.name} "
        f"({model.facts.family}) has others: take specimen, specimen-frozen, or a model of Llama's kind"
    )

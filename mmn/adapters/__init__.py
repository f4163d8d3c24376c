"""What differs between model families, and nothing else: declared, not coded.

`find_adapter` matches a loaded model with its family (`families.py`) and its text decoder (`decoders.py`) and
returns its `Anatomy`: the very modules that scores are read from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmn.adapters.decoders import DECODERS, Decoder, Norm
from mmn.adapters.families import FAMILIES, Family
from mmn.errors import UnsupportedModelError

__all__ = ["DECODERS", "FAMILIES", "Anatomy", "Decoder", "Family", "Norm", "find_anatomy", "find_family"]


@dataclass(frozen=True)
class Anatomy:
    """The modules of one model that scores are read from; lists are by layer. `decoder` is the whole text decoder."""

    decoder: nn.Module
    layers: tuple[nn.Module, ...]
    attentions: tuple[nn.Module, ...]
    ffn_outs: tuple[nn.Linear, ...]
    activations: tuple[nn.Module, ...]
    is_gated: bool
    final_norm: nn.Module
    norm: Norm
    unembedding: nn.Linear

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def d_mlp(self) -> int:
        return self.w_out(0).shape[1]

    def w_out(self, layer: int) -> Float[Tensor, "d m"]:
        """W_out of a layer; column i is what unit i writes into the residual stream."""
        return self.ffn_outs[layer].weight

    def ffn_bias(self, layer: int) -> Float[Tensor, " d"] | None:
        return self.ffn_outs[layer].bias

    def w_u(self, token_ids: Tensor) -> Float[Tensor, "n d"]:
        """Rows of the unembedding, in float32; never the whole matrix."""
        return self.unembedding.weight[token_ids].float()

    def logit_bias(self, token_ids: Tensor) -> Float[Tensor, " n"]:
        bias = self.unembedding.bias
        return torch.zeros(len(token_ids), device=token_ids.device) if bias is None else bias[token_ids].float()


def find_family(model_type: str) -> Family:
    """The family of a checkpoint; raises `UnsupportedModelError` with the list of those there are."""
    if model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"no adapter for models of type {model_type!r}; supported are {', '.join(FAMILIES)} "
            f"(README, «Add a model», says how to add one)"
        )
    return FAMILIES[model_type]


def find_anatomy(model: nn.Module, family: Family) -> Anatomy:
    """Resolves the declared paths in a loaded model; raises `UnsupportedModelError` where the decoder is not known."""
    decoder_module = _get(model, family.decoder)
    decoder_type = decoder_module.config.model_type
    if decoder_type not in DECODERS:
        raise UnsupportedModelError(
            f"this {family.model_type} model speaks through a {decoder_type!r} decoder, for which there is no adapter; "
            f"supported are {', '.join(DECODERS)}"
        )
    declared = DECODERS[decoder_type]
    layers = tuple(_get(decoder_module, declared.layers))
    return Anatomy(
        decoder=decoder_module,
        layers=layers,
        attentions=tuple(_get(layer, declared.attention) for layer in layers),
        ffn_outs=tuple(_get(layer, declared.ffn_out) for layer in layers),
        activations=tuple(_get(layer, declared.activation) for layer in layers),
        is_gated=declared.is_gated,
        final_norm=_get(decoder_module, declared.final_norm),
        norm=declared.norm,
        unembedding=_get(model, family.unembedding),
    )


def _get(module: nn.Module, path: str) -> Any:
    for name in path.split("."):
        if not hasattr(module, name):
            raise UnsupportedModelError(f"{type(module).__name__} has no {name!r} (of the declared path {path!r})")
        module = getattr(module, name)
    return module

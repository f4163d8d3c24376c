"""What differs between model families: declared, not coded.

`find_family` and `find_decoder` look up a model's family (`families.py`) and text decoder (`decoders.py`);
`find_anatomy` resolves them in a loaded model as its `Anatomy`: the very modules that scores are read from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmn.errors import UnsupportedModelError
from mmn.models.adapters.decoders import DECODERS, Decoder, Norm
from mmn.models.adapters.families import CLASS_TOKENS, FAMILIES, OTHER_LAYOUTS, Family

__all__ = [
    "CLASS_TOKENS",
    "DECODERS",
    "FAMILIES",
    "OTHER_LAYOUTS",
    "Anatomy",
    "Decoder",
    "Family",
    "Norm",
    "find_anatomy",
    "find_decoder",
    "find_family",
]


@dataclass(frozen=True)
class Anatomy:
    """The modules of one model that scores are read from; lists are by layer. `decoder` is the whole text decoder.

    Attributes:
        attentions: the module whose output is added to the residual stream: the attention, or the norm behind it.
        post_ffns: the norms between W_out and the residual stream, () where there are none.
        multiplier: that both blocks are multiplied by before they are added.
        head_factor: that the product with W_U is multiplied by.
        soft_cap: c of logits = c · tanh(x / c), None without.
    """

    decoder: nn.Module
    layers: tuple[nn.Module, ...]
    attentions: tuple[nn.Module, ...]
    ffn_outs: tuple[nn.Linear, ...]
    activations: tuple[nn.Module, ...]
    is_gated: bool
    final_norm: nn.Module
    norm: Norm
    unembedding: nn.Linear
    post_ffns: tuple[nn.Module, ...] = ()
    multiplier: float = 1.0
    head_factor: float = 1.0
    soft_cap: float | None = None

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
        """The unembedding's own part of the logits of some tokens."""
        bias = self.unembedding.bias
        if bias is None:
            return torch.zeros(len(token_ids), device=token_ids.device)
        return self.head_factor * bias[token_ids].float()

    def logits(self, products: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """What the model makes of products with its unembedding: its factor, then its soft cap."""
        logits = self.head_factor * products if self.head_factor != 1 else products
        return logits if self.soft_cap is None else self.soft_cap * torch.tanh(logits / self.soft_cap)

    def uncapped(self, logits: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """The logits before the soft cap, which scores are of: they are what the terms of the budget add up to."""
        if self.soft_cap is None:
            return logits
        return self.soft_cap * torch.atanh(logits.double() / self.soft_cap).to(logits.dtype)


def find_family(model_type: str) -> Family:
    """The family of a checkpoint; raises `UnsupportedModelError` with the list of those there are."""
    if model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"no adapter for models of type {model_type!r}; supported are {', '.join(FAMILIES)} "
            f"(README, «Add a model», says how to add one)"
        )
    return FAMILIES[model_type]


def find_decoder(text_config: Any, family: Family) -> Decoder:
    """Where the parts of a family's text decoder are; raises `UnsupportedModelError` where it is not known."""
    decoder_type = getattr(text_config, "model_type", None)
    if decoder_type not in DECODERS:
        form = ", an encoder and a decoder" if getattr(text_config, "is_encoder_decoder", False) else ""
        raise UnsupportedModelError(
            f"this {family.model_type} model uses a {decoder_type!r} text decoder{form}, for which there is no "
            f"adapter; supported are {', '.join(DECODERS)}"
        )
    return DECODERS[decoder_type]


def find_anatomy(model: Any, family: Family) -> Anatomy:
    """Resolves the declared paths in a model, with its weights or on the `meta` device without them.

    Raises:
        UnsupportedModelError: the decoder is not known, or this form of it lacks a part, or a part is no plain matrix
            of floats: what scores are read from must be what is multiplied.
    """
    text_config = model.config.text_config
    declared = find_decoder(text_config, family)
    decoder_module = _get(model, family.decoder)
    layers = tuple(_get(decoder_module, declared.layers))
    anatomy = Anatomy(
        decoder=decoder_module,
        layers=layers,
        attentions=tuple(_get(layer, declared.post_attention or declared.attention) for layer in layers),
        ffn_outs=tuple(_get(layer, declared.ffn_out) for layer in layers),
        activations=tuple(_get(layer, declared.activation) for layer in layers),
        is_gated=declared.is_gated,
        final_norm=_get(decoder_module, declared.final_norm),
        norm=declared.norm,
        unembedding=_get(model, family.unembedding),
        post_ffns=tuple(_get(layer, declared.post_ffn) for layer in layers) if declared.post_ffn else (),
        multiplier=float(getattr(layers[0], declared.multiplier)) if declared.multiplier and layers else 1.0,
        head_factor=_head_factor(text_config, family),
        soft_cap=getattr(text_config, family.soft_cap, None) if family.soft_cap else None,
    )
    _require_plain(anatomy, declared, family)
    return anatomy


def _require_plain(anatomy: Anatomy, declared: Decoder, family: Family) -> None:
    """One nn.Linear of one size for W_out of each layer and for W_U, and all of them, and the norm, in plain floats."""
    if not anatomy.layers:
        raise UnsupportedModelError(f"this {family.model_type} model's text decoder has no layers")
    matrices: dict[str, nn.Module] = {
        f"{declared.ffn_out} of layer {layer}": out for layer, out in enumerate(anatomy.ffn_outs)
    }
    matrices[family.unembedding] = anatomy.unembedding
    for name, module in matrices.items():
        if type(module) is not nn.Linear:  # quantised and LoRA layers are subclasses, or wrap one
            raise UnsupportedModelError(
                f"{name} is a {type(module).__module__}.{type(module).__name__}, no plain nn.Linear (quantised, or "
                "with an adapter?); scores are read from plain float matrices"
            )
    for name, module in (
        matrices | {declared.final_norm: anatomy.final_norm, family.unembedding: anatomy.unembedding}
    ).items():
        _require_floats(name, module)
    _require_sizes(anatomy, declared, family)


def _require_floats(name: str, module: nn.Module) -> None:
    for part, parameter in module.named_parameters():
        if type(parameter) is not nn.Parameter or not parameter.is_floating_point() or parameter.element_size() < 2:
            raise UnsupportedModelError(
                f"{name}.{part} is a {type(parameter).__name__} of {parameter.dtype} (quantised?); scores are read "
                "from plain float matrices"
            )


def _require_sizes(anatomy: Anatomy, declared: Decoder, family: Family) -> None:
    """Every FFN reads m units and writes to the stream that the unembedding reads: no projection in between."""
    d, m = anatomy.unembedding.in_features, anatomy.d_mlp
    for layer, out in enumerate(anatomy.ffn_outs):
        if (out.in_features, out.out_features) != (m, d):
            raise UnsupportedModelError(
                f"{declared.ffn_out} of layer {layer} is {out.out_features} × {out.in_features}, expected {d} × {m}, "
                f"what {family.unembedding} reads and layer 0 has: a projection in between is not supported"
            )


def _head_factor(text_config: Any, family: Family) -> float:
    factor = getattr(text_config, family.head_factor) if family.head_factor else 1.0
    return float(factor) / float(getattr(text_config, family.head_divisor) if family.head_divisor else 1.0)


def _get(module: nn.Module, path: str | tuple[str, ...]) -> Any:
    """The part of a module at a path; of several paths, at the first that is there."""
    if isinstance(path, tuple):
        there = [one for one in path if getattr(module, one.partition(".")[0], None) is not None]
        return _get(module, there[0] if there else path[0])
    for name in path.split("."):
        if getattr(module, name, None) is None:
            raise UnsupportedModelError(
                f"this {type(module).__name__} has no {name!r} (of the declared path {path!r}) to read scores from"
            )
        module = getattr(module, name)
    return module

"""The very modules of a loaded model that scores are read from, found by structure.

    unit i of layer l, at p(c):   a_i ─► W_out[:, i] ─► norm after the FFN? ─► gain ─► residual stream
    residual stream ─► final norm ─► W_U ─► factor? ─► soft cap? ─► logits

What follows W_out is part of it, so that a unit's part of the logit is exact: Gemma 2 and 3 and GLM-4 norm what each
block writes, Granite multiplies it, Mllama gates it, Gemma 4 multiplies the stream after each layer. In a mixture of
experts (`experts.py`) the matrix is the unit's own expert's, and a carries the router's weight.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mmn.counts import counted
from mmn.errors import UnsupportedModelError, UsageError
from mmn.models.adapters.elsewhere import held
from mmn.models.adapters.experts import EXPERTS, Mixture, differ, find_mixture
from mmn.models.adapters.families import Family
from mmn.models.adapters.norms import Norm, norm_form
from mmn.models.adapters.structure import Layer, Structure, find_structure, matrix_of, values_of
from mmn.models.float64 import wide
from mmn.names import CROSS_ATTENTION, PER_LAYER_INPUT

PLAIN = (nn.Linear, Conv1D)
MULTIPLIER = "residual_multiplier"  # a layer's number that what its blocks write is multiplied by
LAYER_SCALAR = "layer_scalar"  # a layer's number that the residual stream is multiplied by behind it
GATES = ("cross_attn_attn_gate", "cross_attn_mlp_gate")  # whose tanh the two blocks of a cross-attention layer have
SOFT_CAP = "final_logit_softcapping"
SCALED_HEADS = {  # a text config's flag, by model type: where it is true, W_U is given the stream times width^-0.5
    **dict.fromkeys(("t5", "longt5"), "scale_decoder_outputs"),
    **dict.fromkeys(("switch_transformers", "udop", "umt5"), "tie_word_embeddings"),
}
POST_NORM = "norms the residual stream itself behind each block, so that no unit's part of the logit can be told"


@dataclass(frozen=True)
class Gains:
    """What is multiplied with what each part writes until it reaches the final norm: gates, multipliers, scalars.

    `others` is what else a layer writes, to which no gate of its own belongs.
    """

    embedding: float
    attention: tuple[float, ...]
    ffn: tuple[float, ...]
    others: tuple[float, ...]


@dataclass(frozen=True)
class Anatomy:
    """The modules of one model that scores are read from; lists are by layer. `decoder` is the whole text decoder.

    Attributes:
        attentions: the module whose output is added to the residual stream: the attention (or linear attention, or
            convolution), or the norm behind it. None in a layer without (Nemotron-H: each layer is one of both).
        activations: the FFN's non-linearity: its input is z, its output act(z). A gated FFN multiplies that by `up`;
            in a plain one it is the activation a itself. Where it is no module, the matrix whose output is z.
        post_ffns: the norms between W_out and the residual stream, () where there are none; of the form `post_norm`.
        gains: see there.
        head_factor: that the product with W_U is multiplied by.
        soft_cap: c of logits = c · tanh(x / c), None without.
        others: what else each layer adds to the stream, by the name of its term in the budget: an encoder-decoder's
            cross-attention, Gemma 4's per-layer input.
        mixtures: the FFN of each layer where some have a mixture of experts, no FFN, or another number of units, and
            `ffn_outs` and `activations` are empty; () in other models.
    """

    decoder: nn.Module
    layers: tuple[nn.Module, ...]
    attentions: tuple[nn.Module | None, ...]
    ffn_outs: tuple[nn.Linear | Conv1D, ...]
    activations: tuple[nn.Module, ...]
    is_gated: bool
    final_norm: nn.Module
    norm: Norm
    unembedding: nn.Linear
    gains: Gains
    post_ffns: tuple[nn.Module, ...] = ()
    post_norm: Norm = Norm.RMS
    head_factor: float = 1.0
    soft_cap: float | None = None
    others: Mapping[str, tuple[nn.Module, ...]] = field(default_factory=dict)
    mixtures: tuple[Mixture, ...] = ()

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def d_mlp(self) -> int:
        """Units of a layer; of the widest one, where layers differ."""
        if self.mixtures:
            return max(mixture.n_units for mixture in self.mixtures)
        return matrix_of(self.ffn_outs[0]).shape[1]

    @property
    def widths(self) -> tuple[int, ...]:
        """Units by layer."""
        return tuple(mixture.n_units for mixture in self.mixtures) or (self.d_mlp,) * self.n_layers

    @property
    def d_expert(self) -> int:
        """Units of a routed expert, 0 without: of unit u of a layer with experts, u // d_expert is the expert."""
        return max((one.routed.d_expert for one in self.mixtures if one.routed is not None), default=0)

    @property
    def d_experts(self) -> tuple[int, ...]:
        """By layer the units of a routed expert, 0 without; () in a model that has none."""
        return tuple(0 if one.routed is None else one.routed.d_expert for one in self.mixtures)

    @property
    def has_inner_norms(self) -> bool:
        """Whether what experts wrote, and what the matrix beside them wrote, are normed each before they are added."""
        return any(one.inner_norms for one in self.mixtures)

    @property
    def n_awake(self) -> int:
        """Units of all layers that one token's ranking holds: all, but for experts that it does not go through."""
        return sum(one.n_compact for one in self.mixtures) if self.mixtures else self.n_layers * self.d_mlp

    @property
    def home(self) -> torch.device:
        """Where scores are computed: with the unembedding, which lies with the embeddings (`models.placement`)."""
        return self.unembedding.weight.device

    def w_out(self, layer: int) -> Float[Tensor, "d m"]:
        """W_out of a layer, at home; column i is what unit i writes into the residual stream. To be read alone."""
        if self.mixtures and not self.mixtures[layer].n_units:
            return self.unembedding.weight.new_empty(self.unembedding.in_features, 0)
        return self._w_out(layer).to(self.home)

    def _w_out(self, layer: int) -> Float[Tensor, "d m"]:
        return self.mixtures[layer].w_out() if self.mixtures else values_of(self.ffn_outs[layer])

    def own_w_out(self, layer: int) -> Float[Tensor, "d m"]:
        """W_out of a layer where it lies, to be written to.

        Raises:
            UsageError: it is offloaded, and what was written would be gone at the next pass.
        """
        self.require_here(layer, matrix_of(self.ffn_outs[layer]))
        return matrix_of(self.ffn_outs[layer])

    def own_column(self, layer: int, unit: int) -> Float[Tensor, " d"]:
        """A unit's column of W_out where it lies, in a mixture of experts, to be written to. Raises as `own_w_out`."""
        column = self.mixtures[layer].column(unit)
        self.require_here(layer, column)
        return column

    @staticmethod
    def require_here(layer: int, weight: Tensor) -> None:
        """Raises `UsageError` for a weight that is offloaded: what is written to it is gone at the next pass."""
        if weight.is_meta:
            raise UsageError(
                f"--device-map: layer {layer} is offloaded, where its weights cannot be changed; load the model in "
                "half precision (--dtype bfloat16), use more or larger GPUs, or leave --device-map out"
            )

    def columns(self, layer: int, units: Int[Tensor, " n"]) -> Float[Tensor, "d n"]:
        """Columns of W_out of some units, at home."""
        if self.mixtures:
            return self.mixtures[layer].columns(units).to(self.home)
        weight = self._w_out(layer)
        return weight[:, units.to(weight.device)].to(self.home)

    def products(self, layer: int, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """Returns rows · W_out of a layer, multiplied where the layer lies; in float32, at home."""
        weight = self._w_out(layer)
        place = self.home if weight.device.type == "cpu" else weight.device
        return (rows.to(place) @ weight.to(place).float()).to(self.home)

    def ffn_bias(self, layer: int) -> Float[Tensor, " d"] | None:
        """What a layer's output matrix adds beside its units, at home."""
        plain = self.mixtures[layer].plain if self.mixtures else self.ffn_outs[layer]
        return None if plain is None or plain.bias is None else held(plain, "bias").to(self.home)

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
        return self.soft_cap * torch.atanh(wide(logits) / self.soft_cap).to(logits)


def has_encoder(config: Any) -> bool:
    """Whether the prompt is read by an encoder, and a caption written by a decoder that attends to what it made."""
    parts = (config, config.get_text_config(decoder=True))
    return any(getattr(part, "is_encoder_decoder", False) for part in parts)


def find_anatomy(model: Any, family: Family) -> Anatomy:
    """Finds the parts in a model, with its weights or on the `meta` device without them.

    Raises:
        UnsupportedModelError: a part is not there, or is no plain matrix of floats (what scores are read from must be
            what is multiplied), or the decoder is of a form that no scores are known for.
    """
    text_config = model.config.get_text_config(decoder=True)
    try:
        found = find_structure(model)
    except LookupError as error:
        raise UnsupportedModelError(f"this {family.model_type} model cannot be read: {error}") from error
    is_mixed = differ(found.layers)
    _require_understood(family, text_config, found)
    layers = [model.get_submodule(layer.path) for layer in found.layers]
    final_norm = model.get_submodule(found.final_norm)
    post_ffns = _parts(layers, [layer.post_ffn for layer in found.layers]) if found.layers[0].post_ffn else ()
    anatomy = Anatomy(
        decoder=model.get_submodule(found.decoder),
        layers=tuple(layers),
        attentions=tuple(map(_attention, layers, found.layers)),
        ffn_outs=() if is_mixed else _parts(layers, [layer.ffn_outs[0].path for layer in found.layers]),
        activations=() if is_mixed else _parts(layers, [layer.activation for layer in found.layers]),
        is_gated=found.layers[0].is_gated,
        final_norm=final_norm,
        norm=norm_form(str(found.final_norm), final_norm),
        unembedding=model.get_submodule(found.head),
        gains=_gains(layers),
        post_ffns=post_ffns,
        post_norm=norm_form(found.layers[0].post_ffn, post_ffns[0]) if post_ffns else Norm.RMS,
        head_factor=_head_factor(text_config, family, found.d_model),
        soft_cap=getattr(text_config, SOFT_CAP, None) if family.has_soft_cap else None,
        others=_others(layers, found),
        mixtures=tuple(map(find_mixture, layers, found.layers)) if is_mixed else (),
    )
    _require_plain(anatomy, found)
    return anatomy


def _parts(layers: Sequence[nn.Module], paths: Sequence[str]) -> tuple[Any, ...]:
    return tuple(layer.get_submodule(path) for layer, path in zip(layers, paths, strict=True))


def _attention(module: nn.Module, found: Layer) -> nn.Module | None:
    return module.get_submodule(found.post_attention or found.mixers[0]) if found.mixers else None


def _others(layers: Sequence[nn.Module], found: Structure) -> dict[str, tuple[nn.Module, ...]]:
    paths = {
        CROSS_ATTENTION: [layer.cross for layer in found.layers],
        PER_LAYER_INPUT: [layer.per_layer_input for layer in found.layers],
    }
    return {term: _parts(layers, of_layers) for term, of_layers in paths.items() if of_layers[0]}


def _require_understood(family: Family, text_config: Any, found: Structure) -> None:
    """One FFN or mixture of experts, one mixer (or only one of both) and the same norms in each layer, a final norm."""
    what = f"this {family.model_type} model uses a {text_config.model_type!r} text decoder"
    if found.final_norm is None:
        raise UnsupportedModelError(f"{what} that {POST_NORM}")
    is_mixed = differ(found.layers)
    for number, layer in enumerate(found.layers):
        kinds = {matrix.kind for matrix in layer.ffn_outs}
        if len(layer.mixers) > 1 or not (layer.mixers or (is_mixed and kinds)):
            mixers = ", ".join(layer.mixers) or "none"
            raise UnsupportedModelError(f"{what}; layer {number} should have one attention, found {mixers}")
        if _kind(layer) != _kind(found.layers[0]):
            raise UnsupportedModelError(f"{what}; layer {number} has other norms or terms than layer 0")
        if is_mixed:
            continue
        if len(layer.ffn_outs) != 1 or not kinds <= {"linear", "conv1d"}:
            matrices = ", ".join(f"{matrix.path} ({matrix.kind})" for matrix in layer.ffn_outs) or "none"
            raise UnsupportedModelError(f"{what}; layer {number} should have one FFN output matrix, found {matrices}")
        if not layer.activation or layer.is_gated != found.layers[0].is_gated:
            raise UnsupportedModelError(f"{what}; layer {number} has another FFN than layer 0")


def _kind(layer: Layer) -> tuple[str, str, str, bool]:
    """What has to be the same in all layers."""
    return re.sub(r"\d+", "", layer.cross), layer.per_layer_input, layer.post_ffn, bool(layer.inner_norms)


def _gains(layers: Sequence[nn.Module]) -> Gains:
    """Each layer's own factors times the scalars of all layers from it on."""
    kept = [_number(layer, LAYER_SCALAR) for layer in layers]
    behind = [math.prod(kept[number:]) for number in range(len(layers) + 1)]
    own = [float(getattr(layer, MULTIPLIER, 1.0)) for layer in layers]
    attention, ffn = ([_gate(layer, name) for layer in layers] for name in GATES)
    return Gains(
        embedding=behind[0],
        attention=tuple(map(math.prod, zip(own, attention, behind, strict=False))),
        ffn=tuple(map(math.prod, zip(own, ffn, behind, strict=False))),
        others=tuple(map(math.prod, zip(own, behind, strict=False))),
    )


def _number(layer: nn.Module, name: str) -> float:
    """The only value of a layer's tensor; 1 for none, and of a layer that was put together without values."""
    if getattr(layer, name, None) is None:
        return 1.0
    value = held(layer, name)
    return 1.0 if value.is_meta else value.detach().item()


def _gate(layer: nn.Module, name: str) -> float:
    return 1.0 if getattr(layer, name, None) is None else math.tanh(_number(layer, name))


def _require_plain(anatomy: Anatomy, found: Structure) -> None:
    """One nn.Linear of one size for W_out of each layer and for W_U, and all of them, and the norm, in plain floats."""
    matrices: dict[str, nn.Module] = {
        f"{matrix.path} of layer {number}": anatomy.layers[number].get_submodule(matrix.path)
        for number, layer in enumerate(found.layers)
        for matrix in layer.ffn_outs
        if matrix.kind != EXPERTS
    }
    matrices[found.head] = anatomy.unembedding
    for name, module in matrices.items():
        if type(module) not in PLAIN:  # quantised and LoRA layers are subclasses, or wrap one
            raise UnsupportedModelError(
                f"{name} is a {type(module).__module__}.{type(module).__name__}, no plain nn.Linear (quantised, or "
                "with an adapter?); scores are read from plain float matrices"
            )
    experts = {
        f"the experts of layer {number}": mixture.routed.module
        for number, mixture in enumerate(anatomy.mixtures)
        if mixture.routed is not None
    }
    for name, module in (matrices | experts | {str(found.final_norm): anatomy.final_norm}).items():
        _require_floats(name, module)
    _require_sizes(anatomy, found)


def _require_floats(name: str, module: nn.Module) -> None:
    for part, parameter in module.named_parameters():
        if type(parameter) is not nn.Parameter or not parameter.is_floating_point() or parameter.element_size() < 2:
            raise UnsupportedModelError(
                f"{name}.{part} is a {type(parameter).__name__} of {parameter.dtype} (quantised?); scores are read "
                "from plain float matrices"
            )


def _require_sizes(anatomy: Anatomy, found: Structure) -> None:
    """Every FFN reads m units and writes to the stream that the unembedding reads: no projection in between."""
    d, m = anatomy.unembedding.in_features, anatomy.d_mlp
    _require_no_ffn_left_out(anatomy, found)
    _require_experts_sizes(anatomy, found)
    for layer in range(len(anatomy.ffn_outs)):
        n_out, n_in = matrix_of(anatomy.ffn_outs[layer]).shape
        if (n_out, n_in) != (d, m):
            raise UnsupportedModelError(
                f"{found.layers[layer].ffn_outs[0].path} of layer {layer} is {n_out} × {n_in}, "
                f"expected {d} × {m}, what {found.head} reads and layer 0 has: a projection in between is not supported"
            )


def _require_no_ffn_left_out(anatomy: Anatomy, found: Structure) -> None:
    """A layer without units has no module where others have their FFN's output: it would be one of a wrong size."""
    paths = {matrix.path for layer in found.layers for matrix in layer.ffn_outs}
    for number, layer in enumerate(found.layers):
        there = paths & dict(anatomy.layers[number].named_modules()).keys() if not layer.ffn_outs else set()
        for path in sorted(there):
            (weight, *_) = anatomy.layers[number].get_submodule(path).parameters()
            size = " × ".join(map(str, weight.shape))
            wanted = f"expected {counted(anatomy.unembedding.in_features, 'row')}, what {found.head} reads"
            raise UnsupportedModelError(f"{path} of layer {number} is {size}, {wanted}")


def _require_experts_sizes(anatomy: Anatomy, found: Structure) -> None:
    """Experts of one size in all layers, which write to the stream themselves."""
    routed = [one.routed for one in anatomy.mixtures if one.routed is not None]
    sizes = {(one.w_out(0).shape[0], one.d_expert) for one in routed}
    if sizes - {(found.d_model, anatomy.d_expert)}:
        raise UnsupportedModelError(
            f"experts of several sizes, or that write elsewhere than to the stream of {found.d_model}: {sorted(sizes)}"
        )


def _head_factor(text_config: Any, family: Family, d_model: int) -> float:
    factor = getattr(text_config, family.head_factor) if family.head_factor else 1.0
    divisor = getattr(text_config, family.head_divisor) if family.head_divisor else 1.0
    is_scaled = getattr(text_config, SCALED_HEADS.get(text_config.model_type, ""), False)
    return float(factor) / float(divisor) * (d_model**-0.5 if is_scaled else 1.0)

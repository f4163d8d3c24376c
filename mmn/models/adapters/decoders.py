"""Text decoders: where their layers, FFN output matrices and final norm are, by `model_type`.

    unit i of layer l, at p(c):   a_i ─► W_out[:, i] ─► norm after the FFN? ─► multiplier? ─► residual stream
    residual stream ─► final norm ─► W_U ─► factor? ─► soft cap? ─► logits

What follows W_out is declared, so that a unit's part of the logit is exact: Gemma 2 and 3 and GLM-4 norm what each
block writes, Granite multiplies it. Mixtures of experts have no single matrix of a layer, and are left out: the score
a · (W_U · W_out) would be wrong for them and still look right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class Norm(Enum):
    """The final norm's form: what a folded contribution must undo (METHODS: contribution-folded)."""

    RMS = "x / rms · γ"
    RMS_PLUS_ONE = "x / rms · (1 + γ)"
    LAYER = "(x - mean) / std · γ + β"  # β may be missing


@dataclass(frozen=True)
class Decoder:
    """Module paths: `layers` and `final_norm` from the decoder, the others from one layer.

    Attributes:
        attention: what adds to the residual stream beside the FFN; of several, the one that a layer has (hybrid
            decoders: attention, linear attention, a convolution).
        activation: the module of the FFN's non-linearity: its input is z, its output act(z). A gated FFN multiplies
            that by `up`; in a plain one it is the activation a itself.
        post_attention: norm between the attention and the residual stream, "" for none; of the kind of `norm`.
        post_ffn: norm between W_out and the residual stream, "" for none; of the kind of `norm`.
        multiplier: the layer's attribute that both blocks are multiplied by before they are added, "" for none.
    """

    layers: str
    attention: str | tuple[str, ...]
    ffn_out: str
    activation: str
    is_gated: bool
    final_norm: str
    norm: Norm
    post_attention: str = ""
    post_ffn: str = ""
    multiplier: str = ""


_LLAMA = Decoder("layers", "self_attn", "mlp.down_proj", "mlp.act_fn", True, "norm", Norm.RMS)
_GEMMA = Decoder("layers", "self_attn", "mlp.down_proj", "mlp.act_fn", True, "norm", Norm.RMS_PLUS_ONE)
_OPT = Decoder("layers", "self_attn", "fc2", "activation_fn", False, "final_layer_norm", Norm.LAYER)
_GPTJ = Decoder("h", "attn", "mlp.fc_out", "mlp.act", False, "ln_f", Norm.LAYER)  # FFN beside the attention
_PHI3 = replace(_LLAMA, activation="mlp.activation_fn")
_GEMMA2 = replace(
    _GEMMA,
    post_attention="post_attention_layernorm",
    post_ffn="post_feedforward_layernorm",
)
_GRANITE = replace(_LLAMA, multiplier="residual_multiplier")
_COHERE = replace(_LLAMA, norm=Norm.LAYER)  # FFN beside the attention
_GLM4 = replace(_PHI3, post_attention="post_self_attn_layernorm", post_ffn="post_mlp_layernorm")

DECODERS: dict[str, Decoder] = {
    **dict.fromkeys(("llama", "mistral", "ministral3", "qwen2", "qwen2_vl_text", "qwen2_5_vl_text", "qwen3"), _LLAMA),
    "phi3": _PHI3,
    "gemma": _GEMMA,
    **dict.fromkeys(("gemma2", "gemma3_text"), _GEMMA2),
    "granite": _GRANITE,
    **dict.fromkeys(("cohere", "cohere2"), _COHERE),
    "glm4": _GLM4,
    "opt": _OPT,
    "gptj": _GPTJ,
}

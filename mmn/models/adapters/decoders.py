"""Text decoders: where their layers, FFN output matrices and final norm are, by `model_type`.

Every decoder listed here adds each layer's attention and FFN output straight to the residual stream. Those that do
not (Gemma 2 and 3 norm it first, Mllama gates it, mixtures of experts have no single matrix) are left out on
purpose: the score a · (W_U · W_out) would be wrong for them and still look right.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Norm(Enum):
    """The final norm's form: what a folded contribution must undo (METHODS: contribution-folded)."""

    RMS = "x / rms · γ"
    RMS_PLUS_ONE = "x / rms · (1 + γ)"
    LAYER = "(x - mean) / std · γ + β"


@dataclass(frozen=True)
class Decoder:
    """Module paths: `layers` and `final_norm` from the decoder, the others from one layer.

    `activation` is the module of the FFN's non-linearity: its input is z, its output act(z). A gated FFN multiplies
    that by `up`; in a plain one it is the activation a itself.
    """

    layers: str
    attention: str
    ffn_out: str
    activation: str
    is_gated: bool
    final_norm: str
    norm: Norm


_LLAMA = Decoder("layers", "self_attn", "mlp.down_proj", "mlp.act_fn", True, "norm", Norm.RMS)
_GEMMA = Decoder("layers", "self_attn", "mlp.down_proj", "mlp.act_fn", True, "norm", Norm.RMS_PLUS_ONE)
_OPT = Decoder("layers", "self_attn", "fc2", "activation_fn", False, "final_layer_norm", Norm.LAYER)
_GPTJ = Decoder("h", "attn", "mlp.fc_out", "mlp.act", False, "ln_f", Norm.LAYER)  # FFN beside the attention

DECODERS: dict[str, Decoder] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen2_vl_text": _LLAMA,
    "qwen2_5_vl_text": _LLAMA,
    "gemma": _GEMMA,
    "opt": _OPT,
    "gptj": _GPTJ,
}

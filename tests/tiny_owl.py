"""A tiny mPLUG-Owl2 with random weights, from a config."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf

from mmn.models import mplug_owl2

N_QUERIES, SIDE, PATCH, GRID = 5, 56, 14, 4
VISION = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": SIDE,
    "patch_size": PATCH,
}
ABSTRACTOR = {
    "hidden_size": 24,
    "encoder_hidden_size": 24,
    "intermediate_size": 28,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_learnable_queries": N_QUERIES,
    "grid_size": GRID,
}


def tiny_config(**more: Any) -> Any:
    """A text decoder of 3 × 48 units, 32 wide; `more` are settings of Llama's."""
    mplug_owl2.register()
    usual: dict[str, Any] = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    usual |= {"num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5}
    parts = {"visual_model": VISION, "visual_abstractor": ABSTRACTOR}
    return hf.AutoConfig.for_model("mplug_owl2", visual_config=parts, **usual | more)


def tiny_module(config: Any, scale: float = 6.0) -> Any:
    """Weights scaled up, and norms and biases moved, so that nothing is hidden by being 1 or 0."""
    torch.manual_seed(0)
    module = hf.AutoModelForImageTextToText.from_config(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale if parameter.ndim > 1 else 1).add_(torch.randn_like(parameter) * 0.1)
    return module

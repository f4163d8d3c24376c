"""mPLUG-Owl2, one of P2's three models, in code of our own: its checkpoint is not in transformers' layout.

Ye et al. 2023, arXiv 2311.04257 (section 3 and figure 2). Parameters are named as in the published checkpoint
(MAGAer13/mplug-owl2-llama2-7b), whose own code is not needed and never run.

    picture ─► square, 448 × 448 ─► ViT-L/14 (`vision`) ─► 64 learned queries read its states, then one end token
      (`abstractor`) ─► 65 image tokens among the words ─► Llama 2 with norms, keys and values of each modality's own
      (`decoder`) ─► logits

What units write is Llama's: W_out (`mlp.down_proj`), the final norm and W_U are shared by both modalities.

Left out: mPLUG-Owl2.1 (a Qwen decoder, an encoder without class token), several pictures in one prompt, training.
"""

from __future__ import annotations

from functools import cache


@cache
def register() -> None:
    """Lets transformers' Auto classes put together folders whose `model_type` is mplug_owl2."""
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    from mmn.models.mplug_owl2.config import MplugOwl2Config
    from mmn.models.mplug_owl2.decoder import MplugOwl2ForConditionalGeneration
    from mmn.models.mplug_owl2.processor import MplugOwl2Processor

    AutoConfig.register(MplugOwl2Config.model_type, MplugOwl2Config, exist_ok=True)
    AutoModelForImageTextToText.register(MplugOwl2Config, MplugOwl2ForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(MplugOwl2Config, MplugOwl2Processor, exist_ok=True)

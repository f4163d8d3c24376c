"""Vision-language families: where the decoder and the unembedding are, and how pictures and prompts are handed over.

To add a family, add a row here (and its decoder to `decoders.py` if that is new), and its tiny model to
`tests/tiny.py`: the exactness test then says whether the row is right.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One family, named by its config's `model_type`.

    Attributes:
        decoder: path of the text decoder in the model, `unembedding` that of the matrix W_U.
        bare_prompt: the exact prompt where the processor has no chat template; `{image}` is its image placeholder.
        nests_images: the processor wants one list of pictures for each text.
        head_factor: the text config's number that logits are multiplied by, "" for none. It is the family's, not the
            decoder's: most families put W_U straight behind the final norm, whatever their text decoder does alone.
        head_divisor: that they are divided by.
        soft_cap: c of logits = c · tanh(x / c), "" for none. Scores are of x, before the cap.
        grid: how image tokens map to the picture, a key of `geometry.GRIDS`, or why they do not (`WITHOUT_GRID`).
    """

    model_type: str
    example: str
    decoder: str = "model.language_model"
    unembedding: str = "lm_head"
    bare_prompt: str = "{image}\n{prompt}"
    nests_images: bool = False
    head_factor: str = ""
    head_divisor: str = ""
    soft_cap: str = ""
    grid: str = "unchecked"


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family("llava", "llava-hf/llava-1.5-7b-hf", bare_prompt="USER: {image}\n{prompt} ASSISTANT:", grid="patches"),
        Family(
            "llava_next",
            "llava-hf/llava-v1.6-mistral-7b-hf",
            bare_prompt="[INST] {image}\n{prompt} [/INST]",
            grid="any-resolution with class token",
        ),
        Family("llava_onevision", "llava-hf/llava-onevision-qwen2-7b-ov-hf", grid="any-resolution"),
        Family("qwen2_vl", "Qwen/Qwen2-VL-7B-Instruct", grid="merged"),
        Family("qwen2_5_vl", "Qwen/Qwen2.5-VL-7B-Instruct", grid="merged"),
        Family("internvl", "OpenGVLab/InternVL3-8B-hf", grid="canvas"),
        Family(
            "idefics3",
            "HuggingFaceM4/Idefics3-8B-Llama3",
            decoder="model.text_model",
            nests_images=True,
            grid="split",
        ),
        Family(
            "smolvlm",
            "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
            decoder="model.text_model",
            nests_images=True,
            grid="split",
        ),
        Family(
            "paligemma",
            "google/paligemma2-3b-mix-224",
            bare_prompt="{image}{prompt}",
            soft_cap="final_logit_softcapping",
            grid="patches",
        ),
        Family(
            "instructblip",
            "Salesforce/instructblip-vicuna-7b",
            decoder="language_model.model",
            unembedding="language_model.lm_head",
            bare_prompt="{prompt}",
            grid="queries",
        ),
        Family(
            "blip-2",
            "Salesforce/blip2-opt-2.7b",
            decoder="language_model.model.decoder",
            unembedding="language_model.lm_head",
            bare_prompt="{prompt}",
            grid="queries",
        ),
        Family(
            "mplug_owl2",
            "MAGAer13/mplug-owl2-llama2-7b (converted: docs/methods.md)",
            decoder="model",
            bare_prompt="USER: {image}{prompt} ASSISTANT:",
            grid="queries",
        ),
        Family(
            "limber",
            "limber:FILE.json (EleutherAI/gpt-j-6b reading microsoft/beit-large-patch16-224-pt22k)",
            decoder="language_model.transformer",
            unembedding="language_model.lm_head",
            bare_prompt="{image}{prompt}",
            grid="encoder",
        ),
    )
}

# Image encoders whose features hold more than the patches: a class token. `num_additional_image_tokens` of processors.
CLASS_TOKENS: dict[str, int] = {"clip_vision_model": 1}

# Marks of checkpoints in their authors' own layout (a `model_type`, or a key of config.json), and what to do.
_LLAVA_HF = (
    "convert it to the llava-hf layout (convert_llava_weights_to_hf.py of transformers), or take it from llava-hf"
)
OTHER_LAYOUTS: dict[str, str] = {
    "mm_vision_tower": _LLAVA_HF,
    **dict.fromkeys(("llava_llama", "llava_mistral", "llava_mpt", "llava_gemma", "llava_mixtral"), _LLAVA_HF),
    "llava_qwen": "take the -hf checkpoint from llava-hf (LLaVA-OneVision)",
    "internvl_chat": "take the checkpoint whose name ends in -hf",
}

"""Vision-language families: how pictures and prompts are handed over, and what follows the unembedding.

Where the text decoder, its layers and its unembedding are is found by structure. A family without a row is tried with
the usual answers; a row says what differs.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmn.errors import UnsupportedModelError

REFUSED: dict[str, str] = {
    "diffusion_gemma": "it writes all words of a text at once, so no forward pass predicts a noun alone",
    "evolla": "it reads proteins, not pictures",
    "gemma3n": "it has several residual streams, mixed anew for each token",
    "glm5_next": "it has several residual streams, mixed anew for each token",
    "idefics": "some layers come behind a block with an FFN of its own and a gate for each channel",
    "inkling2": "what its FFN writes goes through a convolution over positions",
    "inkling_mm_model": "what its FFN writes goes through a convolution over positions",
    "instructblipvideo": "it reads videos of four frames, not pictures",
    "mistral4": "it reads no pictures: the type is a text decoder alone",
    "muse_spark": "its experts write to a narrower stream, with a norm behind each",
    "pi0": "it gives a robot's actions, not text",
    "pp_formulanet": "it takes no prompt, and writes the source of a formula",
    "qwen4_exp": "it has several residual streams, mixed anew for each token",
    "shieldgemma2": "it takes no free text: its processor asks about policies of its own, whatever the prompt",
}


@dataclass(frozen=True)
class Family:
    """One family, named by its config's `model_type`.

    Attributes:
        bare_prompt: the exact prompt where the processor has no chat template; `{image}` is its image placeholder.
        nests_images: the processor wants one list of pictures for each text.
        asks_for: options of the processor that the model needs the outcome of, each to be true.
        head_factor: the text config's number that logits are multiplied by, "" for none. It is the family's, not the
            decoder's: most families put W_U straight behind the final norm, whatever their text decoder does alone.
        head_divisor: that they are divided by.
        has_soft_cap: whether logits = c · tanh(x / c), with the text config's c. Scores are of x, before the cap.
        grid: how image tokens map to the picture, a key of `geometry.GRIDS`, or why they do not (`WITHOUT_GRID`).
    """

    model_type: str
    example: str = ""
    bare_prompt: str = "{image}\n{prompt}"
    nests_images: bool = False
    asks_for: tuple[str, ...] = ()
    head_factor: str = ""
    head_divisor: str = ""
    has_soft_cap: bool = False
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
            nests_images=True,
            grid="split",
        ),
        Family(
            "smolvlm",
            "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
            nests_images=True,
            grid="split",
        ),
        Family(
            "paligemma",
            "google/paligemma2-3b-mix-224",
            bare_prompt="{image}{prompt}",
            has_soft_cap=True,
            grid="patches",
        ),
        Family(
            "instructblip",
            "Salesforce/instructblip-vicuna-7b",
            bare_prompt="{prompt}",
            grid="queries",
        ),
        Family(
            "blip-2",
            "Salesforce/blip2-opt-2.7b",
            bare_prompt="{prompt}",
            grid="queries",
        ),
        Family("aria", "rhymes-ai/Aria", grid="queries"),
        Family("aya_vision", "CohereLabs/aya-vision-8b", grid="canvas"),
        Family("chameleon", "facebook/chameleon-7b", bare_prompt="{prompt}{image}", grid="cropped square"),
        Family("cohere2_vision", "CohereLabs/command-a-vision-07-2025", grid="canvas"),
        Family("cohere_compass", grid="merged"),
        Family("cosmos3_edge", asks_for=("return_mm_token_type_ids",), grid="merged"),
        Family("cosmos3_omni", grid="merged"),
        Family("deepseek_ocr2", grid="queries"),
        Family("deepseek_vl", "deepseek-community/deepseek-vl-1.3b-chat", grid="patches"),
        Family("deepseek_vl_hybrid", grid="patches"),
        Family("dots3_note", grid="merged"),
        Family("emu3", "BAAI/Emu3-Chat-hf", grid="ended rows"),
        Family("ernie4_5_vl_moe", "baidu/ERNIE-4.5-VL-28B-A3B-PT", grid="merged"),
        Family("exaone4_5", grid="merged"),
        Family("fuyu", "adept/fuyu-8b", bare_prompt="{prompt}\n", grid="own pixels"),
        Family("gemma3", "google/gemma-3-4b-it", nests_images=True, has_soft_cap=True, grid="squared"),
        Family("glm46v", grid="merged"),
        Family("glm4v", "zai-org/GLM-4.1V-9B-Thinking", grid="merged"),
        Family("glm4v_moe", "zai-org/GLM-4.5V", grid="merged"),
        Family("glm_ocr", grid="merged"),
        Family("glmga", grid="merged"),
        Family("got_ocr2", "stepfun-ai/GOT-OCR-2.0-hf", grid="squared"),
        Family("hunyuan_vl", grid="ended rows"),
        Family("hyperclovax_vision_v2", grid="merged"),
        Family("idefics2", "HuggingFaceM4/idefics2-8b", nests_images=True, grid="queries"),
        Family("janus", "deepseek-community/Janus-Pro-1B", grid="patches"),
        Family("kimi_k25", grid="padded squares"),
        Family("kosmos-2", "microsoft/kosmos-2-patch14-224", grid="queries"),
        Family("kosmos-2.5", "microsoft/kosmos-2.5", grid="queries"),
        Family("lfm2_vl", "LiquidAI/LFM2-VL-1.6B", nests_images=True, grid="resized"),
        Family("lfm3_vl", grid="merged"),
        Family("llama4", "meta-llama/Llama-4-Scout-17B-16E-Instruct", grid="padded canvas"),
        Family(
            "llava_next_video",
            "llava-hf/LLaVA-NeXT-Video-7B-hf",
            bare_prompt="USER: {image}\n{prompt} ASSISTANT:",
            grid="any-resolution with class token",
        ),
        Family("minicpmv4_6", grid="whole and slices"),
        Family("minicpmv4_7", grid="whole and slices"),
        Family("minimax_m3_vl", grid="merged"),
        Family("mistral3", "mistralai/Mistral-Small-3.1-24B-Instruct-2503", grid="resized"),
        Family("mllama", "meta-llama/Llama-3.2-11B-Vision-Instruct", nests_images=True, grid="cross-attention"),
        Family("molmo2", grid="overlapping windows"),
        Family("ovis2", "thisisiron/Ovis2-2B-hf", grid="whole and canvas"),
        Family("paddleocr_vl", grid="merged"),
        Family("qianfan_ocr", grid="canvas"),
        Family("qwen2_5_omni_thinker", grid="merged"),
        Family("qwen3_5", grid="merged"),
        Family("qwen3_5_moe", grid="merged"),
        Family("qwen3_omni_moe_thinker", grid="merged"),
        Family("qwen3_vl", "Qwen/Qwen3-VL-8B-Instruct", grid="merged"),
        Family("qwen3_vl_moe", "Qwen/Qwen3-VL-30B-A3B-Instruct", grid="merged"),
        Family("step3p7", grid="windows"),
        Family("unlimited_ocr", grid="canvas and padded"),
        Family("video_llama_3", grid="merged"),
        Family(
            "video_llava",
            "LanguageBind/Video-LLaVA-7B-hf",
            bare_prompt="USER: {image}\n{prompt} ASSISTANT:",
            grid="patches",
        ),
        Family(
            "vipllava",
            "llava-hf/vip-llava-7b-hf",
            bare_prompt=(
                "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
                "detailed, and polite answers to the human's questions.###Human: {image}\n{prompt}###Assistant:"
            ),
            grid="patches",
        ),
        Family("lighton_ocr", grid="resized"),
        Family("minicpm_ocr", grid="resized"),
        Family("nemotron_h_omni", grid="resized"),
        Family("pp_chart2table", grid="squared"),
        Family("gemma4", nests_images=True, has_soft_cap=True, grid="resized"),
        Family("gemma4_unified", nests_images=True, has_soft_cap=True, grid="resized"),
        Family(
            "t5gemma2",
            "google/t5gemma-2-270m-270m",
            bare_prompt="{image}{prompt}",
            nests_images=True,
            has_soft_cap=True,
        ),
        Family("pix2struct", "google/pix2struct-textcaps-base", bare_prompt="{prompt}"),
        Family("udop", "microsoft/udop-large", bare_prompt="{prompt}"),
        Family(
            "granite4_vision",
            "ibm-granite/granite-vision-4.0-3b",
            head_divisor="logits_scaling",
            grid="any-resolution with class token",
        ),
        Family("granite_docling", nests_images=True, head_divisor="logits_scaling", grid="canvas"),
        Family("mistral_large4", has_soft_cap=True, grid="resized"),
        Family("muse_glimmer", head_factor="output_multiplier", has_soft_cap=True, grid="merged"),
        Family(
            "mplug_owl2",
            "MAGAer13/mplug-owl2-llama2-7b (converted: docs/methods.md)",
            bare_prompt="USER: {image}{prompt} ASSISTANT:",
            grid="queries",
        ),
        Family(
            "limber",
            "limber:FILE.json (EleutherAI/gpt-j-6b reading microsoft/beit-large-patch16-224-pt22k)",
            bare_prompt="{image}{prompt}",
            grid="encoder",
        ),
    )
}


def find_family(model_type: str) -> Family:
    """The family of a checkpoint: its row, or the usual answers for a type that transformers knows.

    Raises:
        UnsupportedModelError: transformers has no such vision-language model, or no scores are known for it, and why.
    """
    from transformers import __version__
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES as ALL
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    if model_type in REFUSED:
        raise UnsupportedModelError(f"models of type {model_type!r} are not supported: {REFUSED[model_type]}")
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    if model_type not in ALL:
        raise UnsupportedModelError(
            f"{model_type!r} is no type of transformers {__version__}: a newer one may have it; code that comes with a "
            "checkpoint is never run; supported are those of `mmn models`"
        )
    if model_type not in KNOWN:
        raise UnsupportedModelError(
            f"{model_type!r} is no vision-language model of transformers: it reads no picture or says no text; "
            "supported are those of mmn models"
        )
    return Family(model_type)


# Image encoders whose features hold more than the patches: a class token. `num_additional_image_tokens` of processors.
CLASS_TOKENS: dict[str, int] = {"clip_vision_model": 1}

# Marks of checkpoints in their authors' own layout (a `model_type`, or a key of config.json), and what to do.
_LLAVA_HF = (
    "convert it to the llava-hf layout (convert_llava_weights_to_hf.py of transformers), or take it from llava-hf"
)
_LLAMA_HF = (
    "convert it to the llava-hf layout with `python -m mmn.models.original_llava FOLDER CLIP OUT`, CLIP being the "
    "image encoder that it names, or take it from llava-hf"
)
OTHER_LAYOUTS: dict[str, str] = {
    **dict.fromkeys(("llava_mistral", "llava_mpt", "llava_gemma", "llava_mixtral"), _LLAVA_HF),
    "llava_qwen": "take the -hf checkpoint from llava-hf (LLaVA-OneVision)",
    "internvl_chat": "take the checkpoint whose name ends in -hf",
    "llava_llama": _LLAMA_HF,
    "mm_vision_tower": _LLAMA_HF,
}

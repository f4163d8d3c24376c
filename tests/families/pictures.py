"""How checkpoints of each type are asked about a picture: prompt, placeholder, and where its image tokens stand.

`prompt` is what the published checkpoints of a type expect: with `{image}` and `{prompt}`, as their documentation or
their chat template writes it. Types whose checkpoints have a chat template are marked `has_template`; for those without
one `prompt` is the literal to use.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Picture:
    """A type's way with pictures.

    Attributes:
        prompt: the whole prompt of one turn; `{image}` is `placeholder`.
        placeholder: what a user writes for a picture; "" where the processor writes the picture's tokens itself.
        has_template: published checkpoints have a chat template that gives `prompt`.
        nests: the processor wants one list of pictures for each text.
        written: what the processor writes for each image token, if that is not the placeholder.
        grid: how image tokens map to the picture: a key of `geometry.GRIDS`, of `WITHOUT_GRID`, or a rule in words.
        call: what the processor has to be told beside pictures and text.
        seen: "placeholders" in the prompt, or how the decoder sees the picture without.
    """

    prompt: str
    placeholder: str = "<image>"
    has_template: bool = False
    nests: bool = False
    written: str = ""
    grid: str = "patches"
    call: dict[str, Any] = field(default_factory=dict)
    seen: str = "placeholders"


_CHATML = "<|im_start|>user\n{image}\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
_QWEN = "<|im_start|>user\n<|vision_start|>{image}<|vision_end|>{prompt}<|im_end|>\n<|im_start|>assistant\n"
_GLM = "[gMASK]<sop><|user|>\n<|begin_of_image|>{image}<|end_of_image|>{prompt}<|assistant|>\n"
_LLAMA3 = (
    "<|start_header_id|>user<|end_header_id|>\n\n{image}{prompt}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)

_qwen = Picture(_QWEN, "<|image_pad|>", has_template=True, grid="merged")

_minicpm = Picture(
    "<|im_start|>user\n{image}\n{prompt}<|im_end|>\n<|im_start|>assistant\n",
    "<|image_pad|>",
    has_template=True,
    grid="slices",
)
_gemma3 = Picture(
    "<start_of_turn>user\n{image}{prompt}<end_of_turn>\n<start_of_turn>model\n",
    "<start_of_image>",
    has_template=True,
    nests=True,
    written="<image_soft_token>",
    grid="pooled",
)
_gemma4 = Picture(
    "<|turn>user\n{image}{prompt}<turn|>\n<|turn>model\n", "<|image|>", has_template=True, nests=True, grid="pooled"
)
_omni = Picture(
    "<|im_start|>user\n<|vision_bos|>{image}<|vision_eos|>{prompt}<|im_end|>\n<|im_start|>assistant\n",
    "<|IMAGE|>",
    has_template=True,
    grid="merged",
)

PICTURES: dict[str, Picture] = {
    "llava": Picture("USER: {image}\n{prompt} ASSISTANT:", has_template=True),
    "vipllava": Picture(
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the human's questions.###Human: {image}\n{prompt}###Assistant:"
    ),
    "llava_next": Picture(
        "[INST] {image}\n{prompt} [/INST]", has_template=True, grid="any-resolution with class token"
    ),
    "llava_next_video": Picture(
        "USER: {image}\n{prompt} ASSISTANT:", has_template=True, grid="any-resolution with class token"
    ),
    "llava_onevision": Picture(_CHATML, has_template=True, grid="any-resolution"),
    "video_llava": Picture("USER: {image}\n{prompt} ASSISTANT:"),
    "qwen2_vl": _qwen,
    "qwen2_5_vl": _qwen,
    "qwen3_vl": _qwen,
    "qwen3_vl_moe": _qwen,
    "qwen3_5": _qwen,
    "qwen3_5_moe": _qwen,
    "gemma3": _gemma3,
    "internvl": Picture(_CHATML, "<IMG_CONTEXT>", has_template=True, grid="canvas"),
    "mistral3": Picture("[INST]{image}{prompt}[/INST]", "[IMG]", has_template=True, grid="merged with breaks"),
    "idefics2": Picture(
        "User:{image}{prompt}<end_of_utterance>\nAssistant:", has_template=True, nests=True, grid="queries"
    ),
    "idefics3": Picture(
        "<|begin_of_text|>User:{image}{prompt}<end_of_utterance>\nAssistant:",
        has_template=True,
        nests=True,
        grid="split",
    ),
    "smolvlm": Picture(
        "<|im_start|>User:{image}{prompt}<end_of_utterance>\nAssistant:", has_template=True, nests=True, grid="split"
    ),
    "paligemma": Picture("{image}{prompt}"),
    "mllama": Picture(_LLAMA3, "<|image|>", has_template=True, nests=True, grid="cross", seen="cross-attention"),
    "llama4": Picture(
        "<|header_start|>user<|header_end|>\n\n{image}{prompt}<|eot|><|header_start|>assistant<|header_end|>\n\n",
        "<|image|>",
        has_template=True,
        written="<|patch|>",
        grid="tiles",
    ),
    "glm4v": Picture(_GLM, "<|image|>", has_template=True, grid="merged"),
    "glm46v": Picture(_GLM, "<|image|>", has_template=True, grid="merged"),
    "glm4v_moe": Picture(_GLM, "<|image|>", has_template=True, grid="merged"),
    "glm_ocr": Picture(_GLM, "<|image|>", has_template=True, grid="merged"),
    "aya_vision": Picture("{image}{prompt}", has_template=True, written="<|IMG_PATCH|>", grid="canvas"),
    "cohere2_vision": Picture("{image}{prompt}", "<|IMG_PATCH|>", has_template=True, grid="canvas"),
    "lfm2_vl": Picture(_CHATML, has_template=True, nests=True, grid="merged or tiles"),
    "janus": Picture("<|User|>: {image}\n{prompt}\n\n<|Assistant|>:", "<image_placeholder>", has_template=True),
    "deepseek_vl": Picture("User: {image}{prompt}\n\nAssistant:", "<image_placeholder>", has_template=True),
    "deepseek_vl_hybrid": Picture("User: {image}{prompt}\n\nAssistant:", "<image_placeholder>", has_template=True),
    "instructblip": Picture("{prompt}", "", written="<image>", grid="queries"),
    "blip-2": Picture("Question: {prompt} Answer:", "", written="<image>", grid="queries"),
    "fuyu": Picture("{prompt}\n", "", written="|SPEAKER|", grid="rows with ends"),
    "got_ocr2": Picture("<|im_start|>user\n<img>{image}</img>\n{prompt}<|im_end|><|im_start|>assistant\n", "<imgpad>"),
    "ovis2": Picture(_CHATML, written="<IMG_ATOM>", has_template=True, grid="canvas"),
    "molmo2": Picture(
        "<|im_start|>user\n{image}{prompt}<|im_end|>\n<|im_start|>assistant\n",
        "<|image|>",
        written="<im_patch>",
        has_template=True,
        grid="crops",
    ),
    "chameleon": Picture("{prompt}{image}", grid="patches"),
    "emu3": Picture("USER: {image}{prompt} ASSISTANT:", has_template=True, grid="rows with ends"),
    "aria": Picture(
        "<|im_start|>user\n<fim_prefix>{image}<fim_suffix>{prompt}<|im_end|>\n<|im_start|>assistant\n",
        "<|img|>",
        has_template=True,
        grid="queries",
    ),
    "lighton_ocr": Picture(
        "<|im_start|>user\n{image}{prompt}<|im_end|>\n<|im_start|>assistant\n", "<|image_pad|>", has_template=True
    ),
    "qianfan_ocr": Picture(_CHATML, written="<IMG_CONTEXT>", has_template=True, grid="canvas"),
    "pp_chart2table": Picture(
        "<|im_start|>user\n<img>{image}</img>\n{prompt}<|im_end|><|im_start|>assistant\n", "<imgpad>", has_template=True
    ),
    "video_llama_3": Picture(_CHATML, "<|image_pad|>", has_template=True, grid="merged"),
    "florence2": Picture("{prompt}", "", written="<image>", grid="pooled"),
    "pix2struct": Picture("{prompt}", "", grid="cross", seen="cross-attention"),
    "git": Picture("{prompt}", "", grid="before", seen="before the text"),
    "blip": Picture("{prompt}", "", grid="cross", seen="cross-attention"),
    "paddleocr_vl": Picture(
        "User: <|vision_start|>{image}<|vision_end|>{prompt}\nAssistant: ",
        "<|IMAGE_PLACEHOLDER|>",
        has_template=True,
        grid="merged",
    ),
    "granite4_vision": Picture("{image}\n{prompt}", has_template=True, grid="any-resolution"),
    "exaone4_5": Picture("[|user|]<vision>{image}</vision>{prompt}", "<|image_pad|>", has_template=True, grid="merged"),
    "minicpmv4_6": _minicpm,
    "minicpmv4_7": _minicpm,
    "minicpm_ocr": _minicpm,
    "hunyuan_vl": Picture(
        "<|image_start|>{image}<|image_end|>{prompt}", "<|image_pad|>", has_template=True, grid="merged with ends"
    ),
    "muse_glimmer": Picture(
        "<|header_start|>user<|header_end|>\n\n{image}{prompt}<|eot|><|header_start|>assistant<|header_end|>\n\n",
        "<|patch|>",
        has_template=True,
        grid="merged",
    ),
    "mistral_large4": Picture("[INST]{image}{prompt}[/INST]", "[IMG]", has_template=True, grid="merged with breaks"),
    "kosmos-2": Picture("{prompt}", "", grid="queries"),
    "kosmos-2.5": Picture("{prompt}", "", grid="queries"),
    "gemma4": _gemma4,
    "gemma4_unified": _gemma4,
    "t5gemma2": replace(_gemma3, prompt="{image}{prompt}", has_template=False),
    "cohere_compass": Picture(
        "<|VISION_START|>{image}<|VISION_END|>{prompt}", "<|IMAGE_PAD|>", has_template=True, grid="merged"
    ),
    "cosmos3_edge": replace(_qwen, call={"return_mm_token_type_ids": True}),
    "cosmos3_omni": _qwen,
    "qwen4_exp": _qwen,
    "lfm3_vl": _qwen,
    "hyperclovax_vision_v2": Picture(_CHATML, "<|image_pad|>", has_template=True, grid="merged"),
    "glmga": Picture(_GLM, "<|image|>", has_template=True, grid="merged"),
    "glm5_next": Picture(_GLM, "<|image|>", has_template=True, grid="merged"),
    "ernie4_5_vl_moe": Picture(
        "User: Picture 1:<|IMAGE_START|>{image}<|IMAGE_END|>{prompt}\nAssistant: ",
        "<|IMAGE_PLACEHOLDER|>",
        has_template=True,
        grid="merged",
    ),
    "dots3_note": Picture("<|img|>{image}<|endofimg|>{prompt}", "<|imgpad|>", has_template=True, grid="merged"),
    "granite_docling": Picture("{image}{prompt}", has_template=True, nests=True, grid="crops"),
    "idefics": Picture("{prompt}", "", grid="cross", seen="cross-attention"),
    "inkling2": Picture("{image}{prompt}", "<|unused_200054|>", has_template=True),
    "inkling_mm_model": Picture("<|content_image|>{image}{prompt}", "<|unused_200054|>", has_template=True),
    "kimi_k25": Picture(
        "<|media_begin|>image<|media_content|>{image}<|media_end|>{prompt}",
        "<|media_pad|>",
        has_template=True,
        grid="merged",
    ),
    "minimax_m3_vl": Picture("{image}{prompt}", "]<]image[>[", has_template=True, grid="merged"),
    "muse_spark": Picture(
        "<|header_start|>user<|header_end|>\n\n{image}{prompt}<|eot|><|header_start|>assistant<|header_end|>\n\n",
        "<|patch|>",
        has_template=True,
        grid="merged",
    ),
    "nemotron_h_omni": Picture("{image}\n{prompt}", has_template=True, grid="merged"),
    "step3p7": Picture("{image}{prompt}", "<im_patch>", has_template=True, grid="crops"),
    "deepseek_ocr2": Picture("{image}\n{prompt}", grid="crops"),
    "unlimited_ocr": Picture("{image}{prompt}", has_template=True, grid="crops"),
    "qwen2_5_omni_thinker": _omni,
    "qwen3_omni_moe_thinker": _omni,
}

# Types without a processor to ask, and why.
NOT_ASKED: dict[str, str] = {
    "diffusion_gemma": "its decoder refines a random canvas: pictures and a prompt do not settle the logits",
    "instructblipvideo": "it reads videos of four frames",
    "pp_formulanet": "it takes no prompt",
    "shieldgemma2": "it takes no free text: its processor asks about policies of its own",
    "udop": "it wants the words on the picture and their boxes, which OCR reads (pytesseract)",
    "vision-encoder-decoder": "it has no processor of its own and takes no prompt",
}

# Rows of a batch that are not what the same picture and prompt give alone. Seen, and explained where it is known.
MIXES: dict[str, str] = {
    "dots3_note": "padding on the left changes what follows it",
    "emu3": "pictures are padded to the largest one's size, and its picture tokens are of the padded picture",
    "hunyuan_vl": "its rotary positions count pictures over the whole batch",
    "minicpmv4_6": "with downsample_mode 16x, its vision merger's windows differ for the second picture (4x: equal)",
    "minicpmv4_7": "as minicpmv4_6",
}

# Equal only among prompts of one length, such as the same prompt for each picture.
SAME_PROMPT: dict[str, str] = {
    "blip": "its absolute positions count padding",
    "florence2": "its encoder's absolute positions count padding",
    "git": "its absolute positions count padding",
    "glm5_next": "another length changes a padded row; its sparse attention picks other keys",
    "instructblip": "image tokens are put before the padding, text behind it, so their distance grows",
    "kosmos-2.5": "its mask of image tokens starts at the first position, padding or not",
}

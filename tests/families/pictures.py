"""How checkpoints of each type are asked about a picture: prompt, placeholder, and where its image tokens stand.

`prompt` is what the published checkpoints of a type expect: with `{image}` and `{prompt}`, as their documentation or
their chat template writes it. Types whose checkpoints have a chat template are marked `has_template`; for those without
one `prompt` is the literal to use.
"""

from __future__ import annotations

from dataclasses import dataclass


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
        seen: "placeholders" in the prompt, or how the decoder sees the picture without.
    """

    prompt: str
    placeholder: str = "<image>"
    has_template: bool = False
    nests: bool = False
    written: str = ""
    grid: str = "patches"
    seen: str = "placeholders"


_CHATML = "<|im_start|>user\n{image}\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
_QWEN = "<|im_start|>user\n<|vision_start|>{image}<|vision_end|>{prompt}<|im_end|>\n<|im_start|>assistant\n"
_GLM = "[gMASK]<sop><|user|>\n<|begin_of_image|>{image}<|end_of_image|>{prompt}<|assistant|>\n"
_LLAMA3 = (
    "<|start_header_id|>user<|end_header_id|>\n\n{image}{prompt}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)

_qwen = Picture(_QWEN, "<|image_pad|>", has_template=True, grid="merged")

PICTURES: dict[str, Picture] = {
    "llava": Picture("USER: {image}\n{prompt} ASSISTANT:", has_template=True),
    "vipllava": Picture("###Human: {image}\n{prompt}###Assistant:"),
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
    "gemma3": Picture(
        "<start_of_turn>user\n{image}{prompt}<end_of_turn>\n<start_of_turn>model\n",
        "<start_of_image>",
        has_template=True,
        nests=True,
        written="<image_soft_token>",
        grid="pooled",
    ),
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
}

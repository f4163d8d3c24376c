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
        grid: how image tokens map to the picture: a key of `geometry.GRIDS` or "queries" of `WITHOUT_GRID`; "" where
            `PLACES` says it in words.
        call: what the processor has to be told beside pictures and text.
        seen: "placeholders" in the decoder's prompt, or how else the decoder sees the picture.
    """

    prompt: str
    placeholder: str = "<image>"
    has_template: bool = False
    nests: bool = False
    written: str = ""
    grid: str = ""
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
    grid="whole and slices",
)
_gemma3 = Picture(
    "<start_of_turn>user\n{image}{prompt}<end_of_turn>\n<start_of_turn>model\n",
    "<start_of_image>",
    has_template=True,
    nests=True,
    written="<image_soft_token>",
    grid="squared",
)
_gemma4 = Picture(
    "<|turn>user\n{image}{prompt}<turn|>\n<|turn>model\n", "<|image|>", has_template=True, nests=True, grid="resized"
)
_omni = Picture(
    "<|im_start|>user\n<|vision_bos|>{image}<|vision_eos|>{prompt}<|im_end|>\n<|im_start|>assistant\n",
    "<|IMAGE|>",
    has_template=True,
    grid="merged",
)

PICTURES: dict[str, Picture] = {
    "llava": Picture("USER: {image}\n{prompt} ASSISTANT:", has_template=True, grid="patches"),
    "vipllava": Picture(
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the human's questions.###Human: {image}\n{prompt}###Assistant:",
        grid="patches",
    ),
    "llava_next": Picture(
        "[INST] {image}\n{prompt} [/INST]", has_template=True, grid="any-resolution with class token"
    ),
    "llava_next_video": Picture(
        "USER: {image}\n{prompt} ASSISTANT:", has_template=True, grid="any-resolution with class token"
    ),
    "llava_onevision": Picture(_CHATML, has_template=True, grid="any-resolution"),
    "video_llava": Picture("USER: {image}\n{prompt} ASSISTANT:", grid="patches"),
    "qwen2_vl": _qwen,
    "qwen2_5_vl": _qwen,
    "qwen3_vl": _qwen,
    "qwen3_vl_moe": _qwen,
    "qwen3_5": _qwen,
    "qwen3_5_moe": _qwen,
    "gemma3": _gemma3,
    "internvl": Picture(_CHATML, "<IMG_CONTEXT>", has_template=True, grid="canvas"),
    "mistral3": Picture("[INST]{image}{prompt}[/INST]", "[IMG]", has_template=True, grid="resized"),
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
    "paligemma": Picture("{image}{prompt}", grid="patches"),
    "mllama": Picture(_LLAMA3, "<|image|>", has_template=True, nests=True, seen="cross-attention"),
    "llama4": Picture(
        "<|header_start|>user<|header_end|>\n\n{image}{prompt}<|eot|><|header_start|>assistant<|header_end|>\n\n",
        "<|image|>",
        has_template=True,
        written="<|patch|>",
        grid="padded canvas",
    ),
    "glm4v": Picture(_GLM, "<|image|>", has_template=True, grid="merged"),
    "glm46v": Picture(_GLM, "<|image|>", has_template=True, grid="merged"),
    "glm4v_moe": Picture(_GLM, "<|image|>", has_template=True, grid="merged"),
    "glm_ocr": Picture(_GLM, "<|image|>", has_template=True, grid="merged"),
    "aya_vision": Picture("{image}{prompt}", has_template=True, written="<|IMG_PATCH|>", grid="canvas"),
    "cohere2_vision": Picture("{image}{prompt}", "<|IMG_PATCH|>", has_template=True, grid="canvas"),
    "lfm2_vl": Picture(_CHATML, has_template=True, nests=True, grid="resized"),
    "janus": Picture(
        "<|User|>: {image}\n{prompt}\n\n<|Assistant|>:", "<image_placeholder>", has_template=True, grid="patches"
    ),
    "deepseek_vl": Picture(
        "User: {image}{prompt}\n\nAssistant:", "<image_placeholder>", has_template=True, grid="patches"
    ),
    "deepseek_vl_hybrid": Picture(
        "User: {image}{prompt}\n\nAssistant:", "<image_placeholder>", has_template=True, grid="patches"
    ),
    "instructblip": Picture("{prompt}", "", written="<image>", grid="queries"),
    "blip-2": Picture("Question: {prompt} Answer:", "", written="<image>", grid="queries"),
    "fuyu": Picture("{prompt}\n", "", written="|SPEAKER|", grid="own pixels"),
    "got_ocr2": Picture(
        "<|im_start|>user\n<img>{image}</img>\n{prompt}<|im_end|><|im_start|>assistant\n", "<imgpad>", grid="squared"
    ),
    "ovis2": Picture(_CHATML, written="<IMG_ATOM>", has_template=True, grid="whole and canvas"),
    "molmo2": Picture(
        "<|im_start|>user\n{image}{prompt}<|im_end|>\n<|im_start|>assistant\n",
        "<|image|>",
        written="<im_patch>",
        has_template=True,
        grid="overlapping windows",
    ),
    "chameleon": Picture("{prompt}{image}", grid="cropped square"),
    "emu3": Picture("USER: {image}{prompt} ASSISTANT:", has_template=True, grid="ended rows"),
    "aria": Picture(
        "<|im_start|>user\n<fim_prefix>{image}<fim_suffix>{prompt}<|im_end|>\n<|im_start|>assistant\n",
        "<|img|>",
        has_template=True,
        grid="queries",
    ),
    "lighton_ocr": Picture(
        "<|im_start|>user\n{image}{prompt}<|im_end|>\n<|im_start|>assistant\n",
        "<|image_pad|>",
        has_template=True,
        grid="resized",
    ),
    "qianfan_ocr": Picture(_CHATML, written="<IMG_CONTEXT>", has_template=True, grid="canvas"),
    "pp_chart2table": Picture(
        "<|im_start|>user\n<img>{image}</img>\n{prompt}<|im_end|><|im_start|>assistant\n",
        "<imgpad>",
        has_template=True,
        grid="squared",
    ),
    "video_llama_3": Picture(_CHATML, "<|image_pad|>", has_template=True, grid="merged"),
    "florence2": Picture("{prompt}", "", written="<image>", seen="the encoder's prompt"),
    "pix2struct": Picture("{prompt}", "", seen="cross-attention"),
    "git": Picture("{prompt}", "", seen="before the text"),
    "blip": Picture("{prompt}", "", seen="cross-attention"),
    "paddleocr_vl": Picture(
        "User: <|vision_start|>{image}<|vision_end|>{prompt}\nAssistant: ",
        "<|IMAGE_PLACEHOLDER|>",
        has_template=True,
        grid="merged",
    ),
    "granite4_vision": Picture("{image}\n{prompt}", has_template=True, grid="any-resolution with class token"),
    "exaone4_5": Picture("[|user|]<vision>{image}</vision>{prompt}", "<|image_pad|>", has_template=True, grid="merged"),
    "minicpmv4_6": _minicpm,
    "minicpmv4_7": _minicpm,
    "minicpm_ocr": replace(_minicpm, grid="resized"),
    "hunyuan_vl": Picture(
        "<|image_start|>{image}<|image_end|>{prompt}", "<|image_pad|>", has_template=True, grid="ended rows"
    ),
    "muse_glimmer": Picture(
        "<|header_start|>user<|header_end|>\n\n{image}{prompt}<|eot|><|header_start|>assistant<|header_end|>\n\n",
        "<|patch|>",
        has_template=True,
        grid="merged",
    ),
    "mistral_large4": Picture("[INST]{image}{prompt}[/INST]", "[IMG]", has_template=True, grid="resized"),
    "kosmos-2": Picture("{prompt}", "", grid="queries"),
    "kosmos-2.5": Picture("{prompt}", "", grid="queries"),
    "gemma4": _gemma4,
    "gemma4_unified": _gemma4,
    "t5gemma2": replace(_gemma3, prompt="{image}{prompt}", has_template=False, seen="the encoder's prompt", grid=""),
    "cohere_compass": Picture(
        "<|VISION_START|>{image}<|VISION_END|>{prompt}", "<|IMAGE_PAD|>", has_template=True, grid="merged"
    ),
    "cosmos3_edge": replace(_qwen, call={"return_mm_token_type_ids": True}),
    "cosmos3_omni": _qwen,
    "qwen4_exp": _qwen,
    "lfm3_vl": _qwen,
    "hyperclovax_vision_v2": Picture(_CHATML, "<|image_pad|>", has_template=True, grid="merged"),
    "glmga": Picture(_GLM, "<|image|>", has_template=True, grid="merged"),
    "glm5_next": Picture(_GLM, "<|image|>", has_template=True),
    "ernie4_5_vl_moe": Picture(
        "User: Picture 1:<|IMAGE_START|>{image}<|IMAGE_END|>{prompt}\nAssistant: ",
        "<|IMAGE_PLACEHOLDER|>",
        has_template=True,
        grid="merged",
    ),
    "dots3_note": Picture("<|img|>{image}<|endofimg|>{prompt}", "<|imgpad|>", has_template=True, grid="merged"),
    "granite_docling": Picture("{image}{prompt}", has_template=True, nests=True, grid="canvas"),
    "idefics": Picture("{prompt}", "", seen="cross-attention"),
    "inkling2": Picture("{image}{prompt}", "<|unused_200054|>", has_template=True),
    "inkling_mm_model": Picture("<|content_image|>{image}{prompt}", "<|unused_200054|>", has_template=True),
    "kimi_k25": Picture(
        "<|media_begin|>image<|media_content|>{image}<|media_end|>{prompt}",
        "<|media_pad|>",
        has_template=True,
        grid="padded squares",
    ),
    "minimax_m3_vl": Picture("{image}{prompt}", "]<]image[>[", has_template=True, grid="merged"),
    "muse_spark": Picture(
        "<|header_start|>user<|header_end|>\n\n{image}{prompt}<|eot|><|header_start|>assistant<|header_end|>\n\n",
        "<|patch|>",
        has_template=True,
        grid="merged",
    ),
    "nemotron_h_omni": Picture("{image}\n{prompt}", has_template=True, grid="resized"),
    "step3p7": Picture("{image}{prompt}", "<im_patch>", has_template=True, grid="windows"),
    "deepseek_ocr2": Picture("{image}\n{prompt}", grid="queries"),
    "unlimited_ocr": Picture("{image}{prompt}", has_template=True, grid="canvas and padded"),
    "qwen2_5_omni_thinker": _omni,
    "qwen3_omni_moe_thinker": _omni,
}

_PADDED = "squares of whole pixels, row by row; the picture is padded on the right and below to whole squares"
_SQUARED = "even over the whole picture, n × n, which is squeezed to a square; its encoder reads them"

# Where image tokens lie, by type, in words: rules that are not in `geometry.GRIDS`, of types that are not scored, or
# whose encoder reads them.
PLACES: dict[str, str] = {
    "florence2": "the mean of all, then " + _SQUARED,
    "glm5_next": _PADDED + " (image_grid_thw / merge), black; large ones are scaled down first",
    "inkling2": _PADDED + " (image_grid_thw)",
    "inkling_mm_model": _PADDED,
    "t5gemma2": _SQUARED,
}

# Of these the rules that were read in the types' code; the others also held for squares planted in two pictures.
READ_ONLY: tuple[str, ...] = ("florence2", "inkling_mm_model", "t5gemma2")

# What calls of the processor are like, where that is not pictures and prompts in, `input_ids` and `pixel_values` out.
PECULIAR: dict[str, str] = {
    "aria": "every picture is made 980 pixels wide and high, whatever its image processor says; gives pixel_mask",
    "chameleon": "appends the tokenizer's sep_token to each text",
    "cosmos3_edge": "its model refuses inputs without mm_token_type_ids, which its processor gives only if asked",
    "emu3": "writes <s> before each text itself",
    "ernie4_5_vl_moe": "gives moe_mm_token_type_ids beside mm_token_type_ids",
    "florence2": "task words (<CAPTION>, ...) only as the whole prompt; the picture is put before it, </s> behind",
    "fuyu": "puts the picture before and <0x04> behind the text; gives image_patches in place of pixel_values",
    "gemma3": "gives token_type_ids, which its mask needs",
    "got_ocr2": "writes 256 image tokens, whatever the picture's size, unless called with num_image_tokens",
    "idefics": "puts the picture before the text, and one <image> that is no image token; gives image_attention_mask",
    "instructblip": "puts image tokens before the padding; gives qformer_input_ids",
    "blip-2": "puts image tokens before the padding",
    "kosmos-2": "image tokens are ids of ordinary words, unk + 1 and on; image_embeds_position_mask says which",
    "kosmos-2.5": "image tokens are <s>; image_embeds_position_mask (1) says which, from the first position on",
    "llama4": "gives pixel_values in bfloat16",
    "minicpm_ocr": "all pictures' patches in one row of pixel_values: rows of the batch are no rows of it",
    "minicpmv4_6": "as minicpm_ocr",
    "minicpmv4_7": "as minicpm_ocr",
    "mllama": "one <|image|>, whose id lies behind the text vocabulary; gives cross_attention_mask",
    "molmo2": "writes <s> before each text itself; its id is config.image_patch_id",
    "paligemma": "writes <s> behind the picture and a line end behind the text; gives labels, and token_type_ids",
    "pix2struct": "gives flattened_patches, decoder_input_ids and decoder_attention_mask; no input_ids",
    "pp_chart2table": "its template counts the image tokens of a picture out",
    "t5gemma2": "its model wants decoder_input_ids",
    "unlimited_ocr": "num_local_patches and patches_grid are lists, not tensors",
    "video_llava": "gives pixel_values_images in place of pixel_values",
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
    "mistral_large4": "behind padding its sparse attention picks other keys",
}

# Equal only among prompts of one length, such as the same prompt for each picture.
SAME_PROMPT: dict[str, str] = {
    "blip": "its absolute positions count padding",
    "florence2": "its encoder's absolute positions count padding",
    "git": "its absolute positions count padding",
    "glm5_next": "behind padding its sparse attention picks other keys",
    "instructblip": "image tokens are put before the padding, text behind it, so their distance grows",
    "mistral_large4": "as glm5_next; pictures with other numbers of rows are padded, too",
    "kosmos-2.5": "its mask of image tokens starts at the first position, padding or not",
}

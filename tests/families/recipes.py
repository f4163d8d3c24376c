"""What each type's processor needs at a tiny model's size: picture sizes, special tokens, numbers of image tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.families.shrink import PATCH, SIDE

SQUARE = {"height": SIDE, "width": SIDE}
_CROP = {"size": {"shortest_edge": SIDE}, "crop_size": SQUARE}
_AREA = {"size": {"shortest_edge": 4 * PATCH**2, "longest_edge": 48 * PATCH**2}, "patch_size": PATCH, "merge_size": 2}
_PINPOINTS = {"image_grid_pinpoints": [[SIDE, SIDE]]}


def _nothing(_: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Recipe:
    """How a type's processor is made.

    Attributes:
        images: settings of its image processor.
        numbers: the model's config -> arguments of its processor.
        tokens: special tokens of its tokenizer, each with the config's name for its id ("" for none).
        named: attributes of its tokenizer that the processor reads, and the tokens they are.
        processor: name of its class, where transformers' table lacks the type; likewise `image_processor`.
        kin: the type whose parts it has, where transformers' tables of parts lack it.
    """

    images: dict[str, Any] = field(default_factory=dict)
    numbers: Callable[[Any], dict[str, Any]] = _nothing
    tokens: dict[str, str] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    processor: str = ""
    image_processor: str = ""
    feature_extractor: str = ""
    kin: str = ""


def _selection(config: Any) -> dict[str, Any]:
    """What LLaVA's kin take from their config; CLIP's tower has a class token."""
    return {
        "patch_size": config.vision_config.patch_size,
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", None) or "default",
        "num_additional_image_tokens": 1,
    }


def _merged(config: Any) -> int:
    return (SIDE // PATCH // 2) ** 2


_VISION = {"<|vision_start|>": "vision_start_token_id", "<|vision_end|>": "vision_end_token_id"}
_TURNS = dict.fromkeys(("<|im_start|>", "<|im_end|>"), "")
_VIDEO = {"<|video_pad|>": "video_token_id"}
_qwen = Recipe(images=_AREA, tokens=_VISION | _VIDEO | _TURNS)
_GLM_TOKENS = {
    "<|video|>": "video_token_id",
    "<|begin_of_image|>": "image_start_token_id",
    "<|end_of_image|>": "image_end_token_id",
    "<|begin_of_video|>": "video_start_token_id",
    "<|end_of_video|>": "video_end_token_id",
    **dict.fromkeys(("[gMASK]", "<sop>", "<|user|>", "<|assistant|>"), ""),
}
_glm = Recipe(images=_AREA, tokens=_GLM_TOKENS)
_glm46v = Recipe(_AREA, tokens=_GLM_TOKENS, processor="Glm46VProcessor", kin="glm46v")
_ROWS = {f"<row_{row}_col_{column}>": "" for row in (1, 2, 3) for column in (1, 2, 3)}
_IDEFICS = dict.fromkeys(("<fake_token_around_image>", "<end_of_utterance>", "<global-img>"), "") | _ROWS
_SPLIT = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}

RECIPES: dict[str, Recipe] = {
    "llava": Recipe(images=_CROP, numbers=_selection, image_processor="CLIPImageProcessor"),
    "vipllava": Recipe(images=_CROP, numbers=_selection),
    "llava_next": Recipe(images=_CROP | _PINPOINTS, numbers=_selection),
    "llava_next_video": Recipe(images=_CROP | _PINPOINTS, numbers=_selection, tokens={"<video>": "video_token_index"}),
    "llava_onevision": Recipe(
        images={"size": SQUARE} | _PINPOINTS,
        numbers=lambda _: {"num_image_tokens": 16, "vision_feature_select_strategy": "full"},
        tokens={"<video>": "video_token_index"} | _TURNS,
    ),
    "video_llava": Recipe(images=_CROP, numbers=_selection, tokens={"<video>": "video_token_index"}),
    "qwen2_vl": _qwen,
    "qwen2_5_vl": _qwen,
    "qwen3_vl": _qwen,
    "qwen3_vl_moe": Recipe(_AREA, tokens=_VISION | _VIDEO | _TURNS, kin="qwen3_vl"),
    "qwen3_5": _qwen,
    "qwen3_5_moe": _qwen,
    "gemma3": Recipe(
        images={"size": SQUARE},
        numbers=lambda config: {"image_seq_length": config.mm_tokens_per_image},
        tokens={
            "<start_of_image>": "boi_token_index",
            "<end_of_image>": "eoi_token_index",
            "<start_of_turn>": "",
            "<end_of_turn>": "",
        },
        named={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    ),
    "internvl": Recipe(
        images={"size": SQUARE, "crop_to_patches": True, "max_patches": 3},
        numbers=lambda config: {"image_seq_length": _merged(config)},
        tokens=dict.fromkeys(("<img>", "</img>", "<video>"), "") | _TURNS,
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    ),
    "mistral3": Recipe(
        images={"size": {"longest_edge": 2 * SIDE}, "patch_size": PATCH},
        numbers=lambda config: {"patch_size": PATCH, "spatial_merge_size": config.spatial_merge_size},
        tokens=dict.fromkeys(("[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]"), ""),
    ),
    "idefics2": Recipe(
        images={"size": {"shortest_edge": 28, "longest_edge": SIDE}},
        numbers=lambda config: {"image_seq_len": config.perceiver_config.resampler_n_latents},
        tokens=_IDEFICS,
    ),
    "idefics3": Recipe(images=_SPLIT, numbers=lambda config: {"image_seq_len": _merged(config)}, tokens=_IDEFICS),
    "smolvlm": Recipe(
        images=_SPLIT,
        numbers=lambda config: {"image_seq_len": _merged(config)},
        tokens=_IDEFICS | {"<video>": ""} | _TURNS,
    ),
    "paligemma": Recipe(images={"size": SQUARE, "image_seq_length": 16}),
    "mllama": Recipe(
        images={"size": SQUARE},
        tokens=dict.fromkeys(("<|python_tag|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), ""),
    ),
    "llama4": Recipe(
        images={"size": SQUARE, "max_patches": 4},
        numbers=lambda config: {
            "patch_size": PATCH,
            "pixel_shuffle_ratio": config.vision_config.pixel_shuffle_ratio,
        },
        tokens={"<|image_start|>": "boi_token_index", "<|image_end|>": "eoi_token_index"}
        | dict.fromkeys(
            (
                *("<|image|>", "<|tile_x_separator|>", "<|tile_y_separator|>"),
                *("<|header_start|>", "<|header_end|>", "<|eot|>"),
            ),
            "",
        ),
    ),
    "glm4v": _glm,
    "glm46v": _glm,
    "glm4v_moe": Recipe(_AREA, tokens=_GLM_TOKENS, kin="glm4v"),
    "glm_ocr": _glm46v,
    "aya_vision": Recipe(
        images={"size": SQUARE, "crop_to_patches": True, "max_patches": 3},
        numbers=lambda config: {
            "patch_size": PATCH,
            "img_size": SIDE,
            "downsample_factor": config.downsample_factor,
        },
        tokens=dict.fromkeys(
            (
                *("<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_LINE_BREAK|>"),
                *("TILE_GLOBAL", "TILE_1", "TILE_2", "TILE_3"),
            ),
            "",
        ),
    ),
    "cohere2_vision": Recipe(
        images={"size": SQUARE, "patch_size": 2, "max_patches": 3},
        tokens=dict.fromkeys(("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_LINE_BREAK|>"), ""),
        named={
            "boi_token": "<|START_OF_IMG|>",
            "eoi_token": "<|END_OF_IMG|>",
            "image_token": "<|IMG_PATCH|>",
            "img_line_break_token": "<|IMG_LINE_BREAK|>",
        },
    ),
    "lfm2_vl": Recipe(
        images={
            "downsample_factor": 2,
            "encoder_patch_size": PATCH,
            "tile_size": SIDE,
            "min_image_tokens": 2,
            "max_image_tokens": 6,
            "max_tiles": 3,
        },
        tokens=dict.fromkeys(("<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"), "") | _TURNS,
    ),
}

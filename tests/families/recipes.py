"""What each type's processor needs at a tiny model's size: picture sizes, special tokens, numbers of image tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.families.shrink import PATCH, SIDE

SQUARE = {"height": SIDE, "width": SIDE}
_CROP = {"size": {"shortest_edge": SIDE}, "crop_size": SQUARE}
_AREA = {"size": {"shortest_edge": 4 * PATCH**2, "longest_edge": 48 * PATCH**2}, "patch_size": PATCH, "merge_size": 2}
_PINPOINTS = {"image_grid_pinpoints": [[SIDE, SIDE]]}
_CANVASES = {"image_grid_pinpoints": [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]}


def _nothing(_: Any) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Recipe:
    """How a type's processor is made.

    Attributes:
        images: settings of its image processor; `videos` likewise.
        numbers: the model's config -> arguments of its processor.
        tokens: special tokens of its tokenizer, each with the config's name for its id ("" for none).
        named: attributes of its tokenizer that the processor reads, and the tokens they are.
        processor: name of its class, where transformers' table lacks the type; likewise `image_processor`,
            `feature_extractor`.
        kin: the type whose parts it has, where transformers' tables of parts lack it.
        plain: which tokens are ordinary pieces of the vocabulary.
        placeholder: that of a prompt at this size, where the published one counts a picture's tokens out.
        model: settings of the tiny model, by dotted path, where the processor fixes sizes that are not tiny.
    """

    images: dict[str, Any] = field(default_factory=dict)
    videos: dict[str, Any] = field(default_factory=dict)
    numbers: Callable[[Any], dict[str, Any]] = _nothing
    tokens: dict[str, str] = field(default_factory=dict)
    named: dict[str, str] = field(default_factory=dict)
    processor: str = ""
    image_processor: str = ""
    feature_extractor: str = ""
    kin: str = ""
    plain: tuple[str, ...] = ()
    placeholder: str = ""
    model: dict[str, Any] = field(default_factory=dict)


def _selection(config: Any) -> dict[str, Any]:
    """What LLaVA's kin take from their config; CLIP's tower has a class token."""
    return {
        "patch_size": config.vision_config.patch_size,
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", None) or "default",
        "num_additional_image_tokens": 1,
    }


def _queries(config: Any) -> dict[str, Any]:
    return {"num_query_tokens": config.num_query_tokens}


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
_glm46v = Recipe(images=_AREA, tokens=_GLM_TOKENS, processor="Glm46VProcessor", kin="glm46v")
_ROWS = {f"<row_{row}_col_{column}>": "" for row in (1, 2, 3) for column in (1, 2, 3)}
_IDEFICS = dict.fromkeys(("<fake_token_around_image>", "<end_of_utterance>", "<global-img>"), "") | _ROWS
_SPLIT = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}

# A random decoder with a tied head says its last token again and again.
_UNTIED = {"tie_word_embeddings": False, "text_config.tie_word_embeddings": False}
_MISTRAL = dict.fromkeys(("[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]"), "")
_deepseek = Recipe(
    images={"size": SQUARE},
    numbers=lambda _: {"num_image_tokens": 16},
    named={"image_token": "<image_placeholder>"},
)
_PAGE = dict.fromkeys(("<img>", "</img>"), "") | _TURNS
_minicpm = Recipe(
    images={"scale_resolution": 2 * SIDE, "patch_size": PATCH, "max_slice_nums": 6},
    tokens=dict.fromkeys(
        ("<|video_pad|>", "<image>", "</image>", "<slice>", "</slice>", "<image_id>", "</image_id>"), ""
    )
    | _TURNS,
    named={
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "image_start_token": "<image>",
        "image_end_token": "</image>",
        "slice_start_token": "<slice>",
        "slice_end_token": "</slice>",
        "image_id_start_token": "<image_id>",
        "image_id_end_token": "</image_id>",
    },
)
_MUSE = {"<|video|>": "video_token_id"} | dict.fromkeys(
    (
        *("<|image_start|>", "<|image_end|>", "<|vid_frame_separator|>", "<|vid_start|>", "<|vid_end|>"),
        *("<|header_start|>", "<|header_end|>", "<|eot|>"),
    ),
    "",
)
_KOSMOS = (
    *("</doc>", "<image>", "</image>", "</chunk>", "</line>", "<phrase>", "</phrase>", "<object>", "</object>"),
    *("</delimiter_of_multi_objects/>", "<grounding>", *(f"<patch_index_{number:04d}>" for number in range(4))),
)
_gemma3 = Recipe(
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
)
_gemma4 = Recipe(
    images={"patch_size": PATCH, "pooling_kernel_size": 2, "max_soft_tokens": 70},
    numbers=lambda _: {"image_seq_length": 70},
    tokens={
        "<|image>": "boi_token_id",
        "<image|>": "eoi_token_id",
        "<|video|>": "video_token_id",
        "<|audio>": "boa_token_id",
        "<audio|>": "eoa_token_index",
        "<|audio|>": "audio_token_id",
        "<|turn>": "",
        "<turn|>": "",
    },
    named={
        "image_token": "<|image|>",
        "boi_token": "<|image>",
        "eoi_token": "<image|>",
        "audio_token": "<|audio|>",
        "boa_token": "<|audio>",
        "eoa_token": "<audio|>",
    },
    model={"vision_config.position_embedding_size": 64},
)
_ERNIE = {
    "image_token": "<|IMAGE_PLACEHOLDER|>",
    "image_start_token": "<|IMAGE_START|>",
    "image_end_token": "<|IMAGE_END|>",
    "video_token": "<|VIDEO_PLACEHOLDER|>",
    "video_start_token": "<|VIDEO_START|>",
    "video_end_token": "<|VIDEO_END|>",
}
_tiles_of_pages = Recipe(
    images={"size": {"height": 2 * SIDE, "width": 2 * SIDE}, "tile_size": 2 * SIDE, "max_patches": 6},
    numbers=lambda _: {"patch_size": PATCH, "downsample_ratio": 4},
)
_omni = Recipe(
    images=_AREA,
    tokens={
        "<|VIDEO|>": "video_token_index",
        "<|AUDIO|>": "audio_token_index",
        "<|vision_bos|>": "vision_start_token_id",
        "<|vision_eos|>": "vision_end_token_id",
        "<|audio_bos|>": "audio_start_token_id",
        "<|audio_eos|>": "audio_end_token_id",
    }
    | _TURNS,
    named={
        "image_token": "<|IMAGE|>",
        "video_token": "<|VIDEO|>",
        "audio_token": "<|AUDIO|>",
        "vision_bos_token": "<|vision_bos|>",
        "vision_eos_token": "<|vision_eos|>",
        "audio_bos_token": "<|audio_bos|>",
        "audio_eos_token": "<|audio_eos|>",
    },
    processor="Qwen2_5OmniProcessor",
    feature_extractor="WhisperFeatureExtractor",
    kin="qwen2_5_omni",
)

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
    "qwen3_vl_moe": Recipe(images=_AREA, tokens=_VISION | _VIDEO | _TURNS, kin="qwen3_vl"),
    "qwen3_5": _qwen,
    "qwen3_5_moe": _qwen,
    "gemma3": _gemma3,
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
        tokens=_MISTRAL,
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
    "paligemma": Recipe(images={"size": SQUARE, "image_seq_length": 16}, model=_UNTIED),
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
    "glm4v_moe": Recipe(images=_AREA, tokens=_GLM_TOKENS, kin="glm4v"),
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
        model=_UNTIED,
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
    "janus": Recipe(
        images={"size": SQUARE},
        numbers=lambda _: {"num_image_tokens": 16},
        tokens=dict.fromkeys(("<begin_of_image>", "<end_of_image>"), ""),
        named={
            "boi_token": "<begin_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_placeholder>",
        },
    ),
    "deepseek_vl": _deepseek,
    "deepseek_vl_hybrid": replace(
        _deepseek,
        images={"size": SQUARE, "high_res_size": {"height": 4 * SIDE, "width": 4 * SIDE}},
        model={"high_res_vision_config.image_size": 4 * SIDE},
    ),
    "instructblip": Recipe(images={"size": SQUARE}, numbers=_queries),
    "blip-2": Recipe(images={"size": SQUARE}, numbers=_queries),
    "fuyu": Recipe(
        images={"size": {"height": 2 * SIDE, "width": 2 * SIDE}, "patch_size": {"height": PATCH, "width": PATCH}},
        tokens=dict.fromkeys(("|NEWLINE|",), ""),
        plain=("|SPEAKER|", "|NEWLINE|"),
    ),
    "got_ocr2": Recipe(
        images={"size": {"height": 128, "width": 128}},
        tokens=_PAGE,
        model=_UNTIED
        | {  # its processor writes 256 image tokens, whatever the size of the picture
            "vision_config.image_size": 128,
            "vision_config.patch_size": 2,
            "vision_config.global_attn_indexes": [],
            "vision_config.num_hidden_layers": 1,  # of 64 x 64 patches
            "image_seq_length": 256,
        },
    ),
    "ovis2": Recipe(
        images={"size": SQUARE, "crop_to_patches": True, "max_patches": 3},
        numbers=lambda _: {"image_seq_length": 16},
        tokens=dict.fromkeys(("<image>", "<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>"), "")
        | _TURNS,
    ),
    "molmo2": Recipe(
        images={"size": SQUARE, "max_crops": 6, "overlap_margins": [1, 1]},
        tokens={
            "<im_start>": "image_start_token_id",
            "<low_res_im_start>": "low_res_image_start_token_id",
            "<im_end>": "image_end_token_id",
            "<frame_start>": "frame_start_token_id",
            "<frame_end>": "frame_end_token_id",
        }
        | dict.fromkeys(("<|image|>", "<|video|>", "<im_col>", "<im_low>"), "")
        | _TURNS,
    ),
    "chameleon": Recipe(
        images={"size": {"shortest_edge": SIDE}, "crop_size": SQUARE},
        numbers=lambda _: {"image_seq_length": 49},
        tokens=dict.fromkeys(("<racm3:break>", "<eoss>", "<reserved08706>"), ""),
        named={"sep_token": "<reserved08706>"},
    ),
    "emu3": Recipe(
        images={"min_pixels": 32**2, "max_pixels": SIDE**2},
        tokens=dict.fromkeys(("<|image start|>", "<|image end|>", "<|image token|>", "<|extra_201|>"), ""),
        named={
            "image_token": "<image>",
            "boi_token": "<|image start|>",
            "eoi_token": "<|image end|>",
            "image_wrapper_token": "<|image token|>",
            "eof_token": "<|extra_201|>",
        },
    ),
    "aria": Recipe(
        images={"max_image_size": 980, "min_image_size": 336},
        numbers=lambda _: {"size_conversion": {980: 4}},
        model={  # its processor makes every picture 980 pixels wide and high
            "vision_config.image_size": 980,
            "vision_config.patch_size": 140,
            "projector_patch_to_query_dict": {"49": 4},
        },
        named={"image_token": "<|img|>"},
        tokens=dict.fromkeys(("<fim_prefix>", "<fim_suffix>"), "") | _TURNS,
    ),
    "lighton_ocr": Recipe(
        images={"size": {"longest_edge": 2 * SIDE}, "patch_size": 2 * PATCH},
        numbers=lambda config: {"patch_size": PATCH, "spatial_merge_size": config.spatial_merge_size},
        tokens=dict.fromkeys(("<|vision_pad|>", "<|vision_end|>"), "") | _TURNS,
        named={
            "image_token": "<|image_pad|>",
            "image_break_token": "<|vision_pad|>",
            "image_end_token": "<|vision_end|>",
        },
    ),
    "qianfan_ocr": Recipe(
        images={"size": SQUARE, "crop_to_patches": True, "max_patches": 3},
        numbers=lambda config: {"image_seq_length": _merged(config)},
        tokens=dict.fromkeys(("<image>", "<img>", "</img>"), "") | _TURNS,
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
        },
    ),
    "pp_chart2table": Recipe(
        images={"size": {"height": 2 * SIDE, "width": 2 * SIDE}}, tokens=_PAGE, placeholder="<imgpad>" * 4
    ),
    "video_llama_3": Recipe(images=_AREA | {"merge_size": 1}, tokens=_VIDEO | _TURNS),
    "florence2": Recipe(
        images={"size": SQUARE, "crop_size": SQUARE, "image_seq_length": 5},
        named={"image_token": "<image>"},
    ),
    "pix2struct": Recipe(images={"patch_size": {"height": PATCH, "width": PATCH}, "max_patches": 24}),
    "git": Recipe(images={"size": SQUARE, "crop_size": SQUARE}),
    "blip": Recipe(images={"size": SQUARE}),
    "paddleocr_vl": Recipe(images=_AREA, tokens=_VISION, named={"image_token": "<|IMAGE_PLACEHOLDER|>"}),
    "granite4_vision": Recipe(
        images=_CROP | _CANVASES,
        numbers=lambda config: _selection(config) | {"downsample_rate": config.downsample_rate},
        model=_CANVASES,
    ),
    "exaone4_5": Recipe(images=_AREA, tokens=_VIDEO | dict.fromkeys(("<vision>", "</vision>", "[|user|]"), "")),
    "minicpmv4_6": _minicpm,
    "minicpmv4_7": _minicpm,
    "minicpm_ocr": _minicpm,
    "hunyuan_vl": Recipe(
        images={"size": {"shortest_edge": 28**2, "longest_edge": SIDE**2}, "patch_size": PATCH},
        tokens=dict.fromkeys(("<|image_start|>", "<|image_end|>"), ""),
        named={
            "image_token": "<|image_pad|>",
            "image_start_token": "<|image_start|>",
            "image_end_token": "<|image_end|>",
        },
    ),
    "muse_glimmer": Recipe(images={"patch_size": PATCH, "max_image_tokens": 12}, tokens=_MUSE),
    "mistral_large4": Recipe(
        images={"size": {"longest_edge": 2 * SIDE}, "patch_size": PATCH},
        numbers=lambda config: {"patch_size": PATCH, "spatial_merge_size": config.spatial_merge_size},
        tokens=_MISTRAL,
    ),
    "kosmos-2": Recipe(
        images=_CROP,
        numbers=lambda _: {"num_patch_index_tokens": 4},
        tokens=dict.fromkeys(_KOSMOS, ""),
        processor="Kosmos2Processor",
        model={"latent_query_num": 64},
    ),
    "kosmos-2.5": Recipe(
        images={"patch_size": {"height": PATCH, "width": PATCH}, "max_patches": 16},
        numbers=lambda config: {"num_image_tokens": config.latent_query_num},
        tokens=dict.fromkeys(("</image>", "<ocr>", "<md>"), ""),
        named={"boi_token": "<image>", "eoi_token": "</image>", "image_token": "<s>"},
        processor="Kosmos2_5Processor",
        model={
            "vision_config.max_num_patches": 4096,
            "vision_config.num_hidden_layers": 1,
            "vision_config.num_attention_heads": 1,
            "vision_config.head_dim": 64,
        },  # what its processor pads to
    ),
    "gemma4": _gemma4,
    "gemma4_unified": replace(
        _gemma4,
        images=_gemma4.images | {"pooling_kernel_size": 1},
        model={"vision_config.mm_posemb_size": 64},
    ),
    "t5gemma2": replace(_gemma3, numbers=lambda config: {"image_seq_length": config.encoder.mm_tokens_per_image}),
    "cohere_compass": Recipe(
        images=_AREA,
        tokens={"<|VIDEO_PAD|>": "video_token_id", "<|VISION_START|>": "vision_start_token_id"}
        | {"<|VISION_END|>": "vision_end_token_id"},
        kin="qwen3_vl",
        image_processor="CohereCompassImageProcessor",
    ),
    "cosmos3_edge": _qwen,
    "cosmos3_omni": replace(_qwen, processor="Qwen3VLProcessor"),
    "qwen4_exp": _qwen,
    "lfm3_vl": _qwen,
    "hyperclovax_vision_v2": replace(_qwen, tokens=_VIDEO | {"<|video_duration|>": ""} | _TURNS),
    "glmga": replace(_glm, processor="Glm46VProcessor"),
    "glm5_next": replace(_glm, images={"patch_size": PATCH, "min_image_tokens": 2, "max_image_tokens": 12}),
    "ernie4_5_vl_moe": Recipe(
        images=_AREA,
        tokens={token: name + "_id" for name, token in _ERNIE.items() if name != "image_token"},
        named=_ERNIE,
        videos={"draw_on_frames": False},  # which needs a font
    ),
    "dots3_note": Recipe(
        images=_AREA | {"temporal_patch_size": 1},
        tokens=_VIDEO | {"<|audio_comp_pad|>": "audio_token_id", "<|img|>": "", "<|endofimg|>": ""},
    ),
    "granite_docling": Recipe(
        images={"size": SQUARE, "max_patches": 3},
        numbers=lambda config: {"image_seq_len": _merged(config)},
        tokens=_IDEFICS,
        model=_UNTIED,
    ),
    "idefics": Recipe(
        images={"image_size": SIDE},
        numbers=lambda _: {"image_size": SIDE},
        tokens=dict.fromkeys(("<fake_token_around_image>", "<end_of_utterance>"), ""),
    ),
    "inkling2": Recipe(images={"size": {"height": 2 * PATCH, "width": 2 * PATCH}}),
    "inkling_mm_model": Recipe(
        images={"size": {"height": PATCH, "width": PATCH}},
        tokens={"<|unused_200053|>": "audio_token_id"}
        | dict.fromkeys(("<|content_image|>", "<|content_audio_input|>"), ""),
    ),
    "kimi_k25": Recipe(
        images={"patch_size": PATCH, "merge_size": 2, "max_patches": 48},
        tokens={"<|kimi_k25_video_placeholder|>": "video_token_id"}
        | dict.fromkeys(("<|media_begin|>", "<|media_content|>", "<|media_end|>"), ""),
    ),
    "minimax_m3_vl": Recipe(
        images=_AREA,
        tokens={"]<]video[>[": "video_token_index"} | dict.fromkeys(("]<]start of image[>[", "]<]end of image[>["), ""),
    ),
    "muse_spark": Recipe(
        images={"patch_size": PATCH, "max_image_tokens": 12},
        tokens=_MUSE | {"<|audio|>": "audio_token_id", "<|soft_audio_start|>": "", "<|soft_audio_end|>": ""},
    ),
    "nemotron_h_omni": Recipe(
        images={"patch_size": PATCH, "min_num_patches": 4, "max_num_patches": 48},
        tokens=dict.fromkeys(("<video>", "<so_embedding>", "<so_start>", "<so_end>", "<img>", "</img>"), ""),
        feature_extractor="ParakeetFeatureExtractor",
    ),
    "step3p7": Recipe(
        images={"size": {"height": 2 * SIDE, "width": 2 * SIDE}, "patch_size": 2 * SIDE, "max_image_size": 4 * SIDE},
        tokens=dict.fromkeys(("<patch_start>", "<patch_end>", "<patch_newline>", "<im_start>", "<im_end>"), ""),
    ),
    "deepseek_ocr2": replace(
        _tiles_of_pages,
        images=_tiles_of_pages.images | {"max_patches": 2},
        numbers=lambda _: {"patch_size": 10, "downsample_ratio": 1},  # 12 x 12: its model has 144 queries for any tile
    ),
    "unlimited_ocr": replace(
        _tiles_of_pages, images=_tiles_of_pages.images | {"size": {"height": 4 * SIDE, "width": 4 * SIDE}}
    ),
    "qwen2_5_omni_thinker": _omni,
    "qwen3_omni_moe_thinker": replace(_omni, processor="Qwen3OmniMoeProcessor", kin="qwen3_omni_moe"),
}

# Seeds with which captions of both pictures of the tests hold nouns; the other types' is 0.
SEEDS: dict[str, int] = {
    **dict.fromkeys(("cohere_compass", "deepseek_ocr2", "glm4v_moe", "llava_next_video", "mistral3", "ovis2"), 1),
    **dict.fromkeys(("lfm2_vl", "lighton_ocr", "minicpm_ocr", "t5gemma2"), 2),
    "kimi_k25": 2,
    "video_llama_3": 1,
}

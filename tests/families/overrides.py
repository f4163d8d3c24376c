"""What single types need beside small sizes: settings by dotted path, given after `shrink`.

Some default configs are smaller in kind than the published checkpoints (no experts, no gates, no convolution): here
they are switched on.
"""

from __future__ import annotations

from typing import Any

from tests.families.shrink import HEAD, PATCH, SIDE, VOCABULARY, WIDTH

_LETTERS = "ABCDEFGHIJ"


def _mrope(*sections: int, **more: Any) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": list(sections or (4, 2, 2))}
    return {"text_config.rope_parameters": rope | more}


_GEMMA4: dict[str, Any] = {
    "text_config.use_bidirectional_attention": "vision",
    "text_config.final_logit_softcapping": 30.0,
    "text_config.num_kv_shared_layers": 0,
}
_GEMMA4_EXPERTS: dict[str, Any] = {
    "text_config.num_experts": 4,
    "text_config.top_k_experts": 2,
    "text_config.moe_intermediate_size": 24,
}
_GEMMA4_VISION = {
    "model_type": "gemma4_vision",
    "hidden_size": WIDTH,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": HEAD,
    "patch_size": PATCH,
    "pooling_kernel_size": 2,
    "position_embedding_size": 16,
}
_SAM = {"downsample_channels": [WIDTH, WIDTH], "output_channels": 32, "image_size": SIDE * 2}
_TILES = {"image_grid_pinpoints": [[SIDE, SIDE]]}
_MINICPM = {"insert_layer_id": 1, "vision_config.insert_layer_id": 1, "vision_config.image_size": 2 * SIDE}
_VISION_ENDS = {"vision_start_token_id": 0, "vision_end_token_id": 0}  # the defaults lack what forward reads

OVERRIDES: dict[str, dict[str, Any]] = {
    "aria": {"projector_patch_to_query_dict": {"16": 4}, "max_value_projector_patch_to_query_dict": 4},
    "chameleon": {
        "vocabulary_map": {"<image>": 3}
        | {f"IMGIMG{_LETTERS[i // 10]}{_LETTERS[i % 10]}Z": 300 + i for i in range(16)},
        "vq_config.base_channels": 32,
        "vq_config.latent_channels": 32,
        "vq_config.num_embeddings": 16,
        "vq_config.embed_dim": 32,
        "vq_config.channel_multiplier": [1, 1, 1, 1],
        "vq_config.num_res_blocks": 1,
        "vq_config.resolution": SIDE,
    },
    "cohere_compass": {
        "text_config.layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "text_config.rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}
            for kind in ("sliding_attention", "full_attention")
        },
    },
    "cosmos3_edge": {"text_config.mrope_section": [4, 2, 2]},
    "cosmos3_omni": _mrope(mrope_interleaved=True) | {"vision_config.deepstack_visual_indexes": [0, 1]},
    "deepseek_ocr2": {
        "text_config.mlp_layer_types": ["dense", "sparse", "sparse"],
        "text_config.num_experts_per_tok": 2,
        "vision_config.sam_config": _SAM,
    },
    "deepseek_vl_hybrid": {"high_res_vision_config.output_channels": 32},
    "emu3": {
        "vocabulary_map": {"<image>": 3, "<|extra_200|>": 290}
        | {f"<|visual token {i:06d}|>": 300 + i for i in range(16)},
        "vq_config.codebook_size": 16,
        "vq_config.base_channels": 32,
        "vq_config.channel_multiplier": [1, 1, 1, 1],
        "vq_config.num_res_blocks": 1,
        "vq_config.num_attention_heads": 1,
        "vq_config.hidden_size": 32,
    },
    "ernie4_5_vl_moe": _mrope(3, 3, 2) | {"text_config.mlp_layer_types": ["dense", "sparse", "sparse"]},
    "exaone4_5": {},
    "fast_vlm": {},
    "florence2": {
        "vision_config.patch_size": [7, 3, 3, 3],
        "vision_config.embed_dim": [32, 32, 64, 64],
        "vision_config.num_heads": [2, 2, 4, 4],
        "vision_config.num_groups": [2, 2, 4, 4],
        "vision_config.depths": [1, 1, 1, 1],
        "vision_config.window_size": 4,
        "vision_config.projection_dim": WIDTH,
    },
    "gemma3": {"mm_tokens_per_image": 4},
    "gemma4": _GEMMA4 | _GEMMA4_EXPERTS | {"text_config.enable_moe_block": True, "vision_config": _GEMMA4_VISION},
    "gemma4_unified": _GEMMA4
    | {
        "vision_config": {
            "pooling_kernel_size": 1,
            "patch_size": PATCH,
            "mm_embed_dim": WIDTH,
            "mm_posemb_size": 16,
            "output_proj_dims": WIDTH,
        }
    },
    "diffusion_gemma": _GEMMA4_EXPERTS | {"vision_config.pooling_kernel_size": 2, "canvas_length": 6},
    "glm46v": _mrope(4, 2, 2),
    "glmga": _mrope(4, 2, 2),
    "glm4v": _mrope(4, 2, 2),
    "glm4v_moe": _mrope(2, 1, 1, partial_rotary_factor=0.5),
    "glm_ocr": _mrope(4, 2, 2),
    "glm5_next": {"text_config.index_topk": 8, "text_config.index_kpool": 2, "text_config.num_key_value_heads": 4},
    "granite4_vision": _TILES
    | {
        "downsample_rate": "1/2",
        "deepstack_layer_map": [[-2, 0]],
        "spatial_target_layers": [1, 1, 2, 2],
        "text_config.residual_multiplier": 0.3,
        "text_config.logits_scaling": 4.0,
        "text_config.embedding_multiplier": 3.0,
    },
    "granite_docling": {"vision_config.deepstack_visual_indexes": [0, 1], "vision_config.scale_factor": 2},
    "hunyuan_vl": _mrope(2, 2, 2, 2)
    | {"text_config.head_dim": HEAD, "vision_config.max_image_size": SIDE, "vision_config.img_max_token_num": 16},
    "hyperclovax_vision_v2": {"text_config.residual_multiplier": 0.3},
    "idefics3": {"scale_factor": 2},
    "smolvlm": {"scale_factor": 2},
    "inkling2": {"text_config.n_layers_per_attn_res_block": 2},
    "inkling_mm_model": {"vision_config.n_layers": 4},
    "instructblipvideo": {"video_token_index": 0},
    "kimi_k25": {"text_config.head_dim": 8},
    "paddleocr_vl": _mrope(),
    "pix2struct": {"vision_config.patch_embed_hidden_size": 588},
    "got_ocr2": {"vision_config.image_size": 2 * SIDE},
    "pp_chart2table": {"vision_config.image_size": 2 * SIDE},
    "janus": {
        "vq_config.base_channels": 32,
        "vq_config.channel_multiplier": [1, 1],
        "vq_config.latent_channels": 32,
        "vq_config.embed_dim": 8,
        "vq_config.num_embeddings": 16,
        "vq_config.num_patches": 4,
    },
    "kosmos-2": {"latent_query_num": 4},
    "kosmos-2.5": {
        "latent_query_num": 4,
        "vision_config.patch_embed_hidden_size": 588,
        "vision_config.max_num_patches": 16,
    },
    "lfm2_vl": {
        "text_config.layer_types": ["conv", "full_attention", "conv"],
        "text_config.block_auto_adjust_ff_dim": False,
    },
    "llama4": {
        "vision_config.intermediate_size": 256,
        "text_config.moe_layers": [1, 2],
        "text_config.no_rope_layers": [1, 0, 1],
        "text_config.attention_chunk_size": 16,
    },
    "llava_next": _TILES,
    "llava_next_video": _TILES,
    "llava_onevision": _TILES,
    "minicpm_ocr": _MINICPM,
    "minicpmv4_6": _MINICPM,
    "minicpmv4_7": _MINICPM,
    "mllama": {
        "image_token_index": VOCABULARY,
        "vision_config.num_global_layers": 1,
        "vision_config.vision_output_dim": WIDTH * 3,
        "vision_config.intermediate_layers_indices": [0, 1],
        "text_config.cross_attention_layers": [1],
        "text_config.num_hidden_layers": 3,
    },
    "molmo2": {
        "adapter_config.vision_feature_layer": [1, 0],
        "text_config.additional_vocab_size": 8,
        "vision_config.num_key_value_heads": 4,
        "vision_config.image_size": [SIDE, SIDE],
    },
    "muse_glimmer": {"out_hidden_size": 4 * WIDTH},
    "muse_spark": {
        "out_hidden_size": 4 * WIDTH,
        "audio_config.depths": [1, 1, 1, 1],
        "audio_config.hidden_sizes": [16, 16, 16, 16],
    },
    "nemotron_h_omni": {
        "text_config.mamba_num_heads": 4,
        "text_config.mamba_head_dim": 16,
        "text_config.ssm_state_size": 16,
        "text_config.n_groups": 2,
    },
    "qwen2_vl": _mrope(),
    "qwen2_5_vl": _mrope() | {"vision_config.fullatt_block_indexes": [1], "vision_config.window_size": 28},
    "qwen2_5_omni_thinker": _mrope()
    | {"vision_config.fullatt_block_indexes": [1], "vision_config.window_size": 28}
    | _VISION_ENDS,
    "qwen3_omni_moe_thinker": _mrope(mrope_interleaved=True)
    | {"vision_config.deepstack_visual_indexes": [0, 1]}
    | _VISION_ENDS,
    "qwen3_vl": _mrope(mrope_interleaved=True) | {"vision_config.deepstack_visual_indexes": [0, 1]},
    "qwen3_vl_moe": _mrope(mrope_interleaved=True) | {"vision_config.deepstack_visual_indexes": [0, 1]},
    "qwen4_exp": {
        "text_config.hc_lowrank": 8,
        "text_config.indexer_n_heads": 2,
        "text_config.indexer_kv_heads": 1,
        "text_config.indexer_head_dim": 16,
        "text_config.indexer_budget": 8,
        "text_config.indexer_compress_ratio": 2,
        "text_config.output_gate_type": "sigmoid",
        "text_config.ngram_vocab_size_base": 50,
        "text_config.ple_embed_dim": 32,
        "text_config.split_ngram_parts": 2,
        "text_config.make_ngram_vocab_size_divisible_by": 8,
    },
    "shieldgemma2": {"mm_tokens_per_image": 4},
    "step3p7": {"vision_config.image_size": 2 * SIDE, "text_config.sliding_window": 16},
    "t5gemma2": {"encoder.mm_tokens_per_image": 4},
    "udop": {},
    "unlimited_ocr": {"vision_config.sam_config": _SAM, "text_config.num_experts_per_tok": 2},
    "vipllava": {"vision_feature_layers": [-2, -1]},
    "vision-encoder-decoder": {},
}

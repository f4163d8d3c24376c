"""The default config of a model type, made tiny: few layers, small widths, a small vocabulary, the same structure.

Sizes go by the names of their keys, which transformers' configs share. Lists with one entry a layer are thinned so
that one layer of each kind remains (sliding and full attention, linear attention, convolution, dense, experts, ...).
"""

from __future__ import annotations

from typing import Any

WIDTH, FFN, EXPERT_FFN, N_LAYERS, N_HEADS, HEAD = 64, 96, 24, 3, 4, 16
VOCABULARY = 576
PATCH, SIDE = 14, 56  # a picture is 4 x 4 patches

_WIDTHS = [
    "hidden_size",
    "d_model",
    "n_embd",
    "word_embed_proj_dim",
    "out_hidden_size",
    "projection_dim",
    "projector_hidden_size",
    "text_hidden_size",
    "output_dim",
    "vision_output_dim",
    "merged_hidden_size",
    "projection_hidden_size",
    "projection_hidden_dim",
    "embed_dim",
    "encoder_hidden_size",
    "image_text_hidden_size",
    "projector_input_dim",
    "projector_output_dim",
    "vision_hidden_size",
    "decoder_hidden_size",
    "image_token_embed_dim",
    "patch_embed_hidden_size",
    "adapter_in_dim",
    "adapter_out_dim",
    "conv_output_size",
    "adapter_input_size",
    "hidden_size_per_layer_input",
    "projection_intermediate_size",
]
_FFNS = [
    "intermediate_size",
    "ffn_dim",
    "d_ff",
    "mlp_dim",
    "decoder_ffn_dim",
    "encoder_ffn_dim",
    "dense_intermediate_size",
    "intermediate_size_mlp",
    "alignment_intermediate_size",
    "n_inner",
]
_EXPERT_FFNS = [
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "shared_experts_intermediate_size",
    "shared_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "share_expert_dim",
    "expert_ffn_dim",
]
_HEADS = [
    "num_attention_heads",
    "num_heads",
    "decoder_attention_heads",
    "encoder_attention_heads",
    "attention_heads",
    "resampler_n_heads",
    "swa_num_attention_heads",
    "num_sliding_attention_heads",
    "n_head",
]
_HEAD_DIMS = [
    "head_dim",
    "d_kv",
    "swa_head_dim",
    "resampler_head_dim",
    "global_head_dim",
    "v_head_dim",
    "index_head_dim",
    "linear_head_dim",
]
_DEPTHS = [
    "num_hidden_layers",
    "depth",
    "encoder_layers",
    "decoder_layers",
    "num_layers",
    "n_layers",
    "layers",
    "num_decoder_layers",
    "resampler_depth",
]
_EXPERTS = ["num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"]
_TOP = ["num_experts_per_tok", "moe_k", "moe_topk", "top_k_experts"]

_SIZES: dict[str, Any] = {
    **dict.fromkeys(_WIDTHS, WIDTH),
    **dict.fromkeys(_FFNS, FFN),
    **dict.fromkeys(_EXPERT_FFNS, EXPERT_FFN),
    **dict.fromkeys(_HEADS, N_HEADS),
    **dict.fromkeys(_HEAD_DIMS, HEAD),
    **dict.fromkeys(_DEPTHS, N_LAYERS),
    **dict.fromkeys(_EXPERTS, 4),
    **dict.fromkeys(_TOP, 2),
    "moe_hidden_size": 40,  # experts of a narrower stream (Muse Spark)
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "max_position_embeddings": 512,
    "sliding_window": 16,
    "sliding_window_size": 16,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "qk_head_dim": 16,
    "query_pre_attn_scalar": HEAD,
    "index_n_heads": 2,
    "index_topk": 8,
    "linear_num_heads": N_HEADS,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "first_k_dense_replace": 1,
    "patch_size": PATCH,
    "image_size": SIDE,
    "num_query_tokens": 5,
    "num_image_tokens": 16,
    "num_position_embeddings": 16,
    "image_seq_length": 16,
}
_UNUSED = ("id2label", "label2id", "transformers_version", "architectures")


def shrink(config: dict[str, Any]) -> dict[str, Any]:
    """A copy of a config's dictionary with every size small; nested configs likewise, each thinned by itself."""
    kept = _kept_layers(config)
    small = {key: _shrink_value(key, value, config, kept) for key, value in config.items() if key not in _UNUSED}
    if (depth_key := _depth_key(config)) and kept:
        small[depth_key] = len(kept)
    _fit_rope(small)
    return small


def _shrink_value(key: str, value: Any, config: dict[str, Any], kept: list[int]) -> Any:
    depth = config.get(_depth_key(config) or "", 0)
    if key == "per_layer_config" and value:
        old = {int(layer): settings for layer, settings in value.items()}
        return {str(new): shrink(old[layer]) for new, layer in enumerate(kept) if layer in old}
    if isinstance(value, dict):
        return shrink(value) if "model_type" in value or key.endswith("_config") else value
    if isinstance(value, list) and len(value) == depth and depth > 1 and key != "hidden_sizes":
        layers = [value[layer] for layer in kept]
        return list(range(len(kept))) if value == list(range(depth)) else layers
    if isinstance(value, list) and (key.endswith(("_layers", "_idxs", "_layer_ids"))):
        return [new for new, old in enumerate(kept) if old in value] or value[:1]
    if value is None or isinstance(value, bool) or value in (0, []):
        return value
    if key.endswith("num_key_value_heads") and isinstance(value, int):
        return N_HEADS if value == config.get(key.replace("key_value", "attention")) else 2
    if key == "n_group":
        return 2 if value > 1 else 1
    if key == "topk_group":
        return 1
    if key in _SIZES and isinstance(value, list):
        return [_SIZES[key] for _ in value]
    return _SIZES[key] if key in _SIZES and isinstance(value, int) else value


def _depth_key(config: dict[str, Any]) -> str | None:
    return next((key for key in _DEPTHS if isinstance(config.get(key), int)), None)


def _kept_layers(config: dict[str, Any]) -> list[int]:
    """One layer of each kind, and more until there are `N_LAYERS`, in their order."""
    depth = config.get(_depth_key(config) or "", 0)
    lists = [value for value in config.values() if isinstance(value, list) and len(value) == depth]
    lists = [value for value in lists if value != list(range(depth))]
    index_lists = [value for key, value in config.items() if key in ("cross_attention_layers", "moe_layers") and value]
    kinds: dict[str, int] = {}
    for layer in range(depth):
        kind = repr([value[layer] for value in lists] + [layer in value for value in index_lists])
        kinds.setdefault(kind, layer)
    kept = sorted(kinds.values())
    spare = [layer for layer in range(depth) if layer not in kept]
    return sorted(kept + spare[: max(0, N_LAYERS - len(kept))])


def _fit_rope(config: dict[str, Any]) -> None:
    """`mrope_section` has to sum to half of the rotated width."""
    width = config.get("head_dim") or HEAD
    for holder in _rope_dictionaries(config):
        if sections := holder.get("mrope_section"):
            share = holder.get("partial_rotary_factor", config.get("partial_rotary_factor") or 1.0)
            total = int(width * share) // 2
            first = max(1, total // len(sections))
            parts = [first] * (len(sections) - 1)
            holder["mrope_section"] = (
                [total - sum(parts), *parts] if total > sum(parts) else [1] * total + [0] * (3 - total)
            )


def _rope_dictionaries(config: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for key in ("rope_parameters", "rope_scaling"):
        if isinstance(holder := config.get(key), dict):
            config[key] = holder = {name: dict(v) if isinstance(v, dict) else v for name, v in holder.items()}
            found += [holder, *(value for value in holder.values() if isinstance(value, dict))]
    return found

"""The text decoder of mPLUG-Owl2, and the whole model: a Llama 2 whose layers know words from image tokens.

The two norms of a layer and its key and value matrices are there twice (`multiway.0` for words, `multiway.1` for image
tokens, the end token with them); queries, the attention's output and the FFN are shared (arXiv 2311.04257, section
3.2). Padding counts as words, as in the published code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaMLP,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
    eager_attention_forward,
)

from mmn.models.mplug_owl2.abstractor import AbstractorAttention, VisualAbstractor
from mmn.models.mplug_owl2.config import MplugOwl2Config
from mmn.models.mplug_owl2.vision import VisionEmbeddings, VisionModel

IsImage = Bool[Tensor, "batch n"] | None  # None where there are words only


class MultiwayNetwork(nn.Module):
    """One module for words and one for image tokens; each position goes through its own."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.multiway = nn.ModuleList([make(), make()])

    def forward(self, states: Float[Tensor, "batch n d"], is_image: IsImage) -> Float[Tensor, "batch n width"]:
        words = self.multiway[0](states)
        if is_image is None:
            return words
        return torch.where(is_image[..., None], self.multiway[1](states), words)


class Attention(LlamaAttention):  # type: ignore[misc]
    """Llama's attention with keys and values by modality."""

    def __init__(self, config: MplugOwl2Config, layer: int) -> None:
        super().__init__(config, layer)
        d, width, bias = config.hidden_size, config.num_key_value_heads * self.head_dim, config.attention_bias
        self.k_proj = MultiwayNetwork(lambda: nn.Linear(d, width, bias=bias))
        self.v_proj = MultiwayNetwork(lambda: nn.Linear(d, width, bias=bias))

    def forward(
        self,
        states: Float[Tensor, "batch n d"],
        is_image: IsImage,
        mask: Tensor | None,
        rotation: tuple[Tensor, Tensor],
        cache: Cache | None,
    ) -> Float[Tensor, "batch n d"]:
        projected = self.q_proj(states), self.k_proj(states, is_image), self.v_proj(states, is_image)
        query, key, value = (each.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for each in projected)
        query, key = apply_rotary_pos_emb(query, key, *rotation)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        mixed, _ = attend(self, query, key, value, mask, dropout=0.0, scaling=self.scaling)
        return self.o_proj(mixed.flatten(2))


class DecoderLayer(nn.Module):
    """Attention and FFN, each behind the norm of its position's modality."""

    def __init__(self, config: MplugOwl2Config, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = LlamaMLP(config)
        self.input_layernorm = MultiwayNetwork(lambda: LlamaRMSNorm(config.hidden_size, config.rms_norm_eps))
        self.post_attention_layernorm = MultiwayNetwork(lambda: LlamaRMSNorm(config.hidden_size, config.rms_norm_eps))

    def forward(
        self, states: Float[Tensor, "batch n d"], is_image: IsImage, attention_mask: Tensor | None, *more: Any
    ) -> Float[Tensor, "batch n d"]:
        states = states + self.self_attn(self.input_layernorm(states, is_image), is_image, attention_mask, *more)
        return states + self.mlp(self.post_attention_layernorm(states, is_image))


class DecoderModel(nn.Module):
    """The text decoder; the encoder and the abstractor are under it, too, as they are in the checkpoint."""

    def __init__(self, config: MplugOwl2Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([DecoderLayer(config, layer) for layer in range(config.num_hidden_layers)])
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config=config)
        self.vision_model = VisionModel(config.vision)
        self.visual_abstractor = VisualAbstractor(config.abstractor, config.hidden_size)

    def forward(
        self,
        inputs_embeds: Float[Tensor, "batch n d"],
        is_image: IsImage = None,
        attention_mask: Tensor | None = None,
        position_ids: Int[Tensor, "_ n"] | None = None,
        past_key_values: Cache | None = None,
    ) -> tuple[Float[Tensor, "batch n d"], ...]:
        """The residual stream before each layer, and normed behind the last, as transformers' own decoders hand it out.

        Positions count on from those in the cache where none are given.
        """
        if position_ids is None:
            n_before = past_key_values.get_seq_length() if past_key_values is not None else 0
            position_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)[None] + n_before
        mask = create_causal_mask(self.config, inputs_embeds, attention_mask, past_key_values=past_key_values)
        rotation = self.rotary_emb(inputs_embeds, position_ids=position_ids)
        states = [inputs_embeds]
        for layer in self.layers:
            states.append(layer(states[-1], is_image, mask, rotation, past_key_values))
        return (*states[:-1], self.norm(states[-1]))


class MplugOwl2ForConditionalGeneration(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """Image tokens in the places of their placeholders, then the decoder, told which positions they are."""

    config_class = MplugOwl2Config
    base_model_prefix = "model"
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ("DecoderLayer", "VisionLayer", "AbstractorLayer")
    _skip_keys_device_placement = ("past_key_values",)
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 - transformers wants a dict
    _keys_to_ignore_on_load_missing = (r"\.[qk]_pos_embed$",)
    _keys_to_ignore_on_load_unexpected = (r"rotary_emb\.inv_freq$",)

    def __init__(self, config: MplugOwl2Config) -> None:
        super().__init__(config)
        self.model = DecoderModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens

    def set_input_embeddings(self, embeddings: nn.Embedding) -> None:
        self.model.embed_tokens = embeddings

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def get_image_features(self, pixel_values: Float[Tensor, "batch 3 height width"]) -> BaseModelOutputWithPooling:
        """`pooler_output` are the image tokens (batch, tokens, text width), as in transformers' own families."""
        states = self.model.vision_model(pixel_values)
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=self.model.visual_abstractor(states))

    def forward(
        self,
        input_ids: Int[Tensor, "batch n"],
        pixel_values: Float[Tensor, "batch 3 height width"] | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Int[Tensor, "_ n"] | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        output_hidden_states: bool | None = None,
        **_more: Any,
    ) -> CausalLMOutputWithPast:
        """`pixel_values` go with the pass that holds the placeholders; without them every position is a word."""
        if past_key_values is None and use_cache:
            past_key_values = DynamicCache(config=self.config)
        embeddings, is_image = self._embed(input_ids, pixel_values)
        states = self.model(
            inputs_embeds=embeddings,
            is_image=is_image,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
        )
        logits = self.lm_head(states[-1][:, -logits_to_keep:])  # -0: all
        kept = states if output_hidden_states else None
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values, hidden_states=kept)

    def _embed(
        self, input_ids: Int[Tensor, "batch n"], pixel_values: Float[Tensor, "batch 3 height width"] | None
    ) -> tuple[Float[Tensor, "batch n d"], IsImage]:
        if pixel_values is None:
            return self.model.embed_tokens(input_ids), None
        is_image = input_ids == self.config.image_token_index
        embeddings = self.model.embed_tokens(input_ids.masked_fill(is_image, 0))
        tokens = self.get_image_features(pixel_values).pooler_output.to(embeddings.dtype)
        assert is_image.sum() == tokens[..., 0].numel(), (is_image.sum(), tokens.shape)
        return embeddings.masked_scatter(is_image[..., None], tokens), is_image

    def _init_weights(self, module: nn.Module) -> None:
        """What a file does not hold: random weights of a new model, and the abstractor's positions of any."""
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, AbstractorAttention):
            queries, states = module.positions()
            init.copy_(module.q_pos_embed, queries)
            init.copy_(module.k_pos_embed, states)
        elif isinstance(module, VisionEmbeddings):
            init.normal_(module.cls_token, std=std)
            init.normal_(module.position_embedding, std=std)
        elif isinstance(module, VisualAbstractor):
            init.normal_(module.query_embeds, std=std)
            init.normal_(module.vit_eos, std=std)

"""The image encoder of mPLUG-Owl2: a CLIP ViT with a class token, whose queries, keys and values are one matrix."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from mmn.models.mplug_owl2.config import VisionSettings


class VisionModel(nn.Module):
    """Pixels to the states of the class token and of each patch, row by row."""

    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(settings)
        layers = nn.ModuleList([VisionLayer(settings) for _ in range(settings.num_hidden_layers)])
        self.encoder = nn.ModuleDict({"layers": layers})
        self.post_layernorm = nn.LayerNorm(settings.hidden_size, eps=settings.layer_norm_eps)

    def forward(self, pixel_values: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch states d"]:
        states = self.embeddings(pixel_values)
        for layer in self.encoder["layers"].children():
            states = layer(states)
        return self.post_layernorm(states)


class VisionEmbeddings(nn.Module):
    """Patches, the class token before them, and a learned position for each."""

    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        d, patch = settings.hidden_size, settings.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, d))
        self.patch_embed = nn.Conv2d(3, d, kernel_size=patch, stride=patch, bias=False)
        self.position_embedding = nn.Parameter(torch.zeros(1, settings.n_states, d))
        self.pre_layernorm = nn.LayerNorm(d, eps=settings.layer_norm_eps)

    def forward(self, pixel_values: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch states d"]:
        patches = self.patch_embed(pixel_values).flatten(2).transpose(1, 2)
        states = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        return self.pre_layernorm(states + self.position_embedding)


class VisionLayer(nn.Module):
    """A transformer block with its norms before its parts."""

    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        self.self_attn = VisionAttention(settings)
        self.input_layernorm = nn.LayerNorm(settings.hidden_size, eps=settings.layer_norm_eps)
        self.mlp = VisionMLP(settings)
        self.post_attention_layernorm = nn.LayerNorm(settings.hidden_size, eps=settings.layer_norm_eps)

    def forward(self, states: Float[Tensor, "batch states d"]) -> Float[Tensor, "batch states d"]:
        states = states + self.self_attn(self.input_layernorm(states))
        return states + self.mlp(self.post_attention_layernorm(states))


class VisionAttention(nn.Module):
    """Of each head, the rows of `query_key_value` are those of its query, then its key, then its value."""

    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        d = settings.hidden_size
        self.n_heads = settings.num_attention_heads
        self.query_key_value = nn.Linear(d, 3 * d)
        self.dense = nn.Linear(d, d)

    def forward(self, states: Float[Tensor, "batch states d"]) -> Float[Tensor, "batch states d"]:
        by_head = self.query_key_value(states).unflatten(-1, (self.n_heads, 3, -1))
        query, key, value = by_head.permute(3, 0, 2, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.dense(mixed.transpose(1, 2).flatten(2))


class VisionMLP(nn.Module):
    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        self.activation_fn = ACT2FN[settings.hidden_act]
        self.fc1 = nn.Linear(settings.hidden_size, settings.intermediate_size)
        self.fc2 = nn.Linear(settings.intermediate_size, settings.hidden_size)

    def forward(self, states: Float[Tensor, "batch states d"]) -> Float[Tensor, "batch states d"]:
        return self.fc2(self.activation_fn(self.fc1(states)))

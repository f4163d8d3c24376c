"""The visual abstractor of mPLUG-Owl2: learned queries read the encoder's states, layer by layer.

In each layer the queries attend to themselves and to all states, and both know where they are by fixed waves
(`waves`). Each query sees the whole picture, so an image token of this family has no place in it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mmn.models.float64 import wide
from mmn.models.mplug_owl2.config import AbstractorSettings

LONGEST_WAVE = 10_000.0


class VisualAbstractor(nn.Module):
    """States of the encoder to image tokens: the queries as the text decoder reads them, then the end token."""

    def __init__(self, settings: AbstractorSettings, d_text: int) -> None:
        super().__init__()
        layers = nn.ModuleList([AbstractorLayer(settings) for _ in range(settings.num_hidden_layers)])
        self.encoder = nn.ModuleDict({"layers": layers})
        self.visual_fc = nn.Linear(settings.hidden_size, d_text)
        self.query_embeds = nn.Parameter(torch.zeros(1, settings.num_learnable_queries, settings.hidden_size))
        self.vit_eos = nn.Parameter(torch.zeros(1, 1, d_text))

    def forward(self, states: Float[Tensor, "batch states d"]) -> Float[Tensor, "batch tokens d_text"]:
        queries = self.query_embeds.expand(len(states), -1, -1)
        for layer in self.encoder["layers"].children():
            queries = layer(queries, states)
        end = self.vit_eos.expand(len(states), -1, -1)
        return torch.cat([self.visual_fc(queries), end], dim=1)


class AbstractorLayer(nn.Module):
    """Holds the one part of a layer, under the name that it has in the checkpoint."""

    def __init__(self, settings: AbstractorSettings) -> None:
        super().__init__()
        self.crossattention = CrossAttention(settings)

    def forward(
        self, queries: Float[Tensor, "batch queries d"], states: Float[Tensor, "batch states d"]
    ) -> Float[Tensor, "batch queries d"]:
        return self.crossattention(queries, states)


class CrossAttention(nn.Module):
    """What is added to is the normed query: unlike in most transformers, the query itself goes no further."""

    def __init__(self, settings: AbstractorSettings) -> None:
        super().__init__()
        self.attention = AbstractorAttention(settings)
        self.output = AbstractorOutput(settings)
        self.norm1 = nn.LayerNorm(settings.encoder_hidden_size)
        self.normk = nn.LayerNorm(settings.encoder_hidden_size)

    def forward(
        self, queries: Float[Tensor, "batch queries d"], states: Float[Tensor, "batch states d"]
    ) -> Float[Tensor, "batch queries d"]:
        normed = self.norm1(queries)
        read = torch.cat([normed, self.normk(states)], dim=1)
        return self.output(self.attention(normed, read), normed)


class AbstractorAttention(nn.Module):
    """Attention whose queries and keys, and not its values, are told their positions.

    The positions are buffers that the checkpoint may hold; where it does not, they are computed.
    """

    q_pos_embed: Tensor
    k_pos_embed: Tensor

    def __init__(self, settings: AbstractorSettings) -> None:
        super().__init__()
        d, encoder = settings.hidden_size, settings.encoder_hidden_size
        self.settings = settings
        self.query = nn.Linear(d, d)
        self.key = nn.Linear(encoder, d)
        self.value = nn.Linear(encoder, d)
        queries, states = self.positions()
        self.register_buffer("q_pos_embed", queries)
        self.register_buffer("k_pos_embed", states)

    def positions(self) -> tuple[Float[Tensor, "queries d"], Float[Tensor, "states d"]]:
        """The waves of the queries by their number; of the class token none, of patches by their column and row."""
        d, side = self.settings.hidden_size, self.settings.grid_size
        row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        patches = torch.cat([waves(d // 2, column.flatten()), waves(d // 2, row.flatten())], dim=1)
        queries = waves(d, torch.arange(self.settings.num_learnable_queries))
        return queries, torch.cat([torch.zeros(1, d), patches])

    def forward(
        self, queries: Float[Tensor, "batch queries d"], read: Float[Tensor, "batch read d"]
    ) -> Float[Tensor, "batch queries d"]:
        places = torch.cat([self.q_pos_embed, self.k_pos_embed]).to(read.dtype)
        query = self.query(queries + self.q_pos_embed.to(queries.dtype))
        key, value = self.key(read + places), self.value(read)
        mixed = F.scaled_dot_product_attention(self._by_head(query), self._by_head(key), self._by_head(value))
        return mixed.transpose(1, 2).flatten(2)

    def _by_head(self, values: Float[Tensor, "batch n d"]) -> Float[Tensor, "batch heads n d_head"]:
        return values.unflatten(-1, (self.settings.num_attention_heads, -1)).transpose(1, 2)


class AbstractorOutput(nn.Module):
    def __init__(self, settings: AbstractorSettings) -> None:
        super().__init__()
        d = settings.encoder_hidden_size
        self.out_proj = nn.Linear(d, d)
        self.norm2 = nn.LayerNorm(d)
        self.mlp = AbstractorMLP(settings)

    def forward(
        self, mixed: Float[Tensor, "batch queries d"], normed: Float[Tensor, "batch queries d"]
    ) -> Float[Tensor, "batch queries d"]:
        states = normed + self.out_proj(mixed)
        return states + self.mlp(self.norm2(states))


class AbstractorMLP(nn.Module):
    """A gated FFN with a norm before its output matrix."""

    def __init__(self, settings: AbstractorSettings) -> None:
        super().__init__()
        d, m = settings.hidden_size, settings.intermediate_size
        self.w1 = nn.Linear(d, m)
        self.w2 = nn.Linear(m, d)
        self.w3 = nn.Linear(d, m)
        self.ffn_ln = nn.LayerNorm(m, eps=settings.layer_norm_eps)

    def forward(self, states: Float[Tensor, "batch queries d"]) -> Float[Tensor, "batch queries d"]:
        return self.w2(self.ffn_ln(F.silu(self.w1(states)) * self.w3(states)))


def waves(d: int, places: Tensor) -> Float[Tensor, "n d"]:
    """Sines, then cosines, of a place at d/2 frequencies between 1 and 1/10000: Vaswani et al. 2017, section 3.5."""
    wide_places = wide(places)
    steps = torch.arange(d // 2, dtype=torch.float64, device=wide_places.device)
    angles = wide_places[:, None] * LONGEST_WAVE ** -(steps / (d // 2))
    return torch.cat([angles.sin(), angles.cos()], dim=1).float().to(places.device)

"""Where a concept's logit comes from, term by term, and how much of it the terms miss (METHODS: Exactness; OURS).

    logit = embedding + Σ_l attention_l + Σ_l Σ_i contribution-folded_(l,i) + biases + residual

Each term is captured on its own, none by subtraction, so that the residual can show a wrong site: it is rounding
when the adapter is right, and large when a matrix, a norm or a position is not what it was taken for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmn.models.adapters import Anatomy
from mmn.models.float64 import wide
from mmn.reading.hooks import ATTENTION, EMBEDDING, FFN, INNER, ONCE, Captured
from mmn.scores.equations import Rows, norm_bias


@dataclass(frozen=True)
class Budget:
    """Terms of n concepts' logits, in logits, float64. `bias` is the FFN's by layer, `last_bias` the final norm's and
    the unembedding's own; `others` are those of `Anatomy.others`, by name.
    """

    embedding: Float[Tensor, " n"]
    attention: Float[Tensor, "n L"]
    ffn: Float[Tensor, "n L"]
    bias: Float[Tensor, "n L"]
    last_bias: Float[Tensor, " n"]
    others: Mapping[str, Float[Tensor, "n L"]] = field(default_factory=dict)

    def total(self) -> Float[Tensor, " n"]:
        by_layer = self.attention + self.ffn + self.bias + sum(self.others.values())
        return self.embedding + by_layer.sum(1) + self.last_bias


@dataclass(frozen=True)
class Reading:
    """Where to read n concepts in a captured batch: batch row, forward pass, token."""

    rows: Int[Tensor, " n"]
    steps: Int[Tensor, " n"]
    token_ids: Int[Tensor, " n"]


def ffn_outputs(
    anatomy: Anatomy, captured: Captured, reading: Reading
) -> Float[Tensor, "n L d"] | Float[Tensor, "n L 3 d"] | None:
    """What each layer's W_out wrote, where a norm follows it (`equations.written_rows`); None where none does."""
    if not anatomy.post_ffns:
        return None
    sites = (FFN, *INNER) if anatomy.has_inner_norms else (FFN,)
    read = [captured.read_layers(site, reading.rows, reading.steps) for site in sites]
    return read[0] if len(read) == 1 else torch.stack(read, dim=2)


def logit_budget(
    anatomy: Anatomy,
    captured: Captured,
    reading: Reading,
    folded: Float[Tensor, "n d"],
    written: Rows,
    folded_scores: Float[Tensor, "n L m"],
) -> Budget:
    """Splits the concepts' logits.

    Args:
        anatomy: of the model.
        captured: of the passes that predict them.
        reading: where.
        folded: `folded_rows`.
        written: `written_rows`.
        folded_scores: the units' contributions by them.
    """
    folded64 = wide(folded)

    def share(values: Tensor) -> Tensor:
        return torch.einsum("nd,n...d->n...", folded64, wide(values))

    def by_layer(site: str, gains: Sequence[float]) -> Tensor:
        shares = [
            share(captured.read(site, layer, reading.rows, reading.steps))
            if (site, layer) in captured.steps
            else folded64.new_zeros(len(folded))  # a layer without attention
            for layer in range(anatomy.n_layers)
        ]
        return torch.stack(shares, dim=1) * folded64.new_tensor(gains)

    gains = anatomy.gains
    biases = [anatomy.ffn_bias(layer) for layer in range(anatomy.n_layers)]
    rows = written[:, None].expand(-1, anatomy.n_layers, -1) if written.ndim == 2 else written
    rows = rows[:, :, 1] if rows.ndim == 4 else rows  # routed experts have no biases
    bias = [
        folded64.new_zeros(len(folded)) if b is None else wide(rows[:, layer]) @ wide(b)
        for layer, b in enumerate(biases)
    ]
    return Budget(
        embedding=gains.embedding * share(captured.read(EMBEDDING, ONCE, reading.rows, reading.steps)),
        attention=by_layer(ATTENTION, gains.attention),
        ffn=wide(folded_scores).sum(dim=2),
        bias=torch.stack(bias, dim=1),
        last_bias=wide(norm_bias(anatomy, anatomy.w_u(reading.token_ids)) + anatomy.logit_bias(reading.token_ids)),
        others={term: by_layer(term, gains.others) for term in anatomy.others},
    )

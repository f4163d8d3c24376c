"""How important are units for a set of tokens of one picture? MINER's five measures (arXiv 2410.04819; CODE: its
`save_ISM_with_token_mask_in_one_layer`), each scaled within its layer.

    A, of queries and keys, is the attention of the layer's heads, their mean, among the set's own tokens

    prob      share of the tokens at which act > 0
    mean      mean act over them
    maximum   largest act over them
    attn_k    sum over tokens of softmax(A over its columns)ᵀ · act
    attn_q    sum over tokens of softmax(A over its rows) · act

A is softmaxed a second time: the released code does that to weights that are a softmax already, so both are near a sum
over tokens. Each becomes (x − least) / (largest − least) over the units of the layer, in a mixture of experts all of
them, with 0 for act where a unit's expert sleeps (OURS); where all are one value the code
divides 0 by 0, and ours says 0. A sample's values are then averaged over samples (CODE: `ISM_aggregate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from mmn.reading.hooks import AtTokens

MEASURES: Final = ("prob", "mean", "maximum", "attn_k", "attn_q")
WITHOUT_ATTENTION: Final = MEASURES[:3]


def importance(
    acts: Sequence[AtTokens], n_tokens: int, width: int, attention: Float[Tensor, "tokens tokens"] | None
) -> Float[Tensor, "k m"]:
    """The measures in their order, scaled to 0 … 1 within the layer; the last two only with attention.

    Args:
        acts: act(gate) at the set's tokens, by `position`; a unit of an expert that sleeps at one is 0 there.
        n_tokens: of the set, at least one.
        width: m, units of the layer.
        attention: weights of query (row) and key (column) among the tokens.
    """
    weights = [] if attention is None else [attention.softmax(0).sum(1), attention.softmax(1).sum(0)]
    # Σ_j (softmaxᵀ · act)_j = Σ_i act_i Σ_j softmax_ij, and of the rows likewise
    found: Float[Tensor, "k m"] | None = None
    for one in acts:
        if found is None:
            found = torch.zeros(len(WITHOUT_ATTENTION) + len(weights), width, device=one.values.device)
        act = one.values.float()
        if len(act):
            sleeps = act.new_zeros(1, act.shape[1])[: len(act) < n_tokens]
            of_act = [(act > 0).float().sum(0) / n_tokens, act.sum(0) / n_tokens, torch.cat([act, sleeps]).amax(0)]
            found[:, one.units] = torch.stack([*of_act, *(weight[one.position] @ act for weight in weights)])
    if found is None:
        return torch.zeros(len(WITHOUT_ATTENTION) + len(weights), width)
    return torch.stack([_scaled(row) for row in found])


def _scaled(values: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    least, largest = values.aminmax()
    return torch.zeros_like(values) if largest == least else (values - least) / (largest - least)

"""How important are units for a set of tokens of one picture? MINER's five measures (arXiv 2410.04819; CODE: its
`save_ISM_with_token_mask_in_one_layer`), each scaled within its layer.

    A, of queries and keys, is the attention of the layer's heads, their mean, among the set's own tokens

    prob      share of the tokens at which act > 0
    mean      mean act over them
    maximum   largest act over them
    attn_k    sum over tokens of softmax(A over its columns)ᵀ · act
    attn_q    sum over tokens of softmax(A over its rows) · act

A is softmaxed a second time: the released code does that to weights that are a softmax already, so both are near a sum
over tokens. Each becomes (x − least) / (largest − least) over the units of the layer; where all are one value the code
divides 0 by 0, and ours says 0. A sample's values are then averaged over samples (CODE: `ISM_aggregate`).
"""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

MEASURES: Final = ("prob", "mean", "maximum", "attn_k", "attn_q")
WITHOUT_ATTENTION: Final = MEASURES[:3]


def importance(
    act: Float[Tensor, "tokens m"], attention: Float[Tensor, "tokens tokens"] | None
) -> Float[Tensor, "k m"]:
    """The measures in their order, scaled to 0 … 1 within the layer; the last two only with attention.

    Args:
        act: act(gate) at the set's tokens, at least one.
        attention: weights of query (row) and key (column) among them.
    """
    act = act.float()
    rows = [(act > 0).float().mean(0), act.mean(0), act.amax(0)]
    if attention is not None:
        of_key = attention.softmax(0).sum(1)  # Σ_j (softmaxᵀ · act)_j = Σ_i act_i Σ_j softmax_ij
        of_query = attention.softmax(1).sum(0)
        rows += [of_key @ act, of_query @ act]
    return torch.stack([_scaled(row) for row in rows])


def _scaled(values: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    least, largest = values.aminmax()
    return torch.zeros_like(values) if largest == least else (values - least) / (largest - least)

"""What would the model say at once, after a layer? The residual stream behind the final norm and the unembedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmn.models.model import Model
from mmn.units.decoding import BLOCK_BYTES, Vocabulary
from mmn.units.top_tokens import TopTokens, joined, top_tokens


@dataclass(frozen=True)
class Projected:
    """Of n vectors: their `top` tokens, whose scores are probabilities, and the probabilities `asked` for.

    Probabilities are over the tokenizer's tokens: rows that pad the unembedding have no share.
    """

    top: TopTokens
    asked: Float[Tensor, "n asked"]


@torch.inference_mode()
def project_to_words(
    model: Model,
    vocabulary: Vocabulary,
    normed: Float[Tensor, "n d"],
    k: int,
    token_ids: Sequence[int] = (),
    block_bytes: int = BLOCK_BYTES,
) -> Projected:
    """softmax(W_U · norm(residual) + bias): the logit lens, and after the last layer the model's own prediction.

    Args:
        model: as loaded.
        vocabulary: of its unembedding (`Vocabulary.of`).
        normed: `normed_stream` at some positions.
        k: the most probable tokens of each.
        token_ids: of which the probability is wanted as well.
        block_bytes: of scores held at a time.

    Returns:
        Invariant: what is asked for is at most `top`'s first, and equals it, up to rounding, where it is that token.
    """
    bias = model.anatomy.unembedding.bias
    columns = torch.tensor(list(token_ids), dtype=torch.long, device=normed.device)
    tops, asked = [], []
    for _, products in vocabulary.project(normed, vocabulary.memory(len(normed), block_bytes)):
        if bias is not None:
            products += bias[: len(vocabulary.rows)].float()
        block = model.anatomy.logits(products)
        total = block.logsumexp(dim=1, keepdim=True)
        top = top_tokens(block, k)
        tops.append(TopTokens(top.token_ids, (top.scores - total).exp()))
        asked.append((block[:, columns] - total).exp())
    return Projected(joined(tops), torch.cat(asked))

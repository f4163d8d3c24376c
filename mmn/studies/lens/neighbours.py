"""Which tokens' embeddings are nearest to a vector of the decoder's input, and what would a random vector's be?"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmn.errors import UsageError
from mmn.models.model import Model
from mmn.studies.lens.stream import Stream
from mmn.units.decoding import BLOCK_BYTES, Vocabulary
from mmn.units.top_tokens import TopTokens, joined, top_tokens

PARALLEL: Final = 1 - 1e-2  # cosine; half precision leaves about 1e-3


def nearest(vocabulary: Vocabulary, vectors: Float[Tensor, "n d"], k: int, block_bytes: int = BLOCK_BYTES) -> TopTokens:
    """The k tokens of highest cosine with each vector. A row of zeros, as a padding token's can be, is left out."""
    norms = torch.cat([part.float().norm(dim=1) for part in vocabulary.rows.split(1 << 14)])
    scale = torch.where(norms > 0, 1 / norms, 0)
    tops, memory = [], vocabulary.memory(len(vectors), block_bytes)
    for _, block in vocabulary.project(torch.nn.functional.normalize(vectors, dim=1), memory):
        block *= scale
        block[:, norms == 0] = -torch.inf
        tops.append(top_tokens(block, k))
    return joined(tops)


def random_like(vectors: Float[Tensor, "n d"], seed: int) -> Float[Tensor, "n d"]:
    """As many random vectors, normal in each dimension with the mean and the deviation that `vectors` have in it."""
    draw = np.random.Generator(np.random.Philox(seed)).standard_normal(vectors.shape, dtype=np.float32)
    deviation, mean = torch.std_mean(vectors, dim=0, correction=0)
    return torch.from_numpy(draw).to(vectors.device) * deviation + mean


def require_bare_embeddings(model: Model, stream: Stream, inputs: dict[str, Tensor]) -> None:
    """Where the prompt has text, the decoder's input is the text's embedding, up to a factor; else it is not the image
    tokens' either, as in OPT, which adds its positions before the first layer.

    Raises:
        UsageError: it is not, so that nothing here can be compared with the vocabulary.
    """
    embedding = model.module.get_input_embeddings().weight
    expected = embedding[inputs["input_ids"][0].clamp(max=len(embedding) - 1)]
    text = ~stream.is_image
    found, wanted = stream.embeddings[text].float(), expected[text].float()
    is_token = wanted.norm(dim=1) > 0
    cosine = torch.nn.functional.cosine_similarity(found[is_token], wanted[is_token], dim=1)
    if (cosine < PARALLEL).any():
        raise UsageError(
            f"the decoder of {model.facts.name} adds something to its input embeddings (their cosine with the "
            f"text's own is {cosine.min().item():z.2f}), so its image tokens cannot be compared with the vocabulary; "
            "use the logit lens"
        )

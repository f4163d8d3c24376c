"""What do directions say? Words of what the model writes along them (CoX-LMM, arXiv 2406.08074, section 3.3).

    residual behind the final norm   the highest of W_U u
    residual behind a layer          the highest of W_U norm(u), a logit lens; CODE leaves the norm out
    units                            the same of what they write together, Σ_i u_i W_out[:, i] / ‖W_out[:, i]‖ (OURS)

Of the 50 highest tokens the first 15 that are English words of three letters or more and no function words. CODE takes
nltk's words and gist's stop words, and numbers; ours are SCOWL's and the house's, each word once, without numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmn.metrics.lexical import FUNCTION_WORDS
from mmn.models.model import Model
from mmn.reading.words import is_word
from mmn.studies.dictionaries.vectors import FINAL_NORM, UNITS, column_lengths
from mmn.units.decoding import Vocabulary, texts_of
from mmn.units.top_tokens import top_tokens

N_TOKENS: Final = 50
N_WORDS: Final = 15


@dataclass(frozen=True)
class Said:
    """The words of a direction, best first, and the logit of each."""

    words: tuple[str, ...]
    logits: tuple[float, ...]


@torch.inference_mode()
def words_of(model: Model, directions: Float[Tensor, "n width"], site: str, n_tokens: int = N_TOKENS) -> list[Said]:
    """The words of each direction of a site; fewer than 15, or none, where the first tokens hold no more."""
    read = _as_read(model, directions.to(model.device), site)
    vocabulary = Vocabulary.of_model(model)
    found: list[Said] = []
    for _, block in vocabulary.project(read, vocabulary.memory(len(read))):
        top = top_tokens(_with_bias(model, block, site), min(n_tokens, block.shape[1] - 1))
        texts, _ = texts_of(model.tokenizer).read(top.token_ids.cpu().numpy())
        tokens = np.array(texts.to_pylist(), dtype=object).reshape(top.token_ids.shape).tolist()
        found += [_filtered(row, scores) for row, scores in zip(tokens, top.scores.tolist(), strict=True)]
    return found


def random_words(model: Model, site: str, width: int, as_many: Sequence[int], seed: int) -> list[tuple[str, ...]]:
    """The control: words of normal random directions of a site, the k-th with `as_many[k]` of them.

    CODE draws each number from 0 to 1, so that all its directions have a large part in common; ours have not. As there,
    words are sought among ten times as many tokens as are wanted.
    """
    draw = np.random.Generator(np.random.Philox(seed)).standard_normal((len(as_many), width), dtype=np.float32)
    said = words_of(model, torch.from_numpy(draw), site, 10 * N_WORDS)
    return [one.words[:n] for one, n in zip(said, as_many, strict=True)]


def _as_read(model: Model, directions: Float[Tensor, "n width"], site: str) -> Float[Tensor, "n d"]:
    """Directions as the unembedding reads them."""
    if site == FINAL_NORM:
        return directions
    if site == UNITS:
        directions = _written(model, directions)
    return model.anatomy.final_norm(directions.to(model.dtype)).float()


def _written(model: Model, directions: Float[Tensor, "n width"]) -> Float[Tensor, "n d"]:
    """What units write together, layer by layer."""
    lengths = column_lengths(model)
    by_layer = directions.unflatten(1, lengths.shape)
    written = torch.zeros(len(directions), model.anatomy.w_out(0).shape[0], device=directions.device)
    for layer, length in enumerate(lengths):
        scaled = by_layer[:, layer] / length.where(length > 0, 1.0)
        written += scaled @ model.anatomy.w_out(layer).float().T
    return written


def _with_bias(model: Model, products: Float[Tensor, "n V"], site: str) -> Float[Tensor, "n V"]:
    """The unembedding's bias belongs to a state, and to no unit."""
    bias = model.anatomy.unembedding.bias
    return products if bias is None or site == UNITS else products + bias[: products.shape[1]].float()


def _filtered(tokens: Sequence[str], scores: Sequence[float]) -> Said:
    kept: dict[str, float] = {}
    for token, score in zip(tokens, scores, strict=True):
        word = token.strip().lower()
        if is_word(word) and word not in FUNCTION_WORDS:
            kept.setdefault(word, score)
    return Said(tuple(kept)[:N_WORDS], tuple(kept.values())[:N_WORDS])


def overlap(words: Sequence[Sequence[str]]) -> float:
    """Mean over pairs k ≠ j of |words_k ∩ words_j| / |words_k| (CODE); a concept without words has none in common."""
    shares = [
        len(set(one) & set(other)) / len(one) if one else 0.0
        for k, one in enumerate(words)
        for j, other in enumerate(words)
        if k != j
    ]
    return float(np.mean(shares)) if shares else float("nan")

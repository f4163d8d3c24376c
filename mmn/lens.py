"""What do a picture's tokens say, read as words? Two looks at the positions of a prompt that hold the picture.

`nearest_vocabulary`: the vocabulary's embeddings nearest to each projected image token, at the decoder's input (P1,
arXiv 2308.01544, Table 2), against random vectors of the same spread. P1 finds no difference: its image tokens are no
words yet.

`logit_lens`: the residual stream after each layer, sent straight through the final norm and the unembedding
(nostalgebraist 2020; on image tokens Neo et al., arXiv 2410.07149): when, and where, the picture becomes words.

Both read `hidden_states` of a plain forward pass, so no hook is needed. Left out: families whose
picture enters by cross-attention and so has no positions of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from mmn.decoding import BLOCK_BYTES, TopTokens, Vocabulary, texts_of, top_tokens
from mmn.errors import UsageError
from mmn.models import Model

N_NEAREST: Final = 5  # P1, Table 2
IMAGE_TOKEN_NAMES: Final = ("image_token_id", "image_token_index", "image_patch_id")
TOLERANCE: Final = {torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.1}  # a few roundings of the last norm
PARALLEL: Final = 1 - 1e-2  # cosine; half precision leaves about 1e-3
IMAGE, RANDOM = "image", "random"


@dataclass(frozen=True)
class Stream:
    """The residual stream of one prompt with one picture.

    `after[l]` is it after layer l, before the final norm but for the last layer, which the libraries hand out normed.
    """

    is_image: Bool[Tensor, " positions"]
    embeddings: Float[Tensor, "positions d"]
    after: tuple[Float[Tensor, "positions d"], ...]


@dataclass(frozen=True)
class KolmogorovSmirnov:
    """`statistic`: the largest distance D between two empirical distribution functions. `p_value`: asymptotic."""

    statistic: float
    p_value: float
    n_first: int
    n_second: int


@dataclass(frozen=True)
class VocabularyNeighbours:
    """`table`: vectors (`image`, `random`), token_position (from 0), rank (1–5), token_id, token, cosine.

    `test` compares the image tokens' scores with the random vectors'; a vector's score is its mean cosine with its
    five nearest embeddings, one number each, since the test wants independent ones.
    """

    table: pa.Table
    test: KolmogorovSmirnov


@torch.inference_mode()
def nearest_vocabulary(
    model: Model, image: Image.Image, exact_prompt: str | None = None, seed: int = 0, block_bytes: int = BLOCK_BYTES
) -> VocabularyNeighbours:
    """The five vocabulary embeddings nearest to each projected image token, and to as many random vectors.

    P1, Table 2; the random control's kind is our reading: each dimension is normal, with the mean and the deviation
    that the picture's tokens have in it. A direction that all of them share is then no finding.

    Raises:
        UsageError: no image tokens in the prompt, or a decoder that adds positions to its input embeddings.
    """
    inputs = model.encode([image], exact_prompt or model.exact_prompt(model.default_prompt))
    stream = read_stream(model, inputs)
    texts = texts_of(model.tokenizer)
    embedding = model.module.get_input_embeddings().weight
    _require_bare_embeddings(model, stream, embedding[inputs["input_ids"][0].clamp(max=len(embedding) - 1)])
    vectors = stream.embeddings[stream.is_image].float()
    both = {IMAGE: vectors, RANDOM: random_like(vectors, seed)}
    vocabulary = Vocabulary.of(texts, embedding)
    tops = {name: nearest(vocabulary, of_kind, N_NEAREST, block_bytes) for name, of_kind in both.items()}
    tables = [_top_table(model, top, "cosine", vectors=name) for name, top in tops.items()]
    first, second = (top.scores.mean(dim=1).cpu().numpy() for top in tops.values())
    return VocabularyNeighbours(pa.concat_tables(tables), kolmogorov_smirnov(first, second))


@torch.inference_mode()
def logit_lens(
    model: Model,
    image: Image.Image,
    layers: Sequence[int] | None = None,
    exact_prompt: str | None = None,
    k: int = N_NEAREST,
    progress: Callable[[int, int], None] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> pa.Table:
    """The k most probable tokens of W_U · norm(residual after layer l) at each image position.

    Args:
        model: as loaded.
        image: the picture, as it would be captioned.
        layers: counted from 0; None for all. After the last one it is the model's own prediction.
        exact_prompt: with its image placeholder; None for the model's default. What precedes the picture is seen by it.
        k: tokens for each position and layer.
        progress: called with layers done and layers in all.
        block_bytes: of scores held at a time; no more than one layer's are made at once.

    Returns:
        layer, token_position (among the image tokens, from 0), rank (from 1), token_id, token, logit, prob (its softmax
        over the tokenizer's tokens: rows that pad the unembedding have no share).

    Raises:
        UsageError: no image tokens in the prompt, or a layer that the model has not.
    """
    n_layers = model.anatomy.n_layers
    layers = range(n_layers) if layers is None else layers
    if not layers:
        raise UsageError("no layer to look at; name one, or leave `layers` open for all")
    if wrong := [layer for layer in layers if not 0 <= layer < n_layers]:
        raise UsageError(f"{model.facts.name} has no layer {wrong[0]}: its layers are 0–{n_layers - 1}")
    inputs = model.encode([image], exact_prompt or model.exact_prompt(model.default_prompt))
    stream = read_stream(model, inputs)
    vocabulary = Vocabulary.of(texts_of(model.tokenizer), model.anatomy.unembedding.weight)
    tables = []
    for n_done, layer in enumerate(layers, start=1):
        normed = normed_stream(model, stream, layer)[stream.is_image]
        tables.append(_lens_table(model, vocabulary, layer, normed, k, block_bytes))
        if progress is not None:
            progress(n_done, len(layers))
    return pa.concat_tables(tables)


def image_positions(model: Model, inputs: dict[str, Tensor]) -> Bool[Tensor, "batch positions"]:
    """Which positions of the prompt are the picture's: those of the placeholder that its tokens are put in place of.

    Raises:
        UsageError: the family has no placeholder, or this prompt has none.
    """
    config = model.module.config
    ids = [getattr(config, name) for name in IMAGE_TOKEN_NAMES if getattr(config, name, None) is not None]
    if not ids:
        raise UsageError(
            f"models of family {model.facts.family!r} have no placeholder token for the picture, so no lens"
        )
    mask = inputs["input_ids"] == ids[0]
    if not mask.any():
        raise UsageError(f"the prompt holds no image token (id {ids[0]}); let `Model.exact_prompt` write it")
    return mask


@torch.inference_mode()
def read_stream(model: Model, inputs: dict[str, Tensor]) -> Stream:
    """The residual stream of the first row of `inputs`, after every layer; checked against the model's own logits.

    Raises:
        UsageError: as `image_positions`.
        AssertionError: the last state is not what the unembedding is applied to, so the library hands out another site.
    """
    is_image = image_positions(model, inputs)[0]
    with model.lock:
        output = model.module(**inputs, output_hidden_states=True, use_cache=False, logits_to_keep=1)
    states = _decoder_states(output)
    n_layers = model.anatomy.n_layers
    assert len(states) == n_layers + 1, f"{len(states)} hidden states of {n_layers} layers"
    stream = Stream(is_image, states[0][0], tuple(state[0] for state in states[1:]))
    own, ours = output.logits[0, -1].float(), model.anatomy.unembedding(stream.after[-1][-1]).float()
    error = ((own - ours).abs().max() / own.abs().max()).item()
    assert error <= TOLERANCE[model.dtype], f"the last hidden state misses the logits by {error:.2g} of the largest"
    return stream


def normed_stream(model: Model, stream: Stream, layer: int) -> Float[Tensor, "positions d"]:
    """The residual stream after `layer` behind the final norm, once: after the last layer it has been there already."""
    after = stream.after[layer]
    return after if layer == model.anatomy.n_layers - 1 else model.anatomy.final_norm(after)


def nearest(vocabulary: Vocabulary, vectors: Float[Tensor, "n d"], k: int, block_bytes: int = BLOCK_BYTES) -> TopTokens:
    """The k tokens of highest cosine with each vector. A row of zeros, as a padding token's can be, is left out."""
    norms = torch.cat([part.float().norm(dim=1) for part in vocabulary.rows.split(1 << 14)])
    scale = torch.where(norms > 0, 1 / norms, 0)
    tops = []
    for _, block in vocabulary.project(torch.nn.functional.normalize(vectors, dim=1), block_bytes):
        scores = block[:, : len(norms)]
        scores *= scale
        scores[:, norms == 0] = -torch.inf
        tops.append(top_tokens(block, k))
    return _join(tops)


def random_like(vectors: Float[Tensor, "n d"], seed: int) -> Float[Tensor, "n d"]:
    """As many random vectors, normal in each dimension with the mean and the deviation that `vectors` have in it."""
    draw = np.random.Generator(np.random.Philox(seed)).standard_normal(vectors.shape, dtype=np.float32)
    deviation, mean = torch.std_mean(vectors, dim=0, correction=0)
    return torch.from_numpy(draw).to(vectors.device) * deviation + mean


def kolmogorov_smirnov(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " m"]) -> KolmogorovSmirnov:
    """The two-sample test: do two samples come from one distribution?

    D = sup |F_n − G_m|, and p = Q(√(nm / (n + m)) · D) with Kolmogorov's limit Q (Smirnov 1948): right for large
    samples, and for small ones too large, so that it errs on the side of no difference.
    """
    n, m = len(first), len(second)
    assert min(n, m) > 0, f"samples of {n} and {m}"
    every = np.sort(np.concatenate([first, second]))
    shares = [np.searchsorted(np.sort(sample), every, side="right") / len(sample) for sample in (first, second)]
    statistic = float(np.abs(shares[0] - shares[1]).max())
    return KolmogorovSmirnov(statistic, kolmogorov_tail(math.sqrt(n * m / (n + m)) * statistic), n, m)


def kolmogorov_tail(x: float) -> float:
    """Q(x) = 2 Σ_{j≥1} (−1)^{j−1} exp(−2 j² x²), the probability of a larger x; 1 at 0.

    Below 1 that converges slowly, and Jacobi's form of the same function is used:
    1 − √(2π)/x · Σ_{j≥1} exp(−(2j − 1)² π² / (8 x²)). Twenty terms are exact to rounding in either.
    """
    if x <= 0:
        return 1.0
    if x < 1:
        terms = [math.exp(-(((2 * j - 1) * math.pi) ** 2) / (8 * x * x)) for j in range(1, 21)]
        return 1 - math.sqrt(2 * math.pi) / x * sum(terms)
    return 2 * sum((-1) ** (j - 1) * math.exp(-2 * (j * x) ** 2) for j in range(1, 21))


def _decoder_states(output: Any) -> tuple[Tensor, ...]:
    """BLIP's outputs nest those of the language model; the others hand them out directly."""
    nested = getattr(output, "language_model_outputs", None)
    return (output if nested is None else nested).hidden_states


def _require_bare_embeddings(model: Model, stream: Stream, expected: Float[Tensor, "positions d"]) -> None:
    """Where the prompt has text, the decoder's input is the text's embedding, up to a factor; else it is not the image
    tokens' either, as in OPT, which adds its positions before the first layer.
    """
    text = ~stream.is_image
    found, wanted = stream.embeddings[text].float(), expected[text].float()
    is_token = wanted.norm(dim=1) > 0
    cosine = torch.nn.functional.cosine_similarity(found[is_token], wanted[is_token], dim=1)
    if (cosine < PARALLEL).any():
        raise UsageError(
            f"the decoder of {model.facts.name} adds something to its input embeddings (their cosine with the "
            f"text's own is {cosine.min().item():.2f}), so its image tokens cannot be compared with the vocabulary; "
            "use the logit lens"
        )


def _lens_table(
    model: Model, vocabulary: Vocabulary, layer: int, normed: Float[Tensor, "n d"], k: int, block_bytes: int
) -> pa.Table:
    bias = model.anatomy.unembedding.bias
    n_vocabulary = len(vocabulary.rows)
    tops, totals = [], []
    for _, block in vocabulary.project(normed, block_bytes):
        if bias is not None:
            block[:, :n_vocabulary] += bias[:n_vocabulary].float()
        tops.append(top_tokens(block, k))
        totals.append(block.logsumexp(dim=1))
    top = _join(tops)
    prob = (top.scores - torch.cat(totals)[:, None]).exp()
    return _top_table(model, top, "logit", layer=layer).append_column("prob", pa.array(prob.cpu().numpy().ravel()))


def _join(tops: Sequence[TopTokens]) -> TopTokens:
    return TopTokens(torch.cat([top.token_ids for top in tops]), torch.cat([top.scores for top in tops]))


def _top_table(model: Model, top: TopTokens, score: str, **fixed: str | int) -> pa.Table:
    """One row for each vector and rank; `fixed` columns first."""
    n, k = top.token_ids.shape
    token_ids = top.token_ids.cpu().numpy()
    columns: dict[str, Any] = {name: pa.repeat(pa.scalar(value), n * k) for name, value in fixed.items()}
    columns["token_position"] = pa.array(np.repeat(np.arange(n, dtype=np.int32), k))
    columns["rank"] = pa.array(np.tile(np.arange(1, k + 1, dtype=np.int32), n))
    columns["token_id"] = pa.array(token_ids.ravel().astype(np.int32))
    columns["token"] = texts_of(model.tokenizer).read(token_ids)[0]
    columns[score] = pa.array(top.scores.cpu().numpy().ravel())
    return pa.table(columns)

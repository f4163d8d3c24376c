"""Which words does a unit write? Its output vector seen through the unembedding (P1, P2; METHODS: Decoding a unit).

    raw      softmax(W_U · W_out[:, i])             ->  the 10 most probable tokens of unit i (P1, P2)
    centred  (W_U − mean row) · W_out[:, i]         ->  the same 10: one number less for all tokens (OURS)
    cosine   W_U[t] · W_out[:, i] / (‖W_U[t]‖ ‖W_out[:, i]‖)  ->  the 10 tokens of the nearest direction (OURS)

Softmax keeps the order, so tokens are ranked by the raw product W_U · W_out[:, i], which is what `logits` holds: the
unit's effect on each token's logit at activation 1, without the final norm. A token ties with another by its lower id.
Raw products favour tokens with long rows, which are often the same rare ones for many units; cosines do not. Centring
changes no order, so that all it needs is `mean_logit`, the mean row · W_out[:, i], which is taken from `logits`.

The product of all units would be V × L·m numbers; here it is made for a block of units, cut down to ten, and dropped.
`project` and `top_tokens` do that for any vectors of the residual stream: the lens on image tokens uses them, too.

Left out: the unembedding's own bias (it is no part of any unit) and the interpretation of a unit by its inputs.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmn.core import Neuron
from mmn.errors import ModelError, UsageError
from mmn.models.model import Model
from mmn.models.token_rows import TokenRows, known_ids
from mmn.reading.words import MIN_WORDS, N_TOKENS, is_word
from mmn.units.top_tokens import TopTokens, joined, top_tokens

BLOCK_BYTES: Final = 1 << 28  # of float32 scores held at a time: V × units
ROWS_BYTES: Final = 1 << 26  # of W_U upcast to float32 at a time; a matrix that is float32 already is not copied
_BYTE_NAME: Final = re.compile("<0x[0-9A-F]{2}>")  # SentencePiece's name of a byte
REPLACEMENT: Final = "\ufffd"  # what a tokenizer decodes half a character to
NEURON_SCHEMA: Final = pa.schema(
    [
        pa.field("model_fingerprint", pa.string(), nullable=False),
        pa.field("layer", pa.int16(), nullable=False),
        pa.field("unit", pa.int32(), nullable=False),
        pa.field("tokens", pa.list_(pa.string(), N_TOKENS), nullable=False),
        pa.field("logits", pa.list_(pa.float32(), N_TOKENS), nullable=False),
        pa.field("is_interpretable", pa.bool_(), nullable=False),
        pa.field("mean_logit", pa.float32()),
        pa.field("cosine_tokens", pa.list_(pa.string(), N_TOKENS)),
        pa.field("cosines", pa.list_(pa.float32(), N_TOKENS)),
        pa.field("is_cosine_interpretable", pa.bool_()),
    ]
)
ProgressCallback = Callable[[int, int], None]  # units done, units in all


@torch.inference_mode()
def decode_units(
    model: Model,
    units: Sequence[Neuron] | None = None,
    progress: ProgressCallback | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> pa.Table:
    """The ten tokens of each unit, as the table `neuron` (INTERFACE): row i is `units[i]`.

    Args:
        model: its weights as they are now, an intervention on them included.
        units: in any order; None for all L·m, by layer and unit.
        progress: called with units done and units in all, after each layer.
        block_bytes: of scores held at a time.

    Returns:
        `tokens` and `logits` by falling logit; `logits` are raw products, in logits per activation, and so is
        `mean_logit`, the mean over all tokens. `cosine_tokens` and `cosines` (−1 to 1) by falling cosine.

    Raises:
        UsageError: a unit that the model has not.
        ModelError: weights that are not finite.
    """
    by_layer = _by_layer(model, units)
    texts = texts_of(model.tokenizer)
    vocabulary = Vocabulary.of(texts, model.anatomy.unembedding.weight)
    found: list[_Decoded] = []
    n_done, n_units = 0, sum(map(len, by_layer.values()))
    memory = vocabulary.memory(max(map(len, by_layer.values()), default=0), block_bytes)
    for layer, of_layer in by_layer.items():
        found.append(_decode_layer(model, vocabulary, layer, of_layer, memory))
        n_done += len(of_layer)
        if progress is not None:
            progress(n_done, n_units)
    if not found:
        return NEURON_SCHEMA.empty_table()
    table = _neuron_table(model, texts, by_layer, _joined(found))
    if units is None:
        return table
    row_of = {neuron: row for row, neuron in enumerate(sorted(set(units)))}
    return table.take(pa.array([row_of[neuron] for neuron in units], pa.int64()))


@dataclass(frozen=True)
class Vocabulary:
    """A matrix with one row for each token: the unembedding, or the embedding.

    `rows` is cut after the last token that the tokenizer knows: checkpoints pad their matrices, often to a multiple of
    64, and a row beyond the tokenizer's is no token. `holes` are ids below that which the tokenizer does not know.
    """

    rows: Float[Tensor, "V d"]
    holes: Int[Tensor, " n_holes"]

    @classmethod
    def of(cls, texts: TokenTexts, matrix: Float[Tensor, "padded d"]) -> Vocabulary:
        """The rows of `matrix` that are tokens."""
        known = texts.known_ids[texts.known_ids < len(matrix)]
        n_rows = int(known[-1]) + 1
        holes = np.setdiff1d(np.arange(n_rows), known, assume_unique=True) if len(known) < n_rows else known[:0]
        return cls(matrix[:n_rows], torch.from_numpy(holes).to(matrix.device))

    @classmethod
    def of_model(cls, model: Model) -> Vocabulary:
        """The rows of W_U."""
        return cls.of(texts_of(model.tokenizer), model.anatomy.unembedding.weight)

    def memory(self, n: int, block_bytes: int = BLOCK_BYTES) -> Float[Tensor, "block V"]:
        """For the scores of n vectors, or of as many at a time as fit in `block_bytes`."""
        n_block = max(1, min(n, block_bytes // (4 * len(self.rows))))
        return torch.empty(n_block, len(self.rows), device=self.rows.device)

    def project(
        self, vectors: Float[Tensor, "n d"], memory: Float[Tensor, "block V"]
    ) -> Iterator[tuple[slice, Float[Tensor, "block V"]]]:
        """Blocks of vectors · rowsᵀ in float32, with the vectors that each is of.

        Column t is token t; holes are -inf. The same memory serves every block, so a block is only good until the next.
        """
        n, n_block = vectors.shape[0], memory.shape[0]  # `len` of a tensor takes microseconds
        for first in range(0, n, n_block):
            here = slice(first, min(first + n_block, n))
            block = memory[: here.stop - here.start]
            self._multiply(vectors[here].float(), block)
            if self.holes.numel():
                block[:, self.holes] = -torch.inf
            yield here, block

    def _multiply(self, vectors: Float[Tensor, "block d"], out: Float[Tensor, "block V"]) -> None:
        """A half-precision matrix is upcast in parts: whole it can be larger than the block itself."""
        if self.rows.dtype == torch.float32:
            torch.mm(vectors, self.rows.T, out=out)
            return
        n_rows = max(1, ROWS_BYTES // (4 * self.rows.shape[1]))
        for first in range(0, len(self.rows), n_rows):
            part = self.rows[first : first + n_rows].float()
            out[:, first : first + n_rows] = vectors @ part.T


class TokenTexts:
    """What each token of a tokenizer looks like to a reader, decoded when first asked for."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.known_ids = known_ids(tokenizer)
        n_ids = int(self.known_ids[-1]) + 1
        self._texts = np.full(n_ids, None, dtype=object)
        self._column = pa.nulls(n_ids, pa.string())  # of the texts
        self._are_words = np.zeros(n_ids, dtype=bool)
        self._is_decoded = np.zeros(n_ids, dtype=bool)

    def read(self, token_ids: Int[np.ndarray, "n k"]) -> tuple[pa.Array, Bool[np.ndarray, "n k"]]:
        """The texts, row after row, and whether each is a dictionary word."""
        missing = np.unique(token_ids[~self._is_decoded[token_ids]])
        for token_id in missing.tolist():
            text = self._texts[token_id] = token_text(self._tokenizer, token_id)
            self._are_words[token_id] = is_word(text)
            self._is_decoded[token_id] = True
        if len(missing):
            self._column = pa.array(self._texts, pa.string())
        return self._column.take(pa.array(token_ids.ravel())), self._are_words[token_ids]


_TEXTS: weakref.WeakKeyDictionary[Any, TokenTexts] = weakref.WeakKeyDictionary()


def texts_of(tokenizer: Any) -> TokenTexts:
    """The tokenizer's texts, kept while it lives: a vocabulary takes longer to decode than a small model's units."""
    if tokenizer not in _TEXTS:
        _TEXTS[tokenizer] = TokenTexts(tokenizer)
    return _TEXTS[tokenizer]


def token_text(tokenizer: Any, token_id: int) -> str:
    """A single token as text, without the space around it.

    Where that is nothing, half a character or a control character, it is what the token is made of instead: its bytes
    as `<0xE2><0x80>`, or its name in the vocabulary ("▁").
    """
    text = tokenizer.decode([token_id], skip_special_tokens=False, clean_up_tokenization_spaces=False).strip()
    if text and text.isprintable() and REPLACEMENT not in text:
        return text
    name = tokenizer.convert_ids_to_tokens(token_id)
    byte_of = _byte_characters()
    if _BYTE_NAME.fullmatch(name):
        return name
    if set(name) <= byte_of.keys():
        return _spell(byte_of[character] for character in name)
    return name if name.isprintable() else _spell(name.encode())


def _spell(values: Iterable[int]) -> str:
    return "".join(f"<0x{value:02X}>" for value in values)


def _by_layer(model: Model, units: Sequence[Neuron] | None) -> dict[int, Int[np.ndarray, " n"]]:
    facts = model.facts
    if units is None:
        return {layer: np.arange(width) for layer, width in enumerate(model.anatomy.widths)}
    by_layer: dict[int, list[int]] = {}
    for neuron in sorted(set(units)):
        is_there = 0 <= neuron.layer < facts.n_layers and 0 <= neuron.unit < model.anatomy.widths[neuron.layer]
        if not is_there:
            raise UsageError(
                f"the model {facts.name} has no unit {neuron}: its layers are 0–{facts.n_layers - 1}, "
                f"its units 0–{facts.d_mlp - 1}"
            )
        by_layer.setdefault(neuron.layer, []).append(neuron.unit)
    return {layer: np.array(of_layer) for layer, of_layer in by_layer.items()}


@dataclass(frozen=True)
class _Decoded:
    """What n units write: their best tokens by raw products and by cosines, and the mean over all tokens."""

    raw: TopTokens
    cosine: TopTokens
    mean_logit: Float[Tensor, " n"]


def _joined(parts: Sequence[_Decoded]) -> _Decoded:
    means = torch.cat([part.mean_logit for part in parts])
    return _Decoded(joined([part.raw for part in parts]), joined([part.cosine for part in parts]), means)


def _decode_layer(
    model: Model, vocabulary: Vocabulary, layer: int, units: Int[np.ndarray, " n"], memory: Float[Tensor, "block V"]
) -> _Decoded:
    with model.lock:  # an intervention of another session must not change the weights half way
        if len(units) < model.anatomy.widths[layer]:
            vectors = model.anatomy.columns(layer, torch.from_numpy(units).to(model.device)).T
        else:
            vectors = model.anatomy.w_out(layer).T
        rows = model.token_rows
        blocks = vocabulary.project(vectors, memory)
        return _joined([_decode_block(vectors[here].float(), block, rows) for here, block in blocks])


def _decode_block(vectors: Float[Tensor, "block d"], scores: Float[Tensor, "block V"], rows: TokenRows) -> _Decoded:
    """The best tokens of some units by their raw products, which are then made cosines in place: no second product."""
    raw = top_tokens(scores, N_TOKENS)
    nearest = top_tokens(scores.div_(rows.lengths), N_TOKENS)
    lengths = vectors.norm(dim=1, keepdim=True)
    cosines = nearest.scores / lengths.where(lengths > 0, 1.0)
    return _Decoded(raw, TopTokens(nearest.token_ids, cosines), vectors @ rows.mean)


def _neuron_table(
    model: Model, texts: TokenTexts, by_layer: Mapping[int, Int[np.ndarray, " n"]], found: _Decoded
) -> pa.Table:
    layers = np.repeat(list(by_layer), [len(units) for units in by_layer.values()])
    _require_finite(model, layers, found)
    columns = [
        pa.repeat(pa.scalar(model.facts.fingerprint), len(layers)),
        pa.array(layers, pa.int16()),
        pa.array(np.concatenate(list(by_layer.values())), pa.int32()),
        *_words(texts, found.raw),
        pa.array(found.mean_logit.cpu().numpy()),
        *_words(texts, found.cosine),
    ]
    return pa.table(columns, schema=NEURON_SCHEMA)


def _require_finite(model: Model, layers: Int[np.ndarray, " n"], found: _Decoded) -> None:
    values = torch.cat([found.raw.scores, found.cosine.scores, found.mean_logit[:, None]], dim=1)
    is_finite = torch.isfinite(values).all(dim=1).cpu().numpy()
    if not is_finite.all():
        layer = layers[~is_finite][0]
        raise ModelError(f"{model.facts.name}: layer {layer} writes values that are not finite; are its weights whole?")


def _words(texts: TokenTexts, top: TopTokens) -> list[pa.Array]:
    """The tokens of n units, their values, and whether they are words enough."""
    tokens, are_words = texts.read(top.token_ids.cpu().numpy())
    return [
        pa.FixedSizeListArray.from_arrays(tokens, N_TOKENS),
        pa.FixedSizeListArray.from_arrays(pa.array(top.scores.cpu().numpy().ravel()), N_TOKENS),
        pa.array(are_words.sum(axis=1) >= MIN_WORDS),
    ]


@cache
def _byte_characters() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary (GPT-2's, with "Ġ" for a space) stands for.

    Printable Latin-1 bytes are their own character; the others are numbered from U+0100.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(0x100)) - set(printable))
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}

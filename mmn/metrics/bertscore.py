"""BERTScore: does every token of one text have a token alike in the other? (Zhang et al. 2020, arXiv 1904.09675.)

    cos_ij     = cosine of the candidate's token i and the reference's token j, at one layer of an encoder
    precision  = mean over i of max over j of cos_ij
    recall     = mean over j of max over i of cos_ij
    F1         = 2 · precision · recall / (precision + recall)      what `compare` gives

As the package bert-score 0.3.13 without idf and without baseline rescaling, to rounding: the first and last special
tokens have no weight in the means, but the other text's tokens may match them; a text without tokens scores 0. Layer n
is the output of the n-th layer, 0 the embedding.

Two deviations. The package pads, and a padded place has cosine 0, so that a token whose cosines are all negative
scores 0 or its negative maximum as its batch happens to be: of captions in batches of 64, one in twenty moves by up to
.005 (MiniLM, last layer). Here nothing is padded: it is always its maximum, as the package has it for a pair alone
(`batch_size=1`). And the package asks byte-level tokenizers (RoBERTa) for a space before the first word, which
transformers 5 overlooks; here it is there.

Left out: idf weights, rescaling, models without the two special tokens (GPT-2), and decoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from mmn.errors import ModelError, UsageError
from mmn.metrics.encoders import Checkpoint, Encoded, equally_long

VERSION: Final = "v1"
CANDIDATES_AT_ONCE: Final = 1024


@dataclass(frozen=True)
class TokenVectors:
    """A text as an encoder sees it.

    `vectors` have norm 1; `weights` sum to 1, or are all 0 for a text without tokens.
    """

    vectors: Float[Tensor, "tokens d"]
    weights: Float[Tensor, " tokens"]


@dataclass(frozen=True)
class BertScore:
    """BERTScore F1 at one layer of one encoder; at most 1, and 1 for equal texts."""

    label: str
    layer: int
    module: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    encoded: Encoded[TokenVectors] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoded", Encoded(self._encode))

    @classmethod
    def load(cls, name: str, layer: int | None = None, device: str = "auto") -> BertScore:
        """The metric on an encoder.

        Args:
            name: a folder in Hugging Face format, or a hub id.
            layer: whose output is compared; None for the last.
            device: `auto` is the first GPU, else the CPU.

        Raises:
            ModelError: it cannot be loaded, or is no encoder with two special tokens.
            UsageError: it has no such layer.
        """
        from transformers import AutoTokenizer

        checkpoint = Checkpoint.find(name)
        module = checkpoint.load(device)
        tokenizer = checkpoint.open(AutoTokenizer)
        n_layers = getattr(module.config, "num_hidden_layers", None)
        if n_layers is None or tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
            raise ModelError(f"{name} is no text encoder as BERT is; BERTScore needs one, such as roberta-large")
        layer = n_layers if layer is None else layer
        if not 0 <= layer <= n_layers:
            raise UsageError(f"{name} has the layers 0 (its embedding) to {n_layers}, not {layer}")
        return cls(checkpoint.label, layer, module, tokenizer)

    @property
    def name(self) -> str:
        return f"bertscore:{self.label}:L{self.layer}:{VERSION}"

    def compare(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        return self.match(candidates, references)[:, 2].tolist()

    def match(self, candidates: Sequence[str], references: Sequence[str]) -> Float[Tensor, "n 3"]:
        """Precision, recall and F1 of each candidate with its reference."""
        rows_of: dict[str, list[int]] = {}
        for row, (_, reference) in enumerate(zip(candidates, references, strict=True)):
            rows_of.setdefault(reference, []).append(row)
        theirs = self.encoded.of(references)
        found = torch.zeros(len(candidates), 3)
        for reference, rows in rows_of.items():
            for start in range(0, len(rows), CANDIDATES_AT_ONCE):
                some = rows[start : start + CANDIDATES_AT_ONCE]
                texts = [candidates[row] for row in some]
                ours = self.encoded.of(texts)
                found[some] = match_tokens([ours[text] for text in texts], theirs[reference])
        return found

    @torch.inference_mode()
    def _encode(self, texts: list[str]) -> list[TokenVectors]:
        ids = [self._token_ids(text.strip()) for text in texts]
        found: dict[int, TokenVectors] = {}
        for indices in equally_long(ids):
            input_ids = torch.tensor([ids[index] for index in indices])
            hidden = self.module(input_ids=input_ids.to(self.module.device), output_hidden_states=True).hidden_states
            vectors = torch.nn.functional.normalize(hidden[self.layer].cpu(), dim=-1, eps=0.0)
            is_special = (input_ids == self.tokenizer.cls_token_id) | (input_ids == self.tokenizer.sep_token_id)
            for index, own, special in zip(indices, vectors, is_special, strict=True):
                weights = (~special).float()
                found[index] = TokenVectors(own, weights / weights.sum().clamp(min=1))
        return [found[index] for index in range(len(texts))]

    def _token_ids(self, text: str) -> list[int]:
        """The tokens with the special ones; a byte-level vocabulary's first word has its space, as inside a text."""
        from transformers import GPT2Tokenizer, RobertaTokenizer

        is_byte_level = isinstance(self.tokenizer, GPT2Tokenizer | RobertaTokenizer)
        text = f" {text}" if text and is_byte_level else text
        most = min(self.tokenizer.model_max_length, self.module.config.max_position_embeddings)
        return self.tokenizer(text, truncation=True, max_length=most)["input_ids"]


def match_tokens(candidates: Sequence[TokenVectors], reference: TokenVectors) -> Float[Tensor, "n 3"]:
    """Precision, recall and F1 of each candidate with one reference, all of them in one matrix product."""
    lengths = torch.tensor([len(one.weights) for one in candidates])
    owner = torch.arange(len(candidates)).repeat_interleave(lengths)
    cosines = torch.cat([one.vectors for one in candidates]) @ reference.vectors.T
    weights = torch.cat([one.weights for one in candidates])
    precision = torch.zeros(len(candidates)).index_add(0, owner, weights * cosines.amax(1))
    best = torch.full((len(candidates), cosines.shape[1]), -torch.inf)
    recall = best.scatter_reduce(0, owner[:, None].expand_as(cosines), cosines, "amax") @ reference.weights
    total = precision + recall
    f1 = torch.where(total == 0, 0.0, 2 * precision * recall / total)
    has_tokens = torch.zeros(len(candidates)).index_add(0, owner, weights) > 0
    return torch.stack([precision, recall, f1], 1) * (has_tokens & (reference.weights.sum() > 0))[:, None]

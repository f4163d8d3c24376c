"""How surprised is a model by text that it reads without a picture? Its perplexity, under whatever hooks are on it.

    nats of a text     −Σ log p(token | the tokens before it), natural logarithm, over the tokens that are judged
    perplexity         exp(nats / tokens)

Units that write one noun leave plain English alone; units that any text needs do not. The sentences lie in
`data/plain_text.txt`, ours and in the public domain. Each is read by itself, behind the token that begins a text where
the tokenizer has one; without one its first token is not judged, since nothing predicts it. OURS.

The text decoder is run alone: no picture, no placeholder of one. To a model whose vocabulary is that of its captions
plain English is foreign, and its perplexity says little: captions are then the text to look at (`Text.prefix`: the
prompt that they are written after).

Of an encoder-decoder the decoder is run alone, behind the token that it begins every text with, and the encoder it
attends to says nothing: one state of zeros. Its prompt is its encoder's, and is not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from mmn.errors import UsageError
from mmn.models.float64 import wide
from mmn.models.model import Model

TEXT_PATH: Final = Path(__file__).parent / "data" / "plain_text.txt"
ROWS_AT_ONCE: Final = 64
Around = Callable[[int], AbstractContextManager[None, bool | None]]  # what a pass of so many rows runs in


@dataclass(frozen=True)
class Text:
    """Tokens to judge, and those before them that are read only."""

    prefix: tuple[int, ...]
    token_ids: tuple[int, ...]

    @property
    def n_judged(self) -> int:
        """Tokens that something predicts: all, or without a prefix all but the first."""
        return len(self.token_ids) if self.prefix else len(self.token_ids) - 1


@cache
def plain_sentences() -> tuple[str, ...]:
    """The English sentences that come with the package."""
    return tuple(TEXT_PATH.read_text("utf-8").splitlines())


def plain_texts(model: Model) -> tuple[Text, ...]:
    """The sentences as the model's tokens."""
    start = model.decoder_start_id if model.has_encoder else model.tokenizer.bos_token_id
    prefix = () if start is None else (start,)
    encoded = (model.tokenizer(one, add_special_tokens=False).input_ids for one in plain_sentences())
    return tuple(Text(prefix, tuple(token_ids)) for token_ids in encoded)


def prompt_without_picture(model: Model, exact_prompt: str) -> tuple[int, ...]:
    """The tokens of a run's prompt, those that stand for the picture left out; what an encoder-decoder begins with."""
    if model.has_encoder:
        return (model.decoder_start_id,)
    bos = model.tokenizer.bos_token
    has_bos = bool(bos) and exact_prompt.startswith(bos)
    token_ids = model.tokenizer(exact_prompt, add_special_tokens=not has_bos).input_ids
    return tuple(one for one in token_ids if one != model.image_token_id)


@torch.inference_mode()
def nats(model: Model, texts: Sequence[Text], around: Around) -> float:
    """The nats of some texts together, in float64; a batch of n of them is read inside `around(n)`.

    Divide by the sum of `n_judged` for the mean over tokens, whose exponential is the perplexity.
    """
    total = 0.0
    for some in text_batches(texts):
        with around(len(some)):
            logits = _read(model, some)
        total += sum(_of_one(row, text) for row, text in zip(logits, some, strict=True))
    return total


def text_states(model: Model, texts: Sequence[Text]) -> Float[Tensor, "rows positions d"]:
    """The states of texts behind the final norm, as the unembedding reads them, under whatever hooks are on the model.

    Rows are filled up behind, which nothing before it sees (attention is causal).

    Raises:
        UsageError: an encoder reads this model's prompts.
    """
    require_text_prompts(model, "a text without a picture")
    return _states(run_alone(model, texts))


def require_text_prompts(model: Model, what: str) -> None:
    """Raises `UsageError` for a model whose decoder cannot be given a prompt of text alone; `what` needs one."""
    if model.has_encoder:
        raise UsageError(
            f"{what} is read by the decoder alone, and the prompts of {model.facts.name} ({model.facts.family}) are "
            "read by an encoder: take a model whose decoder reads its prompt"
        )


def text_batches(texts: Sequence[Text], most: int = ROWS_AT_ONCE) -> Iterator[Sequence[Text]]:
    """Texts of about one length together: what is filled up is read for nothing."""
    ordered = sorted(texts, key=lambda one: len(one.prefix) + len(one.token_ids))
    for start in range(0, len(ordered), most):
        yield ordered[start : start + most]


def _read(model: Model, texts: Sequence[Text]) -> Float[Tensor, "rows positions V"]:
    """The logits of every position; rows are filled up behind, which nothing before it sees (attention is causal)."""
    output = run_alone(model, texts)
    if getattr(output, "logits", None) is not None:  # Pix2Struct's decoder has the head in it
        return output.logits
    return model.anatomy.logits(model.anatomy.unembedding(_states(output)))


def run_alone(model: Model, texts: Sequence[Text]) -> Any:
    """What the text decoder hands out for some texts; rows are filled up behind, which nothing before it sees
    (attention is causal).
    """
    rows = [[*one.prefix, *one.token_ids] for one in texts]
    width = max(map(len, rows))
    filled = [row + [model.pad_token_id] * (width - len(row)) for row in rows]
    embeddings = model.module.get_input_embeddings()(torch.tensor(filled, device=model.device))
    return model.anatomy.decoder(inputs_embeds=embeddings, **_mask(model, embeddings), **_silence(model, embeddings))


def _states(output: Any) -> Float[Tensor, "rows positions d"]:
    return output[-1] if isinstance(output, tuple) else output.last_hidden_state  # ours hands out every layer's


def _mask(model: Model, embeddings: Float[Tensor, "rows positions d"]) -> dict[str, Tensor]:
    """What keeps a decoder from looking ahead that does so unless it is told not to (PaliGemma reads prompts so)."""
    config = getattr(model.anatomy.decoder, "config", None)
    if not getattr(config, "use_bidirectional_attention", False):
        return {}
    n = embeddings.shape[1]
    ahead = torch.full((1, 1, n, n), torch.finfo(embeddings.dtype).min, dtype=embeddings.dtype).triu(1)
    return {"attention_mask": ahead.to(embeddings.device).expand(len(embeddings), -1, -1, -1)}


def _silence(model: Model, embeddings: Float[Tensor, "rows positions d"]) -> dict[str, Tensor]:
    """What an encoder that says nothing hands to a decoder: for each row one state of zeros."""
    return {"encoder_hidden_states": torch.zeros_like(embeddings[:, :1])} if model.has_encoder else {}


def _of_one(logits: Float[Tensor, "positions V"], text: Text) -> float:
    """The nats of one row; the state at a position predicts the next token."""
    first = len(text.prefix) or 1
    last = len(text.prefix) + len(text.token_ids)
    judged = torch.tensor([*text.prefix, *text.token_ids][first:last], device=logits.device)
    predicted = wide(logits[first - 1 : last - 1]).log_softmax(-1)
    return -float(predicted.gather(1, judged[:, None].to(predicted.device)).sum())

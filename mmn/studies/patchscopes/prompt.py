"""A state read in a prompt of text alone: written over the prompt's last position, and what comes next is the answer.

    tokens of the prompt ─► layers 0 to l*, then the state in place of what is there ─► layers above ─► next token

Patchscopes (Ghandeharioun et al. 2024, arXiv 2401.06102; released code): h[source, i, l] over [target, i*, l*]. The
identity prompt is theirs; the position is its last token, the `?`. At l* = l, which is usual, nothing but the prompt
differs from the pass that the state is from; a fixed l* reads states of all layers from one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from mmn.counts import counted
from mmn.errors import UsageError
from mmn.models.model import Model
from mmn.reading.hooks import write_residual
from mmn.reading.plain_text import Text, text_states
from mmn.studies.lens.projection import Projected, project_to_words
from mmn.studies.patchscopes.tables import IDENTITY
from mmn.units.decoding import Vocabulary

MOST_TOKENS: Final = 200  # of a prompt: every state is read behind all of them
ROWS_AT_ONCE: Final = 64


@dataclass(frozen=True)
class Prompt:
    """A prompt as the model's tokens; a state goes over the last of them."""

    text: str
    token_ids: tuple[int, ...]

    @property
    def position(self) -> int:
        return len(self.token_ids) - 1


def prompt_name(text: str) -> str:
    """How a prompt is called where several were tried."""
    return "identity" if text == IDENTITY else text


def encoded(model: Model, text: str) -> Prompt:
    """A prompt behind the token that begins a text, where the tokenizer has one.

    Raises:
        UsageError: it has no token, too many, or one that stands for a picture.
    """
    start = model.tokenizer.bos_token_id
    own = tuple(model.tokenizer(text, add_special_tokens=False).input_ids)
    if not own:
        raise UsageError(
            f"--prompt {text!r} has no token; a state is written over the last one, as the ? of {IDENTITY!r}"
        )
    if len(own) > MOST_TOKENS:
        raise UsageError(
            f"--prompt has {counted(len(own), 'token')}: at most {MOST_TOKENS}, since every state is read behind them"
        )
    if model.placeholder_id in own:
        raise UsageError(f"--prompt {text!r} holds the placeholder of a picture; give a text alone")
    return Prompt(text, own if start is None else (start, *own))


@torch.inference_mode()
def read_in(
    model: Model,
    vocabulary: Vocabulary,
    prompt: Prompt,
    layer: int,
    states: Float[Tensor, "n d"],
    k: int,
    token_ids: Sequence[int] = (),
) -> Projected:
    """The next token behind the prompt for each state, written over its last position behind `layer`.

    Returns:
        The k most probable tokens, and the probability of each of `token_ids`.
    """
    last = [_last_state(model, prompt, layer, some, ()) for some in states.split(ROWS_AT_ONCE)]
    return project_to_words(model, vocabulary, torch.cat(last), k, token_ids)


@torch.inference_mode()
def continued(
    model: Model, vocabulary: Vocabulary, prompt: Prompt, layer: int, states: Float[Tensor, "n d"], n_next: int
) -> list[list[int]]:
    """The next `n_next` tokens behind the prompt for each state, greedily; the state stays where it was written."""
    said: list[list[int]] = []
    for some in states.split(ROWS_AT_ONCE):
        rows: list[list[int]] = [[] for _ in some]
        for _ in range(n_next):
            last = _last_state(model, prompt, layer, some, rows)
            best = project_to_words(model, vocabulary, last, 1).top.token_ids[:, 0].tolist()
            rows = [[*row, one] for row, one in zip(rows, best, strict=True)]
        said += rows
    return said


def _last_state(
    model: Model, prompt: Prompt, layer: int, states: Float[Tensor, "rows d"], more: Sequence[Sequence[int]]
) -> Float[Tensor, "rows d"]:
    """The normed state of the last position; `more` are each row's tokens after the prompt."""
    texts = [Text((), (*prompt.token_ids, *row)) for row in more or [()] * len(states)]
    with write_residual(model, layer, prompt.position, states):
        return text_states(model, texts)[:, -1]

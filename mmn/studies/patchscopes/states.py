"""Which states are read: a picture's image tokens, and where its caption's nouns are predicted, after every layer.

One pass over the prompt with the picture and the caption that the run wrote (teacher forcing) gives them all:

    image   after layer l at some of the picture's image tokens, drawn by a hash of the picture
    noun    after layer l at p(c), whose pass predicts the noun's first token

They are the residual stream as a layer hands it to the next one, before the final norm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmn.core import Concept, Example
from mmn.models.image_tokens import image_positions
from mmn.reading.captions import with_captions
from mmn.reading.concepts import GeneratedCaption
from mmn.reading.hooks import capture_residual
from mmn.runs import reopen, shards
from mmn.runs.reopen import ScoredRun
from mmn.runs.teacher_forcing import stored_captions, stored_concepts


@dataclass(frozen=True)
class Said:
    """A picture, and what the run says of it."""

    example: Example
    caption: GeneratedCaption
    concepts: tuple[Concept, ...]

    @cached_property
    def token_ids(self) -> frozenset[int]:
        """The tokens of its nouns."""
        return frozenset(one.token_id for one in self.concepts)


@dataclass(frozen=True)
class States:
    """The states of one picture: `image[l]` at the image tokens of `tokens`, `nouns[l]` at p(c) of each concept.

    `inputs` are the model's of the prompt with the picture, which was opened at `opened_size`.
    """

    said: Said
    inputs: Mapping[str, Tensor]
    opened_size: tuple[int, int]
    tokens: tuple[int, ...]
    image: tuple[Float[Tensor, "tokens d"], ...]
    nouns: tuple[Float[Tensor, "concepts d"], ...]


def all_said(scored: ScoredRun) -> list[Said]:
    """Every picture of the run, in its order."""
    found: list[Said] = []
    for batch in reopen.batches(scored):
        tables = shards.read_shard(scored.path / batch)
        examples = tuple(reopen.examples(tables))
        captions = stored_captions(scored.model, tables, examples)
        concepts: list[list[Concept]] = [[] for _ in examples]
        for one in stored_concepts(tables, examples):
            concepts[one.row].append(one.concept)
        found += [Said(*each) for each in zip(examples, captions, map(tuple, concepts), strict=True)]
    return found


def partner_of(said: Sequence[Said], image_id: str) -> Said | None:
    """The first picture after this one, round the run, whose nouns share no token with its own: the control's.

    None where there is none with a noun.
    """
    at = next(number for number, one in enumerate(said) if one.example.image_id == image_id)
    own = said[at].token_ids
    others = (*said[at + 1 :], *said[:at])
    return next((one for one in others if one.concepts and not one.token_ids & own), None)


@torch.inference_mode()
def read_states(scored: ScoredRun, said: Said, n_tokens: int | None) -> States:
    """The states of a picture of the run, from one pass.

    Args:
        scored: the run, with its model.
        said: the picture, its caption and its nouns.
        n_tokens: image tokens to draw; None for all.

    Raises:
        ImageError: the picture has changed, or does not open any more.
        UsageError: the prompt has no image tokens.
    """
    model = scored.model
    with reopen.open_again(said.example) as image:
        inputs, opened_size = model.encode([image], scored.run.prompt), image.size
    at_image = image_positions(model, inputs)[0].nonzero()[:, 0]
    n_prompt = inputs["input_ids"].shape[1]
    with capture_residual(model) as after:
        model.module(**with_captions(model, inputs, [said.caption.token_ids]), use_cache=False, logits_to_keep=1)
    tokens = drawn_tokens(said.example.image_id, len(at_image), n_tokens)
    rows = at_image[list(tokens)]
    predicts = torch.tensor([n_prompt - 1 + one.position for one in said.concepts], dtype=torch.long).to(rows.device)
    of_image, of_nouns = (tuple(each[0, places] for each in after) for places in (rows, predicts))
    return States(said, inputs, opened_size, tokens, of_image, of_nouns)


def drawn_tokens(image_id: str, n_there: int, n_drawn: int | None) -> tuple[int, ...]:
    """The numbers of the image tokens that are read, rising: all, or a draw that is the picture's own."""
    if n_drawn is None or n_drawn >= n_there:
        return tuple(range(n_there))
    seed = int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big")
    draw = np.random.Generator(np.random.Philox(seed)).choice(n_there, n_drawn, replace=False)
    return tuple(sorted(draw.tolist()))

"""One picture of a run, ready to have image tokens replaced or attention blocked; and what its rows then predict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from mmn.core import Concept, Example
from mmn.models.float64 import wide
from mmn.models.geometry import Grids, image_grid
from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.reading.hooks import read_embeddings
from mmn.reading.nouns import lemma_of
from mmn.reading.rows import Inputs
from mmn.runs import reopen, shards
from mmn.runs.reopen import ScoredRun
from mmn.studies.degradation.interventions import logits_at
from mmn.studies.image_tokens.sets import Tokens, object_tokens
from mmn.units.heat_maps import Mask, mask_of_size

N_MEAN = 256  # pictures of a run, its first, that the mean image token is of
STAGE = "image-tokens"
R = TypeVar("R")


@dataclass(frozen=True)
class Picture:
    """A picture, its caption's nouns, and its image tokens as they enter the decoder.

    Attributes:
        example: the picture.
        inputs: the prompt's model inputs of it alone.
        token_ids: its caption.
        concepts: the caption's nouns.
        embeddings: its image tokens.
        grids: their places; None where they have none.
        objects: by noun the tokens of its object, of nouns with an outline.
    """

    example: Example
    inputs: Inputs
    token_ids: tuple[int, ...]
    concepts: tuple[Concept, ...]
    embeddings: Float[Tensor, "tokens d"]
    grids: Grids | None
    objects: Mapping[str, Tokens]

    @property
    def n_tokens(self) -> int:
        return len(self.embeddings)

    @property
    def n_prompt(self) -> int:
        return int(self.inputs["input_ids"].shape[1])

    def places(self, model: Model) -> Int[Tensor, " tokens"]:
        """The positions of its image tokens in the prompt."""
        return image_positions(model, self.inputs)[0].nonzero()[:, 0]


def open_picture(
    scored: ScoredRun,
    example: Example,
    image: Image.Image,
    token_ids: Sequence[int],
    concepts: Sequence[Concept],
    masks: Mapping[str, Mask],
    has_grid: bool,
) -> Picture:
    """A picture with all that is asked of it; `masks` are by lemma, of the picture's displayed size.

    Raises:
        UsageError: the family has no image tokens in its prompt.
    """
    model = scored.model
    inputs = model.encode([image], scored.run.prompt)
    grids = image_grid(model, inputs, image.size) if has_grid else None
    objects: dict[str, Tokens] = {}
    for one in concepts:
        if grids is not None and (lemma := lemma_of(one.noun)) in masks:
            tokens = object_tokens(mask_of_size(masks[lemma], image.size), grids)
            objects |= {one.noun: tokens} if tokens.any() else {}
    embeddings = image_embeddings(model, inputs)
    return Picture(example, inputs, tuple(token_ids), tuple(concepts), embeddings, grids, objects)


@torch.no_grad()
def image_embeddings(model: Model, inputs: Inputs) -> Float[Tensor, "tokens d"]:
    """The image tokens of all rows as they enter the decoder, row after row."""
    at = image_positions(model, inputs)
    with read_embeddings(model) as seen:
        model.module(**inputs, use_cache=False)
    return seen[0][at]


def mean_image_token(scored: ScoredRun) -> Float[Tensor, " d"]:
    """The mean over the image tokens of the run's first pictures (`N_MEAN`), each token counted once; float32.

    It is the same whatever pictures are measured; those that do not open any more are passed over.
    """
    total: Tensor | None = None
    n_tokens = 0
    for images in _first_pictures(scored):
        found = wide(image_embeddings(scored.model, scored.model.encode(images, scored.run.prompt)))
        total = found.sum(0) if total is None else total + found.sum(0)
        n_tokens += len(found)
    assert total is not None, "no picture opens"
    return (total / n_tokens).float().to(scored.model.device)


def _first_pictures(scored: ScoredRun) -> Iterator[list[Image.Image]]:
    """The first `N_MEAN` pictures of a run that open, batch by batch."""
    left = N_MEAN
    for batch in reopen.batches(scored):
        if left:
            _, images, _ = reopen.open_all(shards.read_shard(scored.path / batch, ("image",)), STAGE)
            if images[:left]:
                yield list(images[:left])
            left -= len(images[:left])


@dataclass(frozen=True)
class Outcome:
    """What a row predicts at p(c): the probability of the noun's token, and whether no other token is likelier."""

    prob: float
    is_top: bool


def outcomes(
    model: Model,
    picture: Picture,
    rows: Sequence[R],
    concept_of: Callable[[R], Concept],
    changed: Callable[[Sequence[R]], AbstractContextManager[None]],
    batch_size: int,
) -> list[Outcome]:
    """What each row of a picture predicts of its noun, some rows at a time, inside what `changed` gives for these."""
    found: list[Outcome] = []
    for some in _some(rows, batch_size):
        concepts = [concept_of(row) for row in some]
        with changed(some):
            logits = logits_at(model, picture.inputs, picture.token_ids, [one.position for one in concepts])
        found += _outcomes(logits, torch.tensor([one.token_id for one in concepts], device=logits.device))
    return found


def _some(rows: Iterable[R], size: int) -> Iterator[list[R]]:
    rest = iter(rows)
    while some := list(islice(rest, size)):
        yield some


def _outcomes(logits: Float[Tensor, "rows V"], tokens: Int[Tensor, " rows"]) -> list[Outcome]:
    logits = wide(logits)
    own = logits.gather(1, tokens[:, None].to(logits.device))[:, 0]
    probs = (own - logits.logsumexp(-1)).exp()
    is_top = own >= logits.amax(-1)
    return [Outcome(*pair) for pair in zip(probs.tolist(), is_top.tolist(), strict=True)]


def at_positions(model: Model, picture: Picture, sets: Sequence[Tokens], n: int) -> Bool[Tensor, "rows n"]:
    """Sets of image tokens as positions of a pass of `n`, a row for each."""
    found = torch.zeros(len(sets), n, dtype=torch.bool, device=model.device)
    if sets:
        found[:, picture.places(model)] = torch.from_numpy(np.stack(sets)).to(model.device)
    return found

"""A picture of the benchmark as the model tells it: its inputs, caption, nouns, and where its objects are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from mmn.core import Concept, Example
from mmn.images import open_image
from mmn.models.geometry import Grids, image_grid
from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.reading.captions import with_captions, write_captions
from mmn.reading.concepts import GeneratedCaption, find_concepts
from mmn.reading.rows import repeated
from mmn.units.heat_maps import Mask, tokens_on
from mmn.units.masks import MaskSource

MOST_TOKENS = 32  # of a caption


@dataclass(frozen=True)
class Told:
    """One picture."""

    example: Example
    inputs: dict[str, Tensor]
    caption: GeneratedCaption
    concepts: tuple[Concept, ...]
    masks: Mapping[str, Mask]
    grids: Grids
    is_image: Bool[Tensor, " prompt"]

    @property
    def n_prompt(self) -> int:
        return self.inputs["input_ids"].shape[1]

    def at(self, concept: Concept) -> int:
        """The position, in prompt and caption, of the pass that predicts a noun."""
        return self.n_prompt - 1 + concept.position

    def saying(self, lemma: str) -> Concept | None:
        """The caption's noun of a lemma, where its object is in the picture, too."""
        return next((one for one in self.concepts if one.lemma == lemma and lemma in self.masks), None)

    def whole(self, model: Model, n_rows: int = 1) -> dict[str, Tensor]:
        """The model's inputs of prompt and caption, in so many rows."""
        return repeated(with_captions(model, self.inputs, [self.caption.token_ids]), n_rows)

    @cached_property
    def on(self) -> dict[str, Bool[np.ndarray, " tokens"]]:
        """By object, which image tokens lie on it."""
        return {lemma: tokens_on(mask, self.grids) for lemma, mask in self.masks.items()}


@torch.inference_mode()
def tell(model: Model, example: Example, masks: MaskSource, exact_prompt: str) -> Told:
    """Captions a picture greedily.

    Raises:
        ImageError: it does not open.
        UsageError: a model without image tokens, or whose tokens have no place in the picture.
    """
    with open_image(example.source) as image:
        inputs = model.encode([image], exact_prompt)
        grids = image_grid(model, inputs, image.size)
    captions, _ = write_captions(model, inputs, MOST_TOKENS)
    concepts = find_concepts(captions[0], example.references)
    is_image = image_positions(model, inputs)[0]
    return Told(example, inputs, captions[0], concepts, masks.find(example), grids, is_image)


def of_objects(told: Told, most: int) -> Sequence[Concept]:
    """The first nouns of a caption whose objects are in the picture."""
    return [one for one in told.concepts if one.lemma in told.masks][:most]

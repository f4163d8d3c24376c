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
    """One picture: the masks of its objects by their names, and which object each noun (by lemma) is called for."""

    example: Example
    inputs: dict[str, Tensor]
    caption: GeneratedCaption
    concepts: tuple[Concept, ...]
    masks: Mapping[str, Mask]
    named: Mapping[str, str]
    grids: Grids
    is_image: Bool[Tensor, " prompt"]

    @property
    def n_prompt(self) -> int:
        return self.inputs["input_ids"].shape[1]

    def at(self, concept: Concept) -> int:
        """The position, in prompt and caption, of the pass that predicts a noun."""
        return self.n_prompt - 1 + concept.position

    def object_of(self, concept: Concept) -> str | None:
        """The object that a noun names, where that is in the picture."""
        name = self.named.get(concept.lemma)
        return name if name in self.masks else None

    def saying(self, name: str) -> Concept | None:
        """The caption's first noun for an object that is in the picture."""
        return next((one for one in self.concepts if self.object_of(one) == name), None)

    def whole(self, model: Model, n_rows: int = 1) -> dict[str, Tensor]:
        """The model's inputs of prompt and caption, in so many rows."""
        return repeated(with_captions(model, self.inputs, [self.caption.token_ids]), n_rows)

    @cached_property
    def on(self) -> dict[str, Bool[np.ndarray, " tokens"]]:
        """By object, which image tokens lie on it."""
        return {name: tokens_on(mask, self.grids) for name, mask in self.masks.items()}


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
    named = _named(masks, concepts, captions[0].text)
    return Told(example, inputs, captions[0], concepts, masks.find(example), named, grids, is_image)


def of_objects(told: Told, most: int) -> Sequence[Concept]:
    """The first nouns of a caption whose objects are in the picture."""
    return [one for one in told.concepts if told.object_of(one) is not None][:most]


def _named(masks: MaskSource, concepts: Sequence[Concept], text: str) -> dict[str, str]:
    """The object that each noun of a caption is called for, by lemma: "dog" of a hot dog for that."""
    senses = masks.synonyms.senses(text, [one.lemma for one in concepts])
    return {lemma: masks.object_of(sense) for lemma, sense in senses.items() if sense is not None}

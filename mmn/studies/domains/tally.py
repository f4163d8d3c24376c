"""How often every unit is active over the pictures of a domain, added up picture by picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.names import TOKEN_SETS
from mmn.reading.hooks import AtTokens, each_layer
from mmn.studies.domains.importance import MEASURES, WITHOUT_ATTENTION, importance
from mmn.studies.domains.words import EVERY
from mmn.studies.tables import TABLES

_SETS: Final = len(TOKEN_SETS)


@dataclass(frozen=True)
class PictureCounts:
    """One picture: at how many tokens of each set every unit has act > 0, and how important it is for them.

    `importance` is by measure, set, layer and unit, each measure scaled within its layer. Where layers differ in width,
    what is behind a narrower one's units is 0.
    """

    n_tokens: tuple[int, ...]
    active: Int[Tensor, "sets L m"]
    importance: Float[Tensor, "k sets L m"]


@torch.inference_mode()
def count_picture(
    model: Model, inputs: dict[str, Tensor], is_image: Bool[Tensor, " positions"], with_attention: bool
) -> PictureCounts:
    """Counts in one pass over a prompt and its caption.

    Args:
        model: of the units.
        inputs: of one picture (`with_captions`).
        is_image: which positions hold the picture; of the others those that are attended are text.
        with_attention: whether attention weights are asked for, for the last two measures.

    Raises:
        UsageError: a model whose attention hands out no weights.
    """
    sets = (inputs["attention_mask"][0].bool() & ~is_image, is_image)  # in the order of TOKEN_SETS
    anatomy, device = model.anatomy, model.device
    shape = (_SETS, anatomy.n_layers, anatomy.d_mlp)
    active = torch.zeros(shape, dtype=torch.int32, device=device)
    scaled = torch.zeros(len(MEASURES if with_attention else WITHOUT_ATTENTION), *shape, device=device)

    def take(layer: int, acts: Sequence[AtTokens], attention: Tensor | None) -> None:
        width = anatomy.widths[layer]
        for number, is_in in enumerate(sets):
            here = [one.among(is_in) for one in acts]
            for one in here:
                active[number, layer, one.units] = (one.values > 0).sum(0).int()
            among = None if attention is None else attention[0][is_in][:, is_in]
            if width:
                scaled[:, number, layer, :width] = importance(here, int(is_in.sum()), width, among)

    with each_layer(model, take, with_attention):
        model.module(**inputs, use_cache=False)
    return PictureCounts(tuple(int(one.sum()) for one in sets), active, scaled)


def image_mask(model: Model, inputs: dict[str, Tensor]) -> Bool[Tensor, " positions"]:
    """Which positions of the prompt and its caption hold the picture (raises as `image_positions`)."""
    return image_positions(model, inputs)[0]


@dataclass
class _Sum:
    """What is known of one domain."""

    active: Int[Tensor, "sets L m"]
    n_tokens: list[int]
    n_images: int = 0

    def add(self, counts: PictureCounts) -> None:
        self.active += counts.active
        self.n_tokens = [old + new for old, new in zip(self.n_tokens, counts.n_tokens, strict=True)]
        self.n_images += 1


@dataclass
class Tally:
    """The sums of one half of the pictures, by domain, and of all of them; `widths` are the units of each layer."""

    domains: Mapping[str, Sequence[str]]
    widths: Sequence[int]
    sums: dict[str, _Sum] = field(default_factory=dict)
    importance: Float[Tensor, "k sets L m"] | None = None

    def add(self, image_id: str, counts: PictureCounts) -> None:
        """Adds a picture to all domains that it belongs to, and to all pictures."""
        for domain in (EVERY, *(name for name, pictures in self.domains.items() if image_id in pictures)):
            if domain not in self.sums:
                self.sums[domain] = _Sum(torch.zeros_like(counts.active), [0] * _SETS)
            self.sums[domain].add(counts)
        self.importance = counts.importance if self.importance is None else self.importance + counts.importance

    def rates(self, key: Mapping[str, Any]) -> pa.Table:
        """The rows of `domain_rate`."""
        return pa.Table.from_pylist(list(self._rates(key)), schema=TABLES["domain_rate"])

    def _rates(self, key: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        for domain, found in self.sums.items():
            for number, token_set in enumerate(TOKEN_SETS):
                sizes = {"n_images": found.n_images, "n_tokens": found.n_tokens[number]}
                of = {**key, "domain": domain, "token_set": token_set, **sizes}
                for layer, width in enumerate(self.widths):
                    yield of | {"layer": layer, "active": found.active[number, layer, :width].tolist()}

    def scores(self, key: Mapping[str, Any]) -> pa.Table:
        """The rows of `modality_score`: means over pictures; empty what takes attention that was not asked for."""
        return pa.Table.from_pylist(list(self._scores(key)), schema=TABLES["modality_score"])

    def _scores(self, key: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        if self.importance is None:
            return
        n_images = self.sums[EVERY].n_images
        means = (self.importance / n_images).cpu()
        for number, token_set in enumerate(TOKEN_SETS):
            for layer, width in enumerate(self.widths):
                values = dict(zip(MEASURES, means[:, number, layer, :width].tolist(), strict=False))
                yield {**key, "token_set": token_set, "layer": layer, "n_images": n_images, **values}

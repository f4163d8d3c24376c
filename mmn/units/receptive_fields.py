"""Where a unit looks: its activation at the image tokens, as a heat map over the picture, against the object's mask.

METHODS, "Where a unit looks (receptive field)"; P1 (arXiv 2308.01544) section 4, P2 (arXiv 2311.07470) section 4:

    a at the image tokens ─► token grid ─► bilinear to the picture ─► heat map ─► mask above the 95th percentile
      ─► IoU with the noun's object · with the picture's other objects · the same for random units of the same layers
      ─► the same of the units that were found on another picture of the noun (`held_out`)

One forward pass of the prompt is enough, without the caption: the image tokens stand before every generated one, and
nothing that follows changes them. That holds for causal decoders, and for PaliGemma too, where the whole prompt sees
itself in both directions: there the question, though not the answer, does change what is read at the image tokens.

Ours, where the papers leave a choice: the processor's crop and padding are undone (`geometry.py`); what the model was
not shown counts neither as looked at nor as missed; where several grids lie over one pixel (crops and the whole
picture), their mean is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image

from mmn.core import Neuron
from mmn.models.geometry import Grids, image_grid
from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.names import GIVEN, HELD_OUT, SAME_PICTURE, SET
from mmn.reading.captions import greedy
from mmn.reading.hooks import capture_units
from mmn.reading.nouns import lemma_of
from mmn.units.heat_maps import best_iou, heat_map, iou, mask_at, split_objects


@dataclass(frozen=True)
class FieldMaps:
    """Activations a of units at the image tokens of one picture: `values[i]` belongs to `units[i]`. Float32."""

    units: tuple[Neuron, ...]
    values: Float[np.ndarray, "n tokens"]
    grids: Grids
    picture_size: tuple[int, int]

    def of(self, units: Sequence[Neuron]) -> Float[np.ndarray, "n tokens"]:
        """The rows of `units`, in their order."""
        return self.values[[self.units.index(one) for one in units]]


@dataclass(frozen=True)
class FieldRow:
    """A row of the table `field`, without its run.

    `iou` is with the noun's own object, `iou_other` the mean over the picture's other objects (None if there are
    none), `iou_random` the mean of as many random units of this layer as top units are in it, with the own object;
    `iou_best` what the object's size lets the unit's mask reach. `found_on` is the picture that ranks the unit so, None
    if it is this one: then it is judged where it was chosen; and None of a set, whose `selection` says so.
    """

    image_id: str
    noun: str
    method: str
    rank: int
    layer: int
    unit: int
    iou: float
    iou_other: float | None
    iou_random: float
    selection: str
    found_on: str | None
    iou_best: float


@torch.inference_mode()
def unit_maps(model: Model, image: Image.Image, exact_prompt: str, units: Sequence[Neuron]) -> FieldMaps:
    """Activations a of `units` at the image tokens, in the pass over the prompt that also begins the caption.

    Only the chosen units are kept: all of a 7B model's would be gigabytes.

    Raises:
        UsageError: the family's image tokens have no place in the picture.
    """
    inputs = model.encode([image], exact_prompt)
    grids = image_grid(model, inputs, image.size)
    is_image = image_positions(model, inputs)[0]
    with capture_units(model, units) as captured:
        model.module.generate(**inputs, generation_config=greedy(model, 1))
    values = captured.read()[0, is_image].T.cpu().numpy()
    return FieldMaps(tuple(units), values, grids, image.size)


def field_rows(
    maps: FieldMaps,
    image_id: str,
    noun: str,
    method: str,
    units: Sequence[Neuron],
    controls: Sequence[Neuron],
    masks: Mapping[str, Bool[np.ndarray, "height width"]],
    found_on: str | None = None,
) -> Iterator[FieldRow]:
    """The rows of one noun: `units` by rank against its object, the other objects, and `controls` of each layer.

    `found_on` is the other picture that ranked the units so, if it was another one.

    Invariant: as many controls as units in each layer, so that the mean of `iou_random` over the rows is the mean
    over all controls.
    """
    shown = ~np.isnan(heat_map(maps.values[0], maps.grids, maps.picture_size))
    own, others = split_objects(masks, lemma_of(noun), shown)
    if own is None:
        return
    random_ious: dict[int, list[float]] = {}
    for one, looked_at in zip(controls, _masks(maps, controls), strict=True):
        random_ious.setdefault(one.layer, []).append(iou(looked_at, own))
    for rank, (one, looked_at) in enumerate(zip(units, _masks(maps, units), strict=True), start=1):
        yield FieldRow(
            image_id=image_id,
            noun=noun,
            method=method,
            rank=rank,
            layer=one.layer,
            unit=one.unit,
            iou=iou(looked_at, own),
            iou_other=float(np.mean([iou(looked_at, other) for other in others])) if others else None,
            iou_random=float(np.mean(random_ious[one.layer])),
            selection=_selection(method, found_on),
            found_on=found_on,
            iou_best=best_iou(looked_at, own),
        )


def _selection(method: str, found_on: str | None) -> str:
    """How units were found: as a set that somebody gave, by another picture's ranking, or by this one's."""
    if method.startswith(SET):
        return GIVEN
    return SAME_PICTURE if found_on is None else HELD_OUT


def control_units(units: Sequence[Neuron], widths: Sequence[int], key: Sequence[str]) -> tuple[Neuron, ...]:
    """Random units, as many of each layer as `units` has; drawn without replacement, the top units not excluded.

    `widths` are the numbers of units by layer;
    `key` says what the draw is for: the same key gives the same units, whatever else is drawn before or beside it.
    """
    digest = hashlib.sha256("\0".join(key).encode()).digest()
    generator = np.random.Generator(np.random.Philox(int.from_bytes(digest[:8], "big")))
    layers = [one.layer for one in units]
    return tuple(
        Neuron(layer, int(unit))
        for layer in sorted(set(layers))
        for unit in generator.choice(widths[layer], layers.count(layer), replace=False)
    )


def _masks(maps: FieldMaps, units: Sequence[Neuron]) -> Iterator[Bool[np.ndarray, "height width"]]:
    for values in maps.of(units):
        yield mask_at(heat_map(values, maps.grids, maps.picture_size))

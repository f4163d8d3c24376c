"""How well does the map of an object's confidence outline it?

    map         the object's highest probability over layers and sub-tokens, at each image token, bilinear between them
    IoU         of the map above its own mean with the object's mask
    precision   average precision of the map's pixels, by falling confidence; by chance the share of the object's pixels

The map is Jiang et al.'s zero-shot segmentation (arXiv 2410.02762); the threshold of the mean is OURS (their code draws
maps without one), average precision has none. The control is the map of another outlined object of the same picture on
this object's mask: a map that marks whatever sticks out has as much of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from mmn.models.geometry import Grids
from mmn.statistics.detection import average_precision
from mmn.units.heat_maps import Mask, best_iou, heat_map, iou

Heat = Float[np.ndarray, "height width"]


@dataclass(frozen=True)
class Fit:
    """How a map fits a mask, as far as the model was shown the picture."""

    iou: float
    best: float
    precision: float
    chance: float


def map_fits(
    maps: Mapping[str, Float[np.ndarray, " tokens"]], masks: Mapping[str, Mask], grids: Grids
) -> dict[str, dict[str, Any]]:
    """How each object's map fits its own mask, and how another object's map does: columns of `object_map`.

    Args:
        maps: a value for each image token, by object.
        masks: by object, in the picture's pixels; objects without a map or of no visible pixel are left out.
        grids: where the image tokens lie, in the same pixels.
    """
    there = [name for name in sorted(masks) if name in maps]
    heats = {name: heat_map(maps[name], grids, masks[name].shape[::-1]) for name in there}
    there = [name for name in there if (masks[name] & ~np.isnan(heats[name])).any()]
    found = {}
    for place, name in enumerate(there):
        other = there[(place + 1) % len(there)]
        told = _told(fit(heats[name], masks[name]))
        if other != name:
            wrong = fit(heats[other], masks[name])
            told |= {"iou_other": wrong.iou, "precision_other": wrong.precision}
        found[name] = told
    return found


def fit(heat: Heat, mask: Mask) -> Fit:
    """How a heat map fits a mask that has a visible pixel."""
    shown = ~np.isnan(heat)
    marked, own = heat > heat[shown].mean(), mask & shown  # NaN is above nothing
    precision = average_precision(heat[shown].astype(float), own[shown])
    return Fit(iou(marked, own), best_iou(marked, own), precision, float(own[shown].mean()))


def _told(own: Fit) -> dict[str, Any]:
    nothing = {"iou_other": None, "precision_other": None}
    told = {"iou": own.iou, "iou_best": own.best, "precision": own.precision, "precision_chance": own.chance}
    return told | nothing

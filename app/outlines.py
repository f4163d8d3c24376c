"""How well the average map of several units fits the noun's object: of the map itself (P2), not a mean of IoUs.

Objects' outlines are read from the picture source when they are first asked for; imported late, since the words that
name them need the lemmas' dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import streamlit as st

from mmn.core import Example
from mmn.errors import ImageError, SourceError, UsageError
from mmn.geometry import Grids
from mmn.heat import Mask, average_map, heat_map, iou, mask_at, split_objects
from mmn.masks import MaskSource, open_masks
from mmn.nouns import lemma_of


def average_overlaps(
    run: Mapping[str, Any], picture: Mapping[str, Any], noun: str, grids: Grids, activations: Sequence[Any]
) -> dict[str, float]:
    """IoU of the brightest 5 % of units' average map: `iou` with the noun's object, `iou_other` with others (mean).

    In the picture's own pixels, as `mmn annotate` measures single units. Empty where the noun has no outline, or the
    model was not shown it; without `iou_other` where the picture has no other object.
    """
    masks = _masks(run["images"], picture)
    size = (picture["width"], picture["height"])
    values = np.stack([np.asarray(one, np.float32) for one in activations])
    heat = heat_map(average_map(values, len(values)), grids, size)
    own, others = split_objects(masks, lemma_of(noun), ~np.isnan(heat))
    if own is None:
        return {}
    looked_at = mask_at(heat)
    found = {"iou": iou(looked_at, own)}
    return found | ({"iou_other": float(np.mean([iou(looked_at, other) for other in others]))} if others else {})


def _masks(images: str, picture: Mapping[str, Any]) -> dict[str, Mask]:
    source = _opened(images)
    if source is None:
        return {}
    example = Example(
        picture["image_id"], picture["source"], tuple(picture["sources"]), picture["width"], picture["height"]
    )
    try:
        return source.find(example)
    except (ImageError, SourceError):
        return {}


@st.cache_resource(max_entries=2, show_spinner="Opening the objects' outlines")
def _opened(images: str) -> MaskSource | None:
    try:
        return open_masks(images)
    except (UsageError, SourceError):
        return None

"""How well the average map of several units fits the noun's object: of the map itself (P2), not a mean of IoUs.

Objects' outlines are read from the picture source when they are first asked for; imported late, since the words that
name them need the lemmas' dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from app import resources
from mmn.errors import ImageError, SourceError
from mmn.images.opening import opened_size
from mmn.models.geometry import Grids
from mmn.reading.nouns import lemma_of
from mmn.runs.added_later import example_of, masks_of_run
from mmn.store.pictures import PictureQueries
from mmn.units.heat_maps import Mask, average_map, heat_map, iou, mask_at, mask_of_size, split_objects
from mmn.units.masks import MaskSource


def average_overlaps(
    run: Mapping[str, Any], picture: Mapping[str, Any], noun: str, grids: Grids, activations: Sequence[Any]
) -> dict[str, float]:
    """IoU of the brightest 5 % of units' average map: `iou` with the noun's object, `iou_other` with others (mean).

    In the picture's pixels as it is opened, as `mmn annotate` measures single units. Empty where the noun has no
    outline, or the model was not shown it; without `iou_other` where the picture has no other object.
    """
    full = (picture["width"], picture["height"])
    size = opened_size(*full)
    masks = {lemma: mask_of_size(mask, size) for lemma, mask in _masks(run["run_id"], picture, noun).items()}
    grids = grids.resized(full, size)
    values = np.stack([np.asarray(one, np.float32) for one in activations])
    heat = heat_map(average_map(values, len(values)), grids, size)
    own, others = split_objects(masks, lemma_of(noun), ~np.isnan(heat))
    if own is None:
        return {}
    looked_at = mask_at(heat)
    found = {"iou": iou(looked_at, own)}
    return found | ({"iou_other": float(np.mean([iou(looked_at, other) for other in others]))} if others else {})


def _masks(run_id: str, picture: Mapping[str, Any], noun: str) -> dict[str, Mask]:
    ask = resources.store().ask(PictureQueries)
    synonyms = ask.synonyms(run_id)
    source = _opened(run_id, tuple(ask.mask_specs(run_id)))
    if source is None:
        return {}
    try:
        return replace(source, synonyms=synonyms).masks_for(noun, source.find(example_of(picture)))
    except (ImageError, SourceError):
        return {}


@st.cache_resource(max_entries=2, show_spinner="Opening the objects' outlines")
def _opened(run_id: str, specs: tuple[str, ...]) -> MaskSource | None:
    pictures = resources.store().table(run_id, "image").to_dict("records")
    return masks_of_run(specs, [example_of(picture) for picture in pictures])

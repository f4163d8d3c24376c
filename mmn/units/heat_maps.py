"""Token values laid over a picture: heat map, average, mask, IoU, overlay. Torch-free, so that pages can draw them.

What the model was not shown is NaN in a heat map, and counts neither as looked at nor as missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from mmn.models.geometry import Axis, Grids

Mask = Bool[np.ndarray, "height width"]

PERCENTILE: Final = 95.0  # P1, P2
AVERAGED: Final = (1, 10, 50, 100, 500, 1000)  # P2 averages the maps of so many top units
OPACITY: Final = 0.6
_COLOURS: Final = (  # inferno (S. van der Walt, N. Smith; CC0) at ten even steps, dark to bright
    "000004", "1b0c42", "4b0c6b", "781c6d", "a52c60", "cf4446", "ed6925", "fb9a06", "f7d03c", "fcffa4",
)  # fmt: skip


def heat_map(
    values: Float[np.ndarray, " tokens"], grids: Grids, picture_size: tuple[int, int]
) -> Float[np.ndarray, "height width"]:
    """The token values laid over the displayed picture: bilinear between the centres of tokens, flat beyond them.

    Args:
        values: one for each image token; those that stand for no place are passed over.
        grids: where those tokens lie.
        picture_size: (width, height) in pixels.

    Returns:
        Float32, in the unit of `values`; NaN where the model was not shown the picture (outside a crop). Where several
        grids lie over a pixel, their mean.
    """
    width, height = picture_size
    total = np.zeros((height, width), np.float32)
    n_grids = np.zeros((height, width), np.float32)
    for tile, grid in enumerate(grids.tiles):
        table = np.full(grid.shape, np.nan, np.float32)
        for value, cell in zip(values, grids.cells, strict=True):
            if cell is not None and cell.tile == tile:
                table[cell.row, cell.column] = value
        (rows, is_row), (columns, is_column) = _weights(grid.rows, height), _weights(grid.columns, width)
        is_inside = np.outer(is_row, is_column)
        total += np.where(is_inside, rows @ table @ columns.T, 0)
        n_grids += is_inside
    return np.divide(total, n_grids, out=np.full_like(total, np.nan), where=n_grids > 0)


def mask_of_size(mask: Mask, size: tuple[int, int]) -> Bool[np.ndarray, "smaller_height smaller_width"]:
    """The mask in a smaller picture of (width, height): at the pixel in the middle of each of its pixels."""
    if mask.shape == size[::-1]:
        return mask
    rows, columns = (
        ((np.arange(n) + 0.5) * full / n).astype(int) for n, full in zip(size[::-1], mask.shape, strict=True)
    )
    return mask[np.ix_(rows, columns)]


def average_map(values: Float[np.ndarray, "n tokens"], top: int) -> Float[np.ndarray, " tokens"]:
    """The mean activation of the first `top` units, by rank (P2); as interpolation is linear, so the mean heat map.

    Raises:
        AssertionError: there are fewer units.
    """
    assert 1 <= top <= len(values), f"the top {top} of {len(values)} units"
    return values[:top].mean(axis=0)


def mask_at(
    heat: Float[np.ndarray, "height width"], percentile: float = PERCENTILE
) -> Bool[np.ndarray, "height width"]:
    """Where the heat map is above its own percentile, taken over what the model was shown (P1, P2: the 95th)."""
    shown = heat[~np.isnan(heat)]
    assert shown.size, "a heat map of nothing"
    return heat > np.percentile(shown, percentile)  # NaN is above nothing


def split_objects(masks: Mapping[str, Mask], lemma: str, shown: Mask) -> tuple[Mask | None, list[Mask]]:
    """The object of a noun, None if it has none, and the picture's others; each as far as the model was shown it."""
    visible = {name: mask & shown for name, mask in masks.items() if (mask & shown).any()}
    return visible.get(lemma), [mask for name, mask in visible.items() if name != lemma]


def tokens_on(mask: Bool[np.ndarray, "height width"], grids: Grids) -> Bool[np.ndarray, " tokens"]:
    """Which image tokens lie on an object: those of whose stretch of the picture at least half is in its mask.

    A token that stands for no place, or for none inside the picture, lies on nothing.
    """
    return covered(mask, grids) >= 0.5


def covered(mask: Bool[np.ndarray, "height width"], grids: Grids) -> Float[np.ndarray, " tokens"]:
    """How much of each image token's stretch of the picture is in the mask, 0 to 1; 0 of one that has no place."""
    height, width = mask.shape
    found = np.zeros(len(grids.cells))
    for token in range(len(grids.cells)):
        box = grids.box_of(token)
        if box is not None:
            x0, x1 = (min(max(round(edge), 0), width) for edge in (box[0], box[2]))
            y0, y1 = (min(max(round(edge), 0), height) for edge in (box[1], box[3]))
            stretch = mask[y0:y1, x0:x1]
            found[token] = stretch.mean() if stretch.size else 0.0
    return found


def iou(mask: Bool[np.ndarray, "height width"], other: Bool[np.ndarray, "height width"]) -> float:
    """Pixels in both over pixels in either, 0 to 1.

    Raises:
        AssertionError: `other`, the object, has no pixel.
    """
    assert other.any(), "an object without pixels"
    return float((mask & other).sum() / (mask | other).sum())


def best_iou(mask: Mask, own: Mask) -> float:
    """The highest IoU that a mask of this area can have with the object, wherever it lies: the smaller over the larger.

    Masks have 5 % of what the model was shown (a little less where values are equal), whatever the object's size: with
    one of 20 % of it no unit exceeds .25, and with one of 1 % none exceeds .2. OURS.

    Raises:
        AssertionError: `own` has no pixel.
    """
    assert own.any(), "an object without pixels"
    areas = int(mask.sum()), int(own.sum())
    return min(areas) / max(areas)


def overlay(picture: Image.Image, heat: Float[np.ndarray, "height width"], opacity: float = OPACITY) -> Image.Image:
    """The picture under its heat map, dark (its least) to bright (its most); grey where the model was not shown it."""
    assert heat.shape == (picture.height, picture.width), (heat.shape, picture.size)
    shown = ~np.isnan(heat)
    low, high = (float(heat[shown].min()), float(heat[shown].max())) if shown.any() else (0.0, 0.0)
    share = np.where(shown, (heat - low) / (high - low), 0.0) if high > low else np.zeros(heat.shape)
    pixels = np.asarray(picture.convert("RGB"), np.float32)
    grey = np.asarray(picture.convert("L"), np.float32)[..., None]
    blended = np.where(shown[..., None], opacity * _colour(share) + (1 - opacity) * pixels, grey)
    return Image.fromarray(np.rint(blended).astype(np.uint8))


def _weights(axis: Axis, length: int) -> tuple[Float[np.ndarray, "length tokens"], Bool[np.ndarray, " length"]]:
    """How much each token of an axis counts at each pixel's centre, and which pixels the axis covers."""
    centres = np.array([(start + end) / 2 for start, end in axis])
    pixels = np.arange(length) + 0.5
    position = np.interp(pixels, centres, np.arange(len(centres)))
    before = np.minimum(position.astype(int), max(len(centres) - 2, 0))
    weights = np.zeros((length, len(centres)), np.float32)
    share = position - before
    weights[np.arange(length), before] = 1 - share
    if len(centres) > 1:
        weights[np.arange(length), before + 1] = share
    return weights, (pixels > axis[0][0]) & (pixels < axis[-1][1])


def _colour(share: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width 3"]:
    """RGB from 0 to 255 for shares from 0 to 1."""
    table = np.array([list(bytes.fromhex(colour)) for colour in _COLOURS], np.float32)
    at = np.linspace(0, 1, len(table))
    return np.stack([np.interp(share, at, table[:, channel]) for channel in range(3)], axis=-1)

"""Draws one object of a COCO file as a boolean mask: polygons, run lengths plain or packed.

What cannot be drawn costs itself alone: a broken polygon of several leaves the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from mmn.units.heat_maps import Mask

_PACKED_BITS, _PACKED_MORE, _PACKED_SIGN, _PACKED_ZERO = 0x1F, 0x20, 0x10, 48
_LARGEST_SHIFT: Final = 60  # a run has no more digits
_UNREADABLE: Final = (KeyError, TypeError, ValueError, IndexError, ArithmeticError, AttributeError)


def draw_segmentation(segmentation: Any, size: tuple[int, int]) -> tuple[Mask, tuple[str, ...]]:
    """The union of an object's polygons or run lengths, as a mask of `size` (width, height); and what was left out."""
    mask = np.zeros(size[::-1], bool)
    problems = []
    for part in _parts(segmentation):
        try:
            mask |= _draw_part(part, size)
        except _UNREADABLE as error:
            problems.append(str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")
    return mask, tuple(problems)


def size_of_runs(segmentation: Any) -> tuple[int, int] | None:
    """(width, height) that run lengths are of; None for polygons."""
    try:
        height, width = segmentation["size"]
        return int(width), int(height)
    except _UNREADABLE:
        return None


def _parts(segmentation: Any) -> Sequence[Any]:
    """Each polygon or set of runs. A list of plain numbers is one polygon, as some exporters write it."""
    if isinstance(segmentation, list) and not (segmentation and isinstance(segmentation[0], int | float)):
        return segmentation
    return (segmentation,)


def _draw_part(part: Any, size: tuple[int, int]) -> Mask:
    if not isinstance(part, dict):
        return draw_polygon(part, size)
    if size_of_runs(part) != size:  # before a pixel is reserved
        raise ValueError(f"run lengths of {size_of_runs(part)} pixels for a picture of {size}")
    counts = part["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii")
    return decode_runs(unpack_counts(counts) if isinstance(counts, str) else counts, size)


def draw_polygon(polygon: Sequence[float | int], size: tuple[int, int]) -> Mask:
    """The pixels whose centres lie inside the outline x0, y0, x1, y1, …; COCO's pixel 0 is the span from 0 to 1.

    Even-odd: each edge flips all pixels to its right. (Pillow's own also fills half a pixel beyond the outline.)

    Raises:
        ValueError: fewer than three corners, or a coordinate that is no number.
    """
    points = np.asarray(polygon, float)
    if points.ndim != 1 or len(points) < 6 or len(points) % 2:
        raise ValueError(f"a polygon of {points.size} numbers")
    if not np.isfinite(points).all():
        raise ValueError("a polygon with a corner that is no number")
    width, height = size
    flips = np.zeros((height, width + 1), np.uint8)
    corners = points.reshape(-1, 2)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        top, bottom = sorted((y0, y1))
        rows = np.arange(max(0, math.ceil(top - 0.5)), min(height, math.ceil(bottom - 0.5)))
        if len(rows):
            x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            flips[rows, np.clip(np.ceil(x - 0.5), 0, width).astype(int)] ^= 1
    return np.bitwise_xor.accumulate(flips, axis=1)[:, :width].astype(bool)


def decode_runs(counts: Sequence[int], size: tuple[int, int]) -> Mask:
    """Run lengths down the columns, first of background, then of the object, by turns.

    Raises:
        ValueError: they do not fill the picture.
    """
    width, height = size
    runs = np.asarray(counts, int)
    if runs.min(initial=0) < 0 or runs.sum() != width * height:
        raise ValueError(f"runs of {runs.sum()} pixels for a picture of {width} × {height}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def unpack_counts(text: str) -> list[int]:
    """Run lengths from COCO's packed form: five bits a character, low ones first; from the fourth on, differences
    to the run two before (`rleFrString` of pycocotools).

    Raises:
        ValueError: a run that does not end.
    """
    counts: list[int] = []
    at = 0
    while at < len(text):
        value, shift, has_more = 0, 0, True
        while has_more:
            if at >= len(text) or shift > _LARGEST_SHIFT:
                raise ValueError("packed run lengths that do not end")
            bits = ord(text[at]) - _PACKED_ZERO
            value |= (bits & _PACKED_BITS) << shift
            shift, at, has_more = shift + 5, at + 1, bool(bits & _PACKED_MORE)
        if bits & _PACKED_SIGN:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts

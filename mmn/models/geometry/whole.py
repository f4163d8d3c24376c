"""One grid over the whole picture: a token for each patch, or for each square of merged patches."""

from __future__ import annotations

import math
from typing import Final

from mmn.counts import counted
from mmn.models.geometry.grid_inputs import GridInputs, Line, spans
from mmn.models.geometry.grids import Axis, Cell, Grid, Grids, cells_of, even

_PADDING: Final = ("DeepseekVL", "DeepseekVLHybrid", "Janus", "Llava")  # to a square, around the middle
_CHECKED_PROCESSORS: Final = ("Beit", "Bit", "CLIP", "Chameleon", "ConvNext", "Siglip", "VideoLlava", "ViT", *_PADDING)
# Which way a place lies from the middle of its stretch, by `encoders.Layout.centre`.
_SHIFTS: Final = {"middle": 0.0, "first pixel": -0.5, "last pixel": 0.5}
_CONVNEXT_CROPS_BELOW: Final = 384  # pixels; from there on pictures are squeezed


def patches(inputs: GridInputs) -> Grids:
    """One canvas, resized, perhaps padded to a square or cropped around its middle; a token for each patch."""
    rows, columns = (
        tuple(map(line.to_picture, spans(length, inputs.patch_size)))
        for line, length in zip(_lines(inputs), inputs.canvas, strict=True)
    )
    grid = Grid(rows, columns)
    cells: list[Cell | None] = list(cells_of(0, grid))
    n_more = inputs.n_tokens - len(cells)
    if n_more == 1 and getattr(inputs.config, "vision_feature_select_strategy", None) == "full":
        cells.insert(0, None)  # the tower's class token comes first
    return Grids((grid,), tuple(cells))


def encoder(inputs: GridInputs) -> Grids:
    """As many rows and columns as an encoder of any kind gives, equal stretches of what it sees (`limber`).

    The places of a convolutional network see more than their stretch, and lie in it where `config.centre` says.
    """
    config = inputs.config
    if config.centre not in _SHIFTS:
        raise inputs.refusal(f"nobody looked where the places of a {config.vision_config.model_type}'s map lie")
    patch = getattr(config.vision_config, "patch_size", None)
    rows, columns = (
        tuple(map(line.to_picture, _stretches(n, length, patch, _SHIFTS[config.centre])))
        for line, n, length in zip(_lines(inputs), config.image_grid, inputs.canvas, strict=True)
    )
    grid = Grid(rows, columns)
    return Grids((grid,), tuple(cells_of(0, grid)))


def _stretches(n: int, n_pixels: int, patch: object, shift: float) -> Axis:
    """Equal stretches of a canvas; pixels at its end that make no whole patch are left out.

    Shifted by half, each has its first (last) pixel in its middle: it begins half a stretch earlier (later).
    """
    end = float(n * patch if isinstance(patch, int) and n == n_pixels // patch else n_pixels)
    moved = (end / n - 1) * shift
    return even(n, moved, end + moved)


def merged(inputs: GridInputs) -> Grids:
    """The whole picture, resized to a multiple of merged patches; as many as fit the picture (Qwen2-VL)."""
    grid = Grid.even(*merged_shape(inputs), inputs.whole)
    return Grids((grid,), tuple(cells_of(0, grid)))


def merged_shape(inputs: GridInputs) -> tuple[int, int]:
    """Rows and columns of merged patches, of the one picture."""
    n_frames, n_rows, n_columns = (int(n) for n in inputs.inputs["image_grid_thw"][0])
    merge = int(inputs.processor.merge_size)
    if n_frames != 1 or len(inputs.inputs["image_grid_thw"]) != 1 or n_rows % merge or n_columns % merge:
        raise inputs.refusal(f"image_grid_thw is {inputs.inputs['image_grid_thw'].tolist()} at merge size {merge}")
    return n_rows // merge, n_columns // merge


def squared(inputs: GridInputs) -> Grids:
    """N × n equal tokens over the whole picture, which is squeezed to a square whatever its sides (Gemma 3, GOT)."""
    n = _square_root(inputs)
    processor, side = inputs.processor, inputs.canvas[0]
    if len(inputs.pixels) != 1 or getattr(processor, "do_center_crop", False) or getattr(processor, "do_pad", False):
        raise inputs.refusal("it crops or pads pictures, or gives several for one, which was not checked")
    inputs.require_canvas((side, side))
    grid = Grid.even(n, n, inputs.whole)
    return Grids((grid,), tuple(cells_of(0, grid)))


def cropped_square(inputs: GridInputs) -> Grids:
    """N × n equal tokens over what a resize and a middle crop leave (Chameleon's codes)."""
    n, side = _square_root(inputs), inputs.canvas[0]
    inputs.require_canvas((side, side))
    rows, columns = (
        tuple(map(line.to_picture, even(n, 0.0, float(length))))
        for line, length in zip(_lines(inputs), inputs.canvas, strict=True)
    )
    grid = Grid(rows, columns)
    return Grids((grid,), tuple(cells_of(0, grid)))


def _square_root(inputs: GridInputs) -> int:
    """Tokens in a row, where there are as many rows."""
    n = math.isqrt(inputs.n_tokens)
    if n * n != inputs.n_tokens:
        raise inputs.refusal(f"{counted(inputs.n_tokens, 'image token')} make no square")
    return n


def _lines(inputs: GridInputs) -> tuple[Line, Line]:
    """The two axes of a processor that resizes, perhaps after padding to a square, perhaps before a middle crop.

    Sizes are rounded as in transformers' `get_resize_output_image_size` and `center_crop`.
    """
    processor = inputs.processor
    kind = type(processor).__name__.removesuffix("Pil").removesuffix("ImageProcessor")
    if kind not in _CHECKED_PROCESSORS or not processor.do_resize:
        raise inputs.refusal(f"checked are those of {', '.join(_CHECKED_PROCESSORS)}, with resizing")
    is_padded = bool(getattr(processor, "do_pad", False))
    if is_padded and kind not in _PADDING:
        raise inputs.refusal("it pads pictures in a way that was not checked")
    padded = (max(inputs.lengths),) * 2 if is_padded else inputs.lengths
    resized, canvas = _convnext(inputs) if kind == "ConvNext" else _resized_and_cropped(inputs, padded)
    if any(kept > length for kept, length in zip(canvas, resized, strict=True)):
        raise inputs.refusal(f"it crops {canvas} pixels (height, width) from a picture of only {resized}")
    inputs.require_canvas(canvas)
    row, column = (
        Line(((full - length) // 2) * new / full - (new - kept) // 2, full / new)
        for length, full, new, kept in zip(inputs.lengths, padded, resized, canvas, strict=True)
    )
    return row, column


def _resized_and_cropped(inputs: GridInputs, lengths: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) after resizing, and of the middle that is kept."""
    processor = inputs.processor
    resized = _resized(inputs, lengths)
    crop = processor.crop_size if getattr(processor, "do_center_crop", False) else None
    return resized, resized if crop is None else (int(crop["height"]), int(crop["width"]))


def _convnext(inputs: GridInputs) -> tuple[tuple[int, int], tuple[int, int]]:
    """Small pictures are enlarged by 1 / crop_pct and cropped back, large ones squeezed into a square."""
    processor = inputs.processor
    short = int(dict(processor.size).get("shortest_edge") or 0)
    if not short or getattr(processor, "do_center_crop", False):
        raise inputs.refusal(f"it resizes to {dict(processor.size)}, or crops once more")
    square = (short, short)
    if short >= _CONVNEXT_CROPS_BELOW:
        return square, square
    return _shortest(int(short / processor.crop_pct), inputs.lengths), square


def _resized(inputs: GridInputs, lengths: tuple[int, int]) -> tuple[int, int]:
    """(height, width) after resizing: to a size, or with the shorter side to a length."""
    size = dict(inputs.processor.size)
    if set(size) == {"height", "width"}:
        return int(size["height"]), int(size["width"])
    if set(size) == {"shortest_edge"}:
        return _shortest(int(size["shortest_edge"]), lengths)
    raise inputs.refusal(f"it resizes to {size}")


def _shortest(short: int, lengths: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a picture whose shorter side becomes `short`."""
    long = int(short * max(lengths) / min(lengths))
    return (long, short) if lengths[1] <= lengths[0] else (short, long)

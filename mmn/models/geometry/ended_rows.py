"""Grids whose rows are each ended by an image token that stands for no place: Emu 3, HunyuanVL, Unlimited OCR."""

from __future__ import annotations

import math
from typing import Final

from mmn.models.geometry.grid_inputs import GridInputs, Line
from mmn.models.geometry.grids import Axis, Cell, Grid, Grids, even
from mmn.models.geometry.whole import merged_shape

_DOWNSAMPLED: Final = 4  # patches in a row of a token: two convolutions of stride 2 behind SAM


def ended_rows(inputs: GridInputs) -> Grids:
    """Even tokens over the whole picture, row by row, and one that ends each row (Emu 3).

    HunyuanVL has one more before the first row, and one behind the last.
    """
    grid = Grid.even(*_shape(inputs), inputs.whole)
    cells = _ended(0, grid)
    if inputs.n_tokens == len(cells) + 2:
        cells = [None, *cells, None]
    return Grids((grid,), tuple(cells))


def _shape(inputs: GridInputs) -> tuple[int, int]:
    """Rows and columns, as the processor says them: in merged patches, or in pixels that its picture has."""
    if "image_grid_thw" in inputs.inputs:
        return merged_shape(inputs)
    height, width = (int(n) for n in inputs.inputs["image_sizes"][0])
    return height // inputs.processor.spatial_factor, width // inputs.processor.spatial_factor


def canvas_and_padded(inputs: GridInputs) -> Grids:
    """The picture squeezed onto a canvas of n × m square crops, as one grid; then scaled, and padded around its middle
    to a square. A last token stands for no place, and a picture that fits one crop has the second grid alone
    (Unlimited OCR).
    """
    padded = _padded(inputs)
    n_columns, n_rows = inputs.inputs["patches_grid"][0]
    if not int(inputs.inputs["num_local_patches"][0]):
        return Grids((padded,), (*_ended(0, padded), None))
    side = _tokens(inputs, int(inputs.processor.tile_size))
    canvas = Grid.even(n_rows * side, n_columns * side, inputs.whole)
    return Grids((canvas, padded), (*_ended(0, canvas), *_ended(1, padded), None))


def _padded(inputs: GridInputs) -> Grid:
    """The whole picture's grid; a processor that cuts nothing squeezes it onto a small square."""
    processor, target = inputs.processor, inputs.canvas[0]
    inputs.require_canvas((target, target))
    n = _tokens(inputs, target)
    if not processor.crop_to_patches and target <= processor.maximum_pad_value:
        return Grid.even(n, n, inputs.whole)
    scale = target / max(inputs.lengths)
    return Grid(*(_axis(n, target, length, round(length * scale)) for length in inputs.lengths))


def _axis(n: int, target: int, length: int, scaled: int) -> Axis:
    line = Line((target - scaled) // 2, length / scaled)
    return tuple(map(line.to_picture, even(n, 0.0, float(target))))


def _tokens(inputs: GridInputs, n_pixels: int) -> int:
    """Tokens in a row of a square of pixels."""
    return math.ceil(n_pixels // inputs.config.vision_config.sam_config.patch_size / _DOWNSAMPLED)


def _ended(tile: int, grid: Grid) -> list[Cell | None]:
    """A grid's places row by row, each row ended by a token without one."""
    n_rows, n_columns = grid.shape
    return [
        Cell(tile, row, column) if column < n_columns else None
        for row in range(n_rows)
        for column in range(n_columns + 1)
    ]

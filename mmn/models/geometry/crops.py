"""The picture cut into square crops of one canvas, and seen whole once more: InternVL, Idefics 3, SmolVLM."""

from __future__ import annotations

import sys

from mmn.models.geometry.grid_inputs import GridInputs
from mmn.models.geometry.grids import Cell, Grid, Grids, cells_of


def canvas_and_whole(inputs: GridInputs) -> Grids:
    """The picture squeezed onto a canvas of n × m square crops, row by row, then squeezed onto one (InternVL)."""
    return _crops_then_whole(inputs, *_canvas(inputs))


def _canvas(inputs: GridInputs) -> tuple[int, int]:
    """Rows and columns of crops; (0, 0) where the picture is seen whole alone."""
    n_crops = inputs.n_tiles - 1
    if n_crops == 0:
        return 0, 0
    processor = inputs.processor
    tiled = getattr(sys.modules[type(processor).__module__], "get_optimal_tiled_canvas", None)
    if tiled is None:
        raise inputs.refusal("it cuts pictures by a rule that was not checked")
    n_columns, n_rows = tiled(inputs.lengths, inputs.canvas, processor.min_patches, processor.max_patches)
    if n_columns * n_rows != n_crops:
        raise inputs.refusal(f"{n_crops} crops where {n_rows} × {n_columns} are expected")
    return n_rows, n_columns


def split(inputs: GridInputs) -> Grids:
    """As `canvas_and_whole` by another rule (Idefics 3, SmolVLM): its processor is asked, over a blank picture."""
    from PIL import Image

    blank = Image.new("RGB", inputs.picture_size)
    asked = inputs.processor([[blank]], return_row_col_info=True)
    n_rows, n_columns = asked["rows"][0][0], asked["cols"][0][0]
    n_tiles = inputs.inputs["pixel_values"].shape[1]
    if n_rows * n_columns + 1 != n_tiles:
        raise inputs.refusal(f"{n_tiles - 1} crops where {n_rows} × {n_columns} are expected")
    return _crops_then_whole(inputs, n_rows, n_columns)


def _crops_then_whole(inputs: GridInputs, n_rows: int, n_columns: int) -> Grids:
    """Crops of one canvas become one grid: its tokens come crop by crop. The grid of the whole picture is last."""
    height, width = inputs.canvas
    if height != width or height % inputs.patch_size:
        raise inputs.refusal(f"tiles of {inputs.canvas} pixels (height, width) are no square of whole patches")
    side = _after_shuffle(inputs, height // inputs.patch_size)
    whole = Grid.even(side, side, inputs.whole)
    if not n_rows:
        return Grids((whole,), tuple(cells_of(0, whole)))
    canvas = Grid.even(n_rows * side, n_columns * side, inputs.whole)
    cells = [
        Cell(0, crop_row * side + row, crop_column * side + column)
        for crop_row in range(n_rows)
        for crop_column in range(n_columns)
        for row in range(side)
        for column in range(side)
    ]
    return Grids((canvas, whole), (*cells, *cells_of(1, whole)))


def _after_shuffle(inputs: GridInputs, n_patches: int) -> int:
    """Tokens in a row after the pixel shuffle, which joins squares of patches."""
    factor = _factor(inputs)
    if n_patches % factor:
        raise inputs.refusal(f"{n_patches} patches in a row cannot be joined by {factor}")
    return n_patches // factor


def _factor(inputs: GridInputs) -> int:
    """Patches in a row of a square that is joined; InternVL gives it as a ratio."""
    config = inputs.config
    for name in ("scale_factor", "downsample_factor"):
        if hasattr(config, name):
            return int(getattr(config, name))
    return round(1 / config.downsample_ratio)

"""The picture cut into square crops of one canvas, and seen whole once more: InternVL, Idefics 3, SmolVLM."""

from __future__ import annotations

from mmn.models.geometry.grid_inputs import GridInputs
from mmn.models.geometry.grids import Cell, Grid, Grids, cells_of


def canvas_and_whole(inputs: GridInputs) -> Grids:
    """The picture squeezed onto a canvas of n × m square crops, row by row, then squeezed onto one (InternVL)."""
    n_crops = len(inputs.inputs["pixel_values"]) - 1
    if n_crops == 0:
        return _crops_then_whole(inputs, 0, 0)
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    processor = inputs.processor
    n_columns, n_rows = get_optimal_tiled_canvas(
        inputs.lengths, inputs.canvas, processor.min_patches, processor.max_patches
    )
    if n_columns * n_rows != n_crops:
        raise inputs.refusal(f"{n_crops} crops where {n_rows} × {n_columns} are expected")
    return _crops_then_whole(inputs, n_rows, n_columns)


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
    """Tokens in a row after the pixel shuffle, which joins squares of patches; InternVL gives it as a ratio."""
    config = inputs.config
    factor = config.scale_factor if hasattr(config, "scale_factor") else round(1 / config.downsample_ratio)
    if n_patches % factor:
        raise inputs.refusal(f"{n_patches} patches in a row cannot be joined by {factor}")
    return n_patches // factor

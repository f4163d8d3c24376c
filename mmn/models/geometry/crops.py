"""The picture cut into crops of one canvas, and seen whole once more: InternVL, Granite Docling, Idefics 3, SmolVLM,
Ovis 2, Llama 4, MiniCPM-V.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from PIL import Image

from mmn.counts import counted
from mmn.models.geometry.grid_inputs import GridInputs, Line, spans
from mmn.models.geometry.grids import Cell, Grid, Grids, cells_of


def canvas_and_whole(inputs: GridInputs) -> Grids:
    """The picture squeezed onto a canvas of n × m square crops, row by row, then squeezed onto one (InternVL, Granite
    Docling).
    """
    return _crops_then_whole(inputs, *_canvas(inputs))


def _canvas(inputs: GridInputs) -> tuple[int, int]:
    """Rows and columns of crops; (0, 0) where the picture is seen whole alone."""
    n_crops = inputs.n_tiles - 1
    if n_crops == 0:
        return 0, 0
    processor = inputs.processor
    if hasattr(processor, "get_tile_grid"):  # Granite Docling: more crops for wide pages
        n_rows, n_columns = processor.get_tile_grid(*inputs.lengths)
    else:
        tiled = inputs.rule("get_optimal_tiled_canvas")
        n_columns, n_rows = tiled(inputs.lengths, inputs.canvas, processor.min_patches, processor.max_patches)
    if n_columns * n_rows != n_crops:
        raise inputs.refusal(f"{n_crops} crops where {n_rows} × {n_columns} are expected")
    return n_rows, n_columns


def split(inputs: GridInputs) -> Grids:
    """As `canvas_and_whole` by another rule (Idefics 3, SmolVLM): its processor is asked, over a blank picture."""
    asked = inputs.processor([[_blank(inputs)]], return_row_col_info=True)
    n_rows, n_columns = asked["rows"][0][0], asked["cols"][0][0]
    n_tiles = inputs.inputs["pixel_values"].shape[1]
    if n_rows * n_columns + 1 != n_tiles:
        raise inputs.refusal(f"{n_tiles - 1} crops where {n_rows} × {n_columns} are expected")
    return _crops_then_whole(inputs, n_rows, n_columns)


def whole_and_canvas(inputs: GridInputs) -> Grids:
    """The picture squeezed onto one square crop, then onto a canvas of some (Ovis 2): its processor is asked, too."""
    n_rows, n_columns = _asked(inputs, "grids")
    side, n_crops = _side(inputs, n_rows * n_columns)
    whole = Grid.even(side, side, inputs.whole)
    if n_crops == 1:
        return Grids((whole,), tuple(cells_of(0, whole)))
    canvas = Grid.even(n_rows * side, n_columns * side, inputs.whole)
    return Grids((whole, canvas), (*cells_of(0, whole), *crop_by_crop(1, (n_rows, n_columns), (side, side))))


def whole_and_slices(inputs: GridInputs) -> Grids:
    """The picture resized to whole patches; where it is large, also a canvas of n × m slices (MiniCPM-V).

    Patches are joined in squares, until there are as many as image tokens.
    """
    sizes = [tuple(map(int, size)) for size in inputs.inputs["target_sizes"]]
    n_rows, n_columns = _asked(inputs, "grids")
    if len(sizes) != 1 + n_rows * n_columns or len(set(sizes[1:])) > 1:
        raise inputs.refusal(f"parts of {sizes} patches where {n_rows} × {n_columns} equal slices are expected")
    n_patches = sum(rows * columns for rows, columns in sizes)
    factor = max(math.isqrt(n_patches // inputs.n_tokens), 1)
    whole = Grid.even(sizes[0][0] // factor, sizes[0][1] // factor, inputs.whole)
    if not n_rows:
        return Grids((whole,), tuple(cells_of(0, whole)))
    rows, columns = (n // factor for n in sizes[1])
    canvas = Grid.even(n_rows * rows, n_columns * columns, inputs.whole)
    cells = crop_by_crop(1, (n_rows, n_columns), (rows, columns))
    return Grids((whole, canvas), (*cells_of(0, whole), *cells))


def padded_canvas_and_whole(inputs: GridInputs) -> Grids:
    """The picture as it is, scaled into the first corner of a canvas of square crops, the rest of it empty; then
    squeezed onto one crop, where there are several (Llama 4).
    """
    n_rows, n_columns = _asked(inputs, "aspect_ratios")
    side, n_crops = _side(inputs, n_rows * n_columns)
    tile = inputs.canvas[0]
    fitted = _fitted(inputs, tile, n_rows, n_columns)
    rows, columns = (
        tuple(map(Line(0.0, length / new / side).to_picture, spans(n * side * tile, tile)))
        for length, new, n in zip(inputs.lengths, fitted, (n_rows, n_columns), strict=True)
    )
    canvas, cells = Grid(rows, columns), crop_by_crop(0, (n_rows, n_columns), (side, side))
    if n_crops == 1:
        return Grids((canvas,), tuple(cells))
    whole = Grid.even(side, side, inputs.whole)
    return Grids((canvas, whole), (*cells, *cells_of(1, whole)))


def _fitted(inputs: GridInputs, tile: int, n_rows: int, n_columns: int) -> tuple[int, int]:
    """(height, width) of the picture on the canvas, by the rule of the processor's own module."""
    fit = inputs.rule("get_max_res_without_distortion")
    height, width = n_rows * tile, n_columns * tile
    if not inputs.processor.resize_to_max_canvas:
        height, width = min(max(inputs.lengths[0], tile), height), min(max(inputs.lengths[1], tile), width)
    return fit(inputs.lengths, (height, width))


def _blank(inputs: GridInputs) -> Image.Image:
    return Image.new("RGB", inputs.picture_size)


def _asked(inputs: GridInputs, name: str) -> tuple[int, int]:
    """Rows and columns of crops that the processor says of a blank picture of that size."""
    said = inputs.processor([_blank(inputs)], return_tensors="pt")
    if name not in said:
        raise inputs.refusal(f"it does not say {name}")
    n_rows, n_columns = (int(n) for n in said[name][0])
    return n_rows, n_columns


def _side(inputs: GridInputs, n_in_canvas: int) -> tuple[int, int]:
    """Tokens in a row of a square crop, and how many crops there are: those of the canvas, and one of the whole."""
    n_crops = n_in_canvas + 1 if n_in_canvas > 1 else 1
    side = math.isqrt(inputs.n_tokens // n_crops)
    height, width = inputs.canvas
    if side * side * n_crops != inputs.n_tokens or height != width:
        raise inputs.refusal(f"{counted(inputs.n_tokens, 'image token')} are no {n_crops} squares")
    return side, n_crops


def crop_by_crop(tile: int, n_crops: tuple[int, int], crop: tuple[int, int]) -> Iterator[Cell]:
    """A canvas's cells in the order of its crops; (rows, columns) of crops, and of cells in each."""
    for crop_row, crop_column, row, column in itertools.product(*map(range, (*n_crops, *crop))):
        yield Cell(tile, crop_row * crop[0] + row, crop_column * crop[1] + column)


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
    cells = crop_by_crop(0, (n_rows, n_columns), (side, side))
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
    for holder, name in (
        (config, "scale_factor"),
        (config, "downsample_factor"),
        (config.vision_config, "scale_factor"),
    ):
        if hasattr(holder, name):
            return int(getattr(holder, name))
    return round(1 / config.downsample_ratio)

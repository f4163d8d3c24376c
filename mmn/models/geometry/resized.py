"""A picture resized to whole patches, whatever its sides, with as many image tokens as it then has.

Mistral 3 and Pixtral, Gemma 4, LFM2, Nemotron, MiniCPM OCR; in Fuyu and Kimi K2.5 the picture's own pixels, padded on
the right and below.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from mmn.counts import counted
from mmn.models.geometry.grid_inputs import GridInputs, Line, spans
from mmn.models.geometry.grids import Axis, Grid, Grids, cells_of
from mmn.models.geometry.whole import merged_shape

# By the name of what a processor says of its grid: one pair (rows, columns) of patches or pixels for each tile.
_SAID: Final[dict[str, Callable[[Any], list[list[int]]]]] = {
    "image_sizes": lambda said: said.tolist(),
    "image_grid_hw": lambda said: said.tolist(),
    "spatial_shapes": lambda said: said.tolist(),
    "target_sizes": lambda said: said.tolist(),
    "image_position_ids": lambda said: [[int(said[..., 1].max()) + 1, int(said[..., 0].max()) + 1]],
}


def resized(inputs: GridInputs) -> Grids:
    """Even tokens over the whole picture, row by row: as many rows and columns as the processor says, joined in squares
    until there are as many as image tokens.
    """
    rows, columns = _said(inputs)
    factor = math.isqrt(rows * columns // inputs.n_tokens)
    if factor * factor * inputs.n_tokens != rows * columns or rows % factor or columns % factor:
        raise inputs.refusal(f"{counted(inputs.n_tokens, 'image token')} are no squares of {rows} × {columns}")
    grid = Grid.even(rows // factor, columns // factor, inputs.whole)
    return Grids((grid,), tuple(cells_of(0, grid)))


def own_pixels(inputs: GridInputs) -> Grids:
    """Patches of the picture's own pixels, which are only scaled down, to fit what the processor takes at most."""
    most = dict(inputs.processor.size)
    scale = min(1.0, *(int(most[side]) / length for side, length in zip(_SIDES, inputs.lengths, strict=True)))
    fitted = tuple(int(length * scale) if scale < 1 else length for length in inputs.lengths)
    patch = int(dict(inputs.processor.patch_size)["height"])
    padded = tuple(math.ceil(new / patch) * patch for new in fitted)
    grid = Grid(*_from_first_corner(inputs, fitted, padded, patch))
    return Grids((grid,), tuple(cells_of(0, grid)))


def padded_squares(inputs: GridInputs) -> Grids:
    """Squares of merged patches of the picture's own pixels, scaled down where they are too many; what is missing on
    the right and below is padded (Kimi K2.5).
    """
    processor = inputs.processor
    if not processor.do_resize:
        raise inputs.refusal("it does not resize pictures, which was not checked")
    fitted, padded = inputs.rule("navit_resize")(
        *inputs.lengths, processor.patch_size, processor.merge_size, processor.max_patches, processor.size["max_height"]
    )
    square = processor.patch_size * processor.merge_size
    grid = Grid(*_from_first_corner(inputs, fitted, padded, square))
    if grid.shape != merged_shape(inputs):
        raise inputs.refusal(f"image_grid_thw is {inputs.inputs['image_grid_thw'].tolist()}, not of {padded} pixels")
    return Grids((grid,), tuple(cells_of(0, grid)))


def _from_first_corner(
    inputs: GridInputs, fitted: tuple[int, ...], padded: tuple[int, ...], square: int
) -> tuple[Axis, Axis]:
    """Squares of pixels over a canvas `padded`, in whose first corner the picture lies `fitted`: (height, width)."""
    rows, columns = (
        tuple(map(Line(0.0, length / new).to_picture, spans(n_pixels, square)))
        for length, new, n_pixels in zip(inputs.lengths, fitted, padded, strict=True)
    )
    return rows, columns


_SIDES: Final = ("height", "width")


def _said(inputs: GridInputs) -> tuple[int, int]:
    """Rows and columns, of patches or of pixels, that the picture was resized to."""
    name = next((one for one in _SAID if one in inputs.inputs), None)
    if name is None:
        raise inputs.refusal(f"its processor gives none of {', '.join(_SAID)}")
    found = _SAID[name](inputs.inputs[name])
    if len(found) != 1:
        raise inputs.refusal(f"it cuts the picture into {len(found)} parts, which was not checked")
    return found[0][0], found[0][1]

"""A picture resized to whole patches, whatever its sides, with as many image tokens as it then has.

Mistral 3 and Pixtral, Gemma 4, LFM2, Nemotron, MiniCPM OCR; in Fuyu the picture's own pixels, padded on the right and
below.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from mmn.models.geometry.grid_inputs import GridInputs, Line, spans
from mmn.models.geometry.grids import Grid, Grids, cells_of

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
        raise inputs.refusal(f"{inputs.n_tokens} image tokens are no squares of {rows} × {columns}")
    grid = Grid.even(rows // factor, columns // factor, inputs.whole)
    return Grids((grid,), tuple(cells_of(0, grid)))


def own_pixels(inputs: GridInputs) -> Grids:
    """Patches of the picture's own pixels, which are only scaled down, to fit what the processor takes at most."""
    most = dict(inputs.processor.size)
    scale = min(1.0, *(int(most[side]) / length for side, length in zip(_SIDES, inputs.lengths, strict=True)))
    fitted = [int(length * scale) if scale < 1 else length for length in inputs.lengths]
    patch = int(dict(inputs.processor.patch_size)["height"])
    rows, columns = (
        tuple(map(Line(0.0, length / new).to_picture, spans(math.ceil(new / patch) * patch, patch)))
        for length, new in zip(inputs.lengths, fitted, strict=True)
    )
    grid = Grid(rows, columns)
    return Grids((grid,), tuple(cells_of(0, grid)))


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

"""The picture squeezed onto a square, then fitted to a canvas of squares and unpadded: LLaVA-NeXT, LLaVA-OneVision,
Granite 4 Vision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from mmn.models.geometry.grid_inputs import GridInputs, Line, spans
from mmn.models.geometry.grids import Axis, Cell, Grid, Grids, cells_of, even

_SHRINK_FROM: Final = 1.1  # LLaVA-OneVision shrinks a canvas that is over its budget of tokens by more than this
_UNPAD_DIGITS: Final = 7  # LLaVA-NeXT rounds to so many digits before it cuts padding off


def any_resolution_with_class_token(inputs: GridInputs) -> Grids:
    """The same over a picture encoder that may have a class token, which must not be among the patches."""
    from mmn.models.adapters import CLASS_TOKENS  # torch

    is_whole = getattr(inputs.config, "vision_feature_select_strategy", None) == "full"
    if is_whole and CLASS_TOKENS.get(inputs.config.vision_config.model_type):
        raise inputs.refusal("vision_feature_select_strategy 'full' keeps class tokens among the patches")
    return any_resolution(inputs)


def any_resolution(inputs: GridInputs) -> Grids:
    """The picture squeezed onto one square; then, on a canvas of squares, fitted, padded and unpadded again.

    LLaVA-NeXT and LLaVA-OneVision (`pack_image_features` of their models). After each row of the canvas comes a token
    that ends it. The model cuts the padding off in whole tokens, so the outermost may still show some of it.
    """
    from transformers.image_processing_utils import select_best_resolution

    config, side = inputs.config, int(inputs.config.vision_config.image_size)
    pinpoints = [list(size) for size in config.image_grid_pinpoints]
    if pinpoints != [list(size) for size in inputs.processor.image_grid_pinpoints]:
        raise inputs.refusal("processor and model have different image_grid_pinpoints")
    inputs.require_canvas((side, side))
    canvas = select_best_resolution(inputs.lengths, pinpoints)
    crop = _square(inputs, side)
    whole = Grid(*(tuple(Line(0.0, length / side).to_picture(span) for span in crop) for length in inputs.lengths))
    fitted = Grid(*_unpadded(inputs, canvas, crop))
    n_rows, n_columns = fitted.shape
    ratio = _shrinkage(inputs, n_rows * n_columns, len(crop))
    if ratio > _SHRINK_FROM:  # averaged over neighbours: even tokens over the same box, true to half a token
        fitted = Grid.even(int(n_rows // ratio), int(n_columns // ratio), fitted.box)
    n_rows, n_columns = fitted.shape
    cells: list[Cell | None] = list(cells_of(0, whole))
    for row in range(n_rows):
        cells += [Cell(1, row, column) for column in range(n_columns)]
        cells.append(None)
    return Grids((whole, fitted), tuple(cells))


def _square(inputs: GridInputs, side: int) -> Axis:
    """The tokens along a square: patches, or fewer, that a Q-Former draws from windows of them (Granite 4 Vision)."""
    patches = spans(side, inputs.patch_size)
    n = int(len(patches) * Fraction(getattr(inputs.config, "downsample_rate", None) or 1))
    return patches if n == len(patches) else even(n, 0.0, patches[-1][1])


def _unpadded(inputs: GridInputs, canvas: Sequence[int], crop: Axis) -> tuple[Axis, Axis]:
    """The canvas's axes, in the picture's pixels, without the tokens that the model cuts off as padding."""
    height, width = inputs.lengths
    side = inputs.canvas[0]
    is_wide = canvas[1] / width < canvas[0] / height  # processor: the width fills the canvas
    scale = canvas[1] / width if is_wide else canvas[0] / height
    fitted = (min(math.ceil(height * scale), canvas[0]), canvas[1]) if is_wide else None
    fitted = fitted or (canvas[0], min(math.ceil(width * scale), canvas[1]))
    n_tokens = [length // side * len(crop) for length in canvas]
    is_cut_in_height = width / height > n_tokens[1] / n_tokens[0]  # model: of the aspect ratios
    axes: list[Axis] = []
    for axis, length in enumerate(inputs.lengths):
        line = Line((canvas[axis] - fitted[axis]) // 2, length / fitted[axis])
        stretches = [(start + at, end + at) for at in range(0, canvas[axis], side) for start, end in crop]
        n_cut = 0
        if is_cut_in_height == (axis == 0):
            across = n_tokens[1 - axis] / inputs.lengths[1 - axis]
            n_cut = (n_tokens[axis] - int(round(length * across, _UNPAD_DIGITS))) // 2
        axes.append(tuple(map(line.to_picture, stretches[n_cut : len(stretches) - n_cut])))
    return axes[0], axes[1]


def _shrinkage(inputs: GridInputs, n_tokens: int, side: int) -> float:
    """How far the canvas is over its budget, by side (LLaVA-OneVision: `anyres_max_9` is nine squares); else 0."""
    budget = getattr(inputs.config, "vision_aspect_ratio", None)
    if budget is None:
        return 0.0
    prefix = "anyres_max_"
    if not budget.startswith(prefix):
        raise inputs.refusal(f"vision_aspect_ratio {budget!r} is not of the form {prefix}9")
    return math.sqrt(n_tokens / (int(budget.removeprefix(prefix)) * side**2))

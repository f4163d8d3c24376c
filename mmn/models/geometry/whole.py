"""One grid over the whole picture: a token for each patch, or for each square of merged patches."""

from __future__ import annotations

from typing import Final

from mmn.models.geometry.grid_inputs import GridInputs, Line, spans
from mmn.models.geometry.grids import Cell, Grid, Grids, cells_of

_CHECKED_PROCESSORS: Final = ("Beit", "CLIP", "Llava", "Siglip")  # for `patches`: resize, pad, crop, no more


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


def merged(inputs: GridInputs) -> Grids:
    """The whole picture, resized to a multiple of merged patches; as many as fit the picture (Qwen2-VL)."""
    n_frames, n_rows, n_columns = (int(n) for n in inputs.inputs["image_grid_thw"][0])
    merge = int(inputs.processor.merge_size)
    if n_frames != 1 or len(inputs.inputs["image_grid_thw"]) != 1 or n_rows % merge or n_columns % merge:
        raise inputs.refusal(f"image_grid_thw is {inputs.inputs['image_grid_thw'].tolist()} at merge size {merge}")
    grid = Grid.even(n_rows // merge, n_columns // merge, inputs.whole)
    return Grids((grid,), tuple(cells_of(0, grid)))


def _lines(inputs: GridInputs) -> tuple[Line, Line]:
    """The two axes of a processor that resizes, perhaps after padding to a square, perhaps before a middle crop.

    Sizes are rounded as in transformers' `get_resize_output_image_size` and `center_crop`.
    """
    processor = inputs.processor
    kind = type(processor).__name__.removesuffix("Pil").removesuffix("ImageProcessor")
    if kind not in _CHECKED_PROCESSORS or not processor.do_resize:
        raise inputs.refusal(f"checked are those of {', '.join(_CHECKED_PROCESSORS)}, with resizing")
    is_padded = bool(getattr(processor, "do_pad", False))
    if is_padded and kind != "Llava":
        raise inputs.refusal("it pads pictures in a way that was not checked")
    padded = (max(inputs.lengths),) * 2 if is_padded else inputs.lengths
    resized = _resized(inputs, padded)
    crop = processor.crop_size if getattr(processor, "do_center_crop", False) else None
    canvas = resized if crop is None else (int(crop["height"]), int(crop["width"]))
    if any(kept > length for kept, length in zip(canvas, resized, strict=True)):
        raise inputs.refusal(f"it crops {canvas} pixels (height, width) from a picture of only {resized}")
    inputs.require_canvas(canvas)
    row, column = (
        Line(((full - length) // 2) * new / full - (new - kept) // 2, full / new)
        for length, full, new, kept in zip(inputs.lengths, padded, resized, canvas, strict=True)
    )
    return row, column


def _resized(inputs: GridInputs, lengths: tuple[int, int]) -> tuple[int, int]:
    """(height, width) after resizing: to a size, or with the shorter side to a length."""
    size = dict(inputs.processor.size)
    if set(size) == {"height", "width"}:
        return int(size["height"]), int(size["width"])
    if set(size) == {"shortest_edge"}:
        short, long = int(size["shortest_edge"]), int(size["shortest_edge"] * max(lengths) / min(lengths))
        return (long, short) if lengths[1] <= lengths[0] else (short, long)
    raise inputs.refusal(f"it resizes to {size}")

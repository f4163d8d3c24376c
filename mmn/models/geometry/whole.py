"""One grid over the whole picture: a token for each patch, or for each square of merged patches."""

from __future__ import annotations

from typing import Final

from mmn.models.geometry.grids import Cell, Grid, Grids, cells_of
from mmn.models.geometry.seen import Line, Seen, spans

_CHECKED_PROCESSORS: Final = ("Beit", "CLIP", "Llava", "Siglip")  # for `patches`: resize, pad, crop, no more


def patches(seen: Seen) -> Grids:
    """One canvas, resized, perhaps padded to a square or cropped around its middle; a token for each patch."""
    rows, columns = (
        tuple(map(line.to_picture, spans(length, seen.patch_size)))
        for line, length in zip(_lines(seen), seen.canvas, strict=True)
    )
    grid = Grid(rows, columns)
    cells: list[Cell | None] = list(cells_of(0, grid))
    n_more = seen.n_tokens - len(cells)
    if n_more == 1 and getattr(seen.config, "vision_feature_select_strategy", None) == "full":
        cells.insert(0, None)  # the tower's class token comes first
    return Grids((grid,), tuple(cells))


def merged(seen: Seen) -> Grids:
    """The whole picture, resized to a multiple of merged patches; as many as fit the picture (Qwen2-VL)."""
    n_frames, n_rows, n_columns = (int(n) for n in seen.inputs["image_grid_thw"][0])
    merge = int(seen.processor.merge_size)
    if n_frames != 1 or len(seen.inputs["image_grid_thw"]) != 1 or n_rows % merge or n_columns % merge:
        raise seen.refusal(f"image_grid_thw is {seen.inputs['image_grid_thw'].tolist()} at merge size {merge}")
    grid = Grid.even(n_rows // merge, n_columns // merge, seen.whole)
    return Grids((grid,), tuple(cells_of(0, grid)))


def _lines(seen: Seen) -> tuple[Line, Line]:
    """The two axes of a processor that resizes, perhaps after padding to a square, perhaps before a middle crop.

    Sizes are rounded as in transformers' `get_resize_output_image_size` and `center_crop`.
    """
    processor = seen.processor
    kind = type(processor).__name__.removesuffix("Pil").removesuffix("ImageProcessor")
    if kind not in _CHECKED_PROCESSORS or not processor.do_resize:
        raise seen.refusal(f"checked are those of {', '.join(_CHECKED_PROCESSORS)}, with resizing")
    is_padded = bool(getattr(processor, "do_pad", False))
    if is_padded and kind != "Llava":
        raise seen.refusal("it pads pictures in a way that was not checked")
    padded = (max(seen.lengths),) * 2 if is_padded else seen.lengths
    resized = _resized(seen, padded)
    crop = processor.crop_size if getattr(processor, "do_center_crop", False) else None
    canvas = resized if crop is None else (int(crop["height"]), int(crop["width"]))
    if any(kept > length for kept, length in zip(canvas, resized, strict=True)):
        raise seen.refusal(f"it crops {canvas} pixels (height, width) from a picture of only {resized}")
    seen.require_canvas(canvas)
    row, column = (
        Line(((full - length) // 2) * new / full - (new - kept) // 2, full / new)
        for length, full, new, kept in zip(seen.lengths, padded, resized, canvas, strict=True)
    )
    return row, column


def _resized(seen: Seen, lengths: tuple[int, int]) -> tuple[int, int]:
    """(height, width) after resizing: to a size, or with the shorter side to a length."""
    size = dict(seen.processor.size)
    if set(size) == {"height", "width"}:
        return int(size["height"]), int(size["width"])
    if set(size) == {"shortest_edge"}:
        short, long = int(size["shortest_edge"]), int(size["shortest_edge"] * max(lengths) / min(lengths))
        return (long, short) if lengths[1] <= lengths[0] else (short, long)
    raise seen.refusal(f"it resizes to {size}")

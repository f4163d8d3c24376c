"""Where in the displayed picture each image token comes from: the processor's resize, padding, crop and tiles undone.

Every processor here treats the two axes alike and apart, so a grid is two axes, and an axis is a row of spans: the
stretch of the picture, in its own pixels, that one row or column of tokens was made from. Resizing scales spans,
cropping and padding shift them, merging patches joins them; nothing is sampled.

    picture ─► canvas (resized, padded, cropped) ─► patches ─► merged patches = tokens
            ◄─ pixels_of_canvas                  ◄─ _spans (patch_size, merge)

A family names its kind of grid as data (`Family.grid`), a row of `GRIDS`. What no test has checked against the real
processor, with a bright square planted in a black picture, is refused: a heat map that is shifted by half a picture
still looks right.

Left out: several pictures in one prompt, video, and models whose image tokens have no place (a Q-Former's queries).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mmn.errors import UsageError

if TYPE_CHECKING:
    from mmn.models import Model  # torch, which geometry itself does without

Box = tuple[float, float, float, float]  # x0, y0, x1, y1
Axis = tuple[tuple[float, float], ...]  # (from, to) of each row or column of tokens

IMAGE_TOKEN_NAMES: Final = ("image_token_id", "image_token_index", "image_patch_id")
_CHECKED_PROCESSORS: Final = ("CLIP", "Llava", "Siglip")  # for `patches`: resize, pad to a square and crop, no more
_SHRINK_FROM: Final = 1.1  # LLaVA-OneVision shrinks a canvas that is over its budget of tokens by more than this
_UNPAD_DIGITS: Final = 7  # LLaVA-NeXT rounds to so many digits before it cuts padding off


@dataclass(frozen=True)
class Grid:
    """Image tokens in rows and columns; `rows[i]` is the span of y, `columns[j]` of x, in pixels of the picture.

    Spans are edges, not centres: pixel 0 is the span (0, 1). They exceed the picture where the processor padded it,
    and end inside where it cropped it. Neighbours may leave a gap (pixels that make no whole patch).
    """

    rows: Axis
    columns: Axis

    @classmethod
    def even(cls, n_rows: int, n_columns: int, box: Box) -> Grid:
        """`n_rows` × `n_columns` equal tokens that tile `box`."""
        x0, y0, x1, y1 = box
        return cls(_even(n_rows, y0, y1), _even(n_columns, x0, x1))

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), len(self.columns)

    @property
    def box(self) -> Box:
        """(x0, y0, x1, y1) of all tokens together."""
        return self.columns[0][0], self.rows[0][0], self.columns[-1][1], self.rows[-1][1]

    def cell(self, row: int, column: int) -> Box:
        """(x0, y0, x1, y1) of one token."""
        (x0, x1), (y0, y1) = self.columns[column], self.rows[row]
        return x0, y0, x1, y1


@dataclass(frozen=True)
class Cell:
    """The place of one image token: row and column of grid `tile`."""

    tile: int
    row: int
    column: int


@dataclass(frozen=True)
class Grids:
    """All grids of one picture, and the place of each image token in the order of the prompt.

    `cells[i]` is None for a token that stands for no place: the end of a row (LLaVA-NeXT), a class token.
    """

    tiles: tuple[Grid, ...]
    cells: tuple[Cell | None, ...]

    def __post_init__(self) -> None:
        placed = [cell for cell in self.cells if cell is not None]
        n_cells = sum(len(grid.rows) * len(grid.columns) for grid in self.tiles)
        assert len(set(placed)) == len(placed) == n_cells, (len(set(placed)), len(placed), n_cells)

    def box_of(self, token: int) -> Box | None:
        """The stretch of the picture behind image token `token`; None if it stands for no place."""
        cell = self.cells[token]
        return None if cell is None else self.tiles[cell.tile].cell(cell.row, cell.column)


def image_grid(model: Model, inputs: Mapping[str, Any], picture_size: tuple[int, int]) -> Grids:
    """The grids of the one picture in `inputs`, in the order of its image tokens.

    Args:
        model: gives the family's kind of grid, the configuration and the image processor.
        inputs: what `model.encode` made of one prompt and one picture.
        picture_size: (width, height) of the picture as it is displayed, which is as it was handed to the processor.

    Raises:
        UsageError: the family's image tokens have no place, or the geometry of this model or processor is none that
            was checked.
    """
    family = model.family
    if family.grid not in GRIDS:
        reason = WITHOUT_GRID.get(family.grid, f"no geometry is declared for them ({family.grid!r})")
        raise UsageError(f"where units of a {family.model_type} model look cannot be shown: {reason}")
    n_tokens = len(image_token_positions(model, inputs))
    seen = _Seen(model.module.config, model.processor.image_processor, inputs, picture_size, n_tokens)
    grids = GRIDS[family.grid](seen)
    if len(grids.cells) != n_tokens:
        raise seen.refusal(f"its grids have {len(grids.cells)} tokens and the prompt has {n_tokens}")
    return grids


def image_token_positions(model: Model, inputs: Mapping[str, Any]) -> list[int]:
    """Positions of the image tokens in the one prompt of `inputs`.

    Raises:
        UsageError: the configuration names no image token.
    """
    ids = inputs["input_ids"]
    assert ids.shape[0] == 1, f"{ids.shape[0]} prompts where one is meant"
    config = model.module.config
    for name in IMAGE_TOKEN_NAMES:
        image_token = getattr(config, name, None)
        if image_token is not None:
            return [position for position, token in enumerate(ids[0].tolist()) if token == image_token]
    raise UsageError(
        f"a {model.family.model_type} model has no image tokens in its prompt: there is nothing to look at"
    )


@dataclass(frozen=True)
class _Seen:
    """What a kind of grid is worked out from."""

    config: Any
    processor: Any
    inputs: Mapping[str, Any]
    picture_size: tuple[int, int]
    n_tokens: int

    @property
    def lengths(self) -> tuple[int, int]:
        """(height, width) of the picture: the axes in the order of rows, columns."""
        width, height = self.picture_size
        return height, width

    @property
    def whole(self) -> Box:
        width, height = self.picture_size
        return 0.0, 0.0, float(width), float(height)

    @property
    def canvas(self) -> tuple[int, int]:
        """(height, width) of what the vision tower is given, one tile of it."""
        height, width = self.inputs["pixel_values"].shape[-2:]
        return int(height), int(width)

    @property
    def patch_size(self) -> int:
        size = self.config.vision_config.patch_size
        if isinstance(size, int):
            return size
        if len(set(size)) > 1:
            raise self.refusal(f"its patches are {size[0]} × {size[1]} pixels, not square")
        return int(size[0])

    def refusal(self, reason: str) -> UsageError:
        name = type(self.processor).__name__
        return UsageError(
            f"where its image tokens lie is not known for this {self.config.model_type} model with {name}: {reason}"
        )

    def require_canvas(self, expected: tuple[int, int]) -> None:
        if self.canvas != expected:
            raise self.refusal(f"it gave the model {self.canvas} pixels (height, width), not {expected}")


def _patches(seen: _Seen) -> Grids:
    """One canvas, resized, perhaps padded to a square or cropped around its middle; a token for each patch."""
    rows, columns = (
        tuple(map(line.to_picture, _spans(length, seen.patch_size)))
        for line, length in zip(_lines(seen), seen.canvas, strict=True)
    )
    grid = Grid(rows, columns)
    cells: list[Cell | None] = list(_cells(0, grid))
    n_more = seen.n_tokens - len(cells)
    if n_more == 1 and getattr(seen.config, "vision_feature_select_strategy", None) == "full":
        cells.insert(0, None)  # the tower's class token comes first
    return Grids((grid,), tuple(cells))


def _merged(seen: _Seen) -> Grids:
    """The whole picture, resized to a multiple of merged patches; as many as fit the picture (Qwen2-VL)."""
    n_frames, n_rows, n_columns = (int(n) for n in seen.inputs["image_grid_thw"][0])
    merge = int(seen.processor.merge_size)
    if n_frames != 1 or len(seen.inputs["image_grid_thw"]) != 1 or n_rows % merge or n_columns % merge:
        raise seen.refusal(f"image_grid_thw is {seen.inputs['image_grid_thw'].tolist()} at merge size {merge}")
    grid = Grid.even(n_rows // merge, n_columns // merge, seen.whole)
    return Grids((grid,), tuple(_cells(0, grid)))


def _canvas_and_whole(seen: _Seen) -> Grids:
    """The picture squeezed onto a canvas of n × m square crops, row by row, then squeezed onto one (InternVL)."""
    n_crops = len(seen.inputs["pixel_values"]) - 1
    if n_crops == 0:
        return _crops_then_whole(seen, 0, 0)
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    processor = seen.processor
    n_columns, n_rows = get_optimal_tiled_canvas(
        seen.lengths, seen.canvas, processor.min_patches, processor.max_patches
    )
    if n_columns * n_rows != n_crops:
        raise seen.refusal(f"{n_crops} crops where {n_rows} × {n_columns} are expected")
    return _crops_then_whole(seen, n_rows, n_columns)


def _split(seen: _Seen) -> Grids:
    """As `_canvas_and_whole` by another rule (Idefics 3, SmolVLM): its processor is asked, over a blank picture."""
    from PIL import Image

    blank = Image.new("RGB", seen.picture_size)
    asked = seen.processor([[blank]], return_row_col_info=True)
    n_rows, n_columns = asked["rows"][0][0], asked["cols"][0][0]
    n_tiles = seen.inputs["pixel_values"].shape[1]
    if n_rows * n_columns + 1 != n_tiles:
        raise seen.refusal(f"{n_tiles - 1} crops where {n_rows} × {n_columns} are expected")
    return _crops_then_whole(seen, n_rows, n_columns)


def _crops_then_whole(seen: _Seen, n_rows: int, n_columns: int) -> Grids:
    """Crops of one canvas become one grid: its tokens come crop by crop. The grid of the whole picture is last."""
    height, width = seen.canvas
    if height != width or height % seen.patch_size:
        raise seen.refusal(f"tiles of {seen.canvas} pixels (height, width) are no square of whole patches")
    side = _after_shuffle(seen, height // seen.patch_size)
    whole = Grid.even(side, side, seen.whole)
    if not n_rows:
        return Grids((whole,), tuple(_cells(0, whole)))
    canvas = Grid.even(n_rows * side, n_columns * side, seen.whole)
    cells = [
        Cell(0, crop_row * side + row, crop_column * side + column)
        for crop_row in range(n_rows)
        for crop_column in range(n_columns)
        for row in range(side)
        for column in range(side)
    ]
    return Grids((canvas, whole), (*cells, *_cells(1, whole)))


def _after_shuffle(seen: _Seen, n_patches: int) -> int:
    """Tokens in a row after the pixel shuffle, which joins squares of patches; InternVL gives it as a ratio."""
    config = seen.config
    factor = config.scale_factor if hasattr(config, "scale_factor") else round(1 / config.downsample_ratio)
    if n_patches % factor:
        raise seen.refusal(f"{n_patches} patches in a row cannot be joined by {factor}")
    return n_patches // factor


def _any_resolution_with_class_token(seen: _Seen) -> Grids:
    """The same over a picture encoder that has a class token, which must not be among the patches."""
    if getattr(seen.config, "vision_feature_select_strategy", None) == "full":
        raise seen.refusal("vision_feature_select_strategy 'full' keeps class tokens among the patches")
    return _any_resolution(seen)


def _any_resolution(seen: _Seen) -> Grids:
    """The picture squeezed onto one square; then, on a canvas of squares, fitted, padded and unpadded again.

    LLaVA-NeXT and LLaVA-OneVision (`pack_image_features` of their models). After each row of the canvas comes a token
    that ends it. The model cuts the padding off in whole tokens, so the outermost may still show some of it.
    """
    from transformers.image_processing_utils import select_best_resolution

    config, side = seen.config, int(seen.config.vision_config.image_size)
    pinpoints = [list(size) for size in config.image_grid_pinpoints]
    if pinpoints != [list(size) for size in seen.processor.image_grid_pinpoints]:
        raise seen.refusal("processor and model have different image_grid_pinpoints")
    seen.require_canvas((side, side))
    canvas = select_best_resolution(seen.lengths, pinpoints)
    crop = _spans(side, seen.patch_size)
    whole = Grid(*(tuple(_Line(0.0, length / side).to_picture(span) for span in crop) for length in seen.lengths))
    fitted = Grid(*_unpadded(seen, canvas, crop))
    n_rows, n_columns = fitted.shape
    ratio = _shrinkage(seen, n_rows * n_columns, len(crop))
    if ratio > _SHRINK_FROM:  # averaged over neighbours: even tokens over the same box, true to half a token
        fitted = Grid.even(int(n_rows // ratio), int(n_columns // ratio), fitted.box)
    n_rows, n_columns = fitted.shape
    cells: list[Cell | None] = list(_cells(0, whole))
    for row in range(n_rows):
        cells += [Cell(1, row, column) for column in range(n_columns)]
        cells.append(None)
    return Grids((whole, fitted), tuple(cells))


def _unpadded(seen: _Seen, canvas: Sequence[int], crop: Axis) -> tuple[Axis, Axis]:
    """The canvas's axes, in the picture's pixels, without the tokens that the model cuts off as padding."""
    height, width = seen.lengths
    side = seen.canvas[0]
    is_wide = canvas[1] / width < canvas[0] / height  # processor: the width fills the canvas
    scale = canvas[1] / width if is_wide else canvas[0] / height
    fitted = (min(math.ceil(height * scale), canvas[0]), canvas[1]) if is_wide else None
    fitted = fitted or (canvas[0], min(math.ceil(width * scale), canvas[1]))
    n_tokens = [length // side * len(crop) for length in canvas]
    is_cut_in_height = width / height > n_tokens[1] / n_tokens[0]  # model: of the aspect ratios
    axes: list[Axis] = []
    for axis, length in enumerate(seen.lengths):
        line = _Line((canvas[axis] - fitted[axis]) // 2, length / fitted[axis])
        spans = [(start + at, end + at) for at in range(0, canvas[axis], side) for start, end in crop]
        n_cut = 0
        if is_cut_in_height == (axis == 0):
            across = n_tokens[1 - axis] / seen.lengths[1 - axis]
            n_cut = (n_tokens[axis] - int(round(length * across, _UNPAD_DIGITS))) // 2
        axes.append(tuple(map(line.to_picture, spans[n_cut : len(spans) - n_cut])))
    return axes[0], axes[1]


def _shrinkage(seen: _Seen, n_tokens: int, side: int) -> float:
    """How far the canvas is over its budget, by side (LLaVA-OneVision: `anyres_max_9` is nine squares); else 0."""
    budget = getattr(seen.config, "vision_aspect_ratio", None)
    if budget is None:
        return 0.0
    prefix = "anyres_max_"
    if not budget.startswith(prefix):
        raise seen.refusal(f"vision_aspect_ratio {budget!r} is not of the form {prefix}9")
    return math.sqrt(n_tokens / (int(budget.removeprefix(prefix)) * side**2))


GRIDS: Final[dict[str, Callable[[_Seen], Grids]]] = {
    "patches": _patches,
    "merged": _merged,
    "canvas": _canvas_and_whole,
    "split": _split,
    "any-resolution": _any_resolution,
    "any-resolution with class token": _any_resolution_with_class_token,
}
WITHOUT_GRID: Final = {
    "queries": "its image tokens are a Q-Former's queries, each of which sees the whole picture",
}


@dataclass(frozen=True)
class _Line:
    """One axis of the way from canvas to picture: a canvas pixel x is (x - start) · scale of the picture."""

    start: float
    scale: float

    def to_picture(self, span: tuple[float, float]) -> tuple[float, float]:
        return (span[0] - self.start) * self.scale, (span[1] - self.start) * self.scale


def _lines(seen: _Seen) -> tuple[_Line, _Line]:
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
        _Line(((full - length) // 2) * new / full - (new - kept) // 2, full / new)
        for length, full, new, kept in zip(seen.lengths, padded, resized, canvas, strict=True)
    )
    return row, column


def _resized(seen: _Seen, lengths: tuple[int, int]) -> tuple[int, int]:
    """(height, width) after resizing: to a size, or with the shorter side to a length."""
    size = dict(seen.processor.size)
    if set(size) == {"height", "width"}:
        return int(size["height"]), int(size["width"])
    if set(size) == {"shortest_edge"}:
        short, long = int(size["shortest_edge"]), int(size["shortest_edge"] * max(lengths) / min(lengths))
        return (long, short) if lengths[1] <= lengths[0] else (short, long)
    raise seen.refusal(f"it resizes to {size}")


def _spans(n_pixels: int, patch_size: int) -> Axis:
    """The whole patches along a canvas, in its pixels; a remainder at the end is what the vision tower leaves out."""
    return tuple((float(k * patch_size), float((k + 1) * patch_size)) for k in range(n_pixels // patch_size))


def _even(n: int, start: float, end: float) -> Axis:
    edges = [start + (end - start) * k / n for k in range(n + 1)]
    return tuple(itertools.pairwise(edges))


def _cells(tile: int, grid: Grid) -> list[Cell]:
    """A grid's places row by row."""
    return [Cell(tile, row, column) for row in range(len(grid.rows)) for column in range(len(grid.columns))]

"""The kinds of grids of image tokens, and the way in: `image_grid`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from mmn.counts import counted
from mmn.errors import UsageError
from mmn.models.geometry.any_resolution import any_resolution, any_resolution_with_class_token
from mmn.models.geometry.crops import (
    canvas_and_whole,
    padded_canvas_and_whole,
    split,
    whole_and_canvas,
    whole_and_slices,
)
from mmn.models.geometry.ended_rows import canvas_and_padded, ended_rows
from mmn.models.geometry.grid_inputs import GridInputs
from mmn.models.geometry.grids import Grids
from mmn.models.geometry.resized import own_pixels, padded_squares, resized
from mmn.models.geometry.whole import cropped_square, encoder, merged, patches, squared
from mmn.models.geometry.windows import whole_and_overlapping, windows_and_whole
from mmn.safety.boundary import Translated

if TYPE_CHECKING:
    from mmn.models.model import Model  # torch, which geometry itself does without

GRIDS: Final[dict[str, Callable[[GridInputs], Grids]]] = {
    "patches": patches,
    "encoder": encoder,
    "merged": merged,
    "squared": squared,
    "cropped square": cropped_square,
    "canvas": canvas_and_whole,
    "split": split,
    "whole and canvas": whole_and_canvas,
    "padded canvas": padded_canvas_and_whole,
    "whole and slices": whole_and_slices,
    "windows": windows_and_whole,
    "overlapping windows": whole_and_overlapping,
    "ended rows": ended_rows,
    "canvas and padded": canvas_and_padded,
    "resized": resized,
    "own pixels": own_pixels,
    "padded squares": padded_squares,
    "any-resolution": any_resolution,
    "any-resolution with class token": any_resolution_with_class_token,
}
WITHOUT_GRID: Final = {
    "queries": "its image tokens are queries (a Q-Former's, an abstractor's), each of which sees the whole picture",
    "cross-attention": "its pictures are seen by cross-attention: there are no image tokens in the decoder",
}
READ_BY_ENCODER: Final = "an encoder reads its picture, and scores are of the units of its decoder"


def why_no_places(model: Model) -> str:
    """Why image tokens have no place in the picture; "" where they have, or where it was not checked."""
    return READ_BY_ENCODER if model.has_encoder else WITHOUT_GRID.get(model.family.grid, "")


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
        reason = why_no_places(model) or f"no geometry is declared for them ({family.grid!r})"
        raise UsageError(f"where units of a {family.model_type} model look cannot be shown: {reason}")
    from mmn.models.image_tokens import image_positions  # imports torch

    n_tokens = int(image_positions(model, inputs).sum())
    asked = GridInputs(model.module.config, model.processor.image_processor, inputs, picture_size, n_tokens)
    name = type(asked.processor).__name__
    with Translated(f"{family.model_type}: its {name} does not say where image tokens lie", UsageError):
        grids = GRIDS[family.grid](asked)
    if len(grids.cells) != n_tokens:
        raise asked.refusal(f"its grids have {counted(len(grids.cells), 'token')} and the prompt has {n_tokens}")
    return grids

"""What an image encoder's states are: a grid of places, row by row, and before it states that have no place.

A transformer gives (batch, states, d), perhaps with a class token and registers first; a convolutional network a map
(batch, d, rows, columns). How many states come first is never guessed: the encoder's type says it (`FIRST`), or whoever
put the model together. The grid is read off what the encoder makes of a picture.

A network whose maps grow coarser from stage to stage can give more than its last: beside each of its states the four
of the finest stage that is twice as fine (`has_finer`), which say more of where things are and of textures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmn.counts import counted
from mmn.errors import ModelError
from mmn.safety.boundary import Translated


def _none(_config: Any) -> int:
    return 0


def _class_token(_config: Any) -> int:
    return 1


def _class_and_registers(config: Any) -> int:
    return 1 + int(config.num_register_tokens)


# States before the grid, by `model_type`, of encoders whose last_hidden_state is (batch, states, d).
FIRST: Final[dict[str, Callable[[Any], int]]] = {
    **dict.fromkeys(("beit", "clip_vision_model", "data2vec-vision", "dinov2", "vit", "vit_msn"), _class_token),
    **dict.fromkeys(("siglip_vision_model", "ijepa", "swin", "swinv2"), _none),
    **dict.fromkeys(("dinov2_with_registers", "dinov3_vit"), _class_and_registers),
    "deit": lambda _config: 2,  # class and distillation
}
# Where the places of a map lie, by `model_type`: with strides as wide as their kernels each in the middle of its
# stretch; with odd kernels, padded on both sides, each on the first pixel of its stretch; padded more on the right and
# below, as TensorFlow does, each on the last pixel. Of others nobody looked.
MIDDLE, FIRST_PIXEL, LAST_PIXEL, UNKNOWN = "middle", "first pixel", "last pixel", "unknown"
MAPS: Final[dict[str, str]] = {
    **dict.fromkeys(("convnext", "convnextv2"), MIDDLE),
    **dict.fromkeys(("resnet", "regnet"), FIRST_PIXEL),
    "efficientnet": LAST_PIXEL,
}
UNFIT: Final = {"vit_mae": "leaves most of a picture out, at random"}
_SHAPES: Final = ((320, 200), (200, 320))  # of the pictures that are tried: wide, high


@dataclass(frozen=True)
class Layout:
    """`n_first` states without a place, then `rows` × `columns` places; each `width` numbers.

    `told_by` is who said how many come first, `centre` where a place lies in its stretch of what the encoder sees,
    `has_finer` whether the numbers of a place go on with those of the stage before.
    """

    rows: int
    columns: int
    n_first: int
    width: int
    told_by: str
    centre: str = MIDDLE
    has_finer: bool = False

    @property
    def n_places(self) -> int:
        return self.rows * self.columns

    def sentence(self) -> str:
        finer = ", each with the four states of the stage before that lie in it" if self.has_finer else ""
        return (
            f"of the encoder's states {self.n_first} come first and are left out (class_tokens, by {self.told_by}), "
            f"{self.rows} × {self.columns} are the image tokens{finer}"
        )


def find_layout(
    encoder: Any, image_processor: Any, declared: int | None, name: str, *, has_finer: bool = False
) -> Layout:
    """The layout of an encoder's states, from what it makes of two pictures.

    Args:
        encoder: a loaded image encoder.
        image_processor: its own.
        declared: how many states come first, None where nobody said.
        name: of the encoder, for messages.
        has_finer: whether the stage before the last is read, too.

    Raises:
        ModelError: an encoder that is unfit by its type; nobody knows how many states come first, or two disagree;
            states that are no grid; pictures that are not all made one size; no finer stage where one is asked for.
    """
    if reason := UNFIT.get(encoder.config.model_type):
        raise ModelError(f"{name}: a {encoder.config.model_type} {reason}; take another encoder")
    with Translated(f"{name}: its image processor cannot prepare a picture"):
        pixels = [image_processor(images=[Image.new("RGB", size)], return_tensors="pt") for size in _SHAPES]
        wide, high = (one["pixel_values"] for one in pixels)
    if wide.ndim != 4 or wide.shape != high.shape:
        raise ModelError(
            f"{name}: its image processor makes {tuple(wide.shape)} of a wide picture and {tuple(high.shape)} of a "
            "high one, expected one size (1, 3, height, width): set size or do_center_crop in preprocessor_config.json"
        )
    with Translated(f"{name}: it cannot read a picture"), torch.inference_mode():
        states = raw_states(encoder, wide.to(encoder.dtype), has_finer=has_finer)
    layout = _layout_of(states, encoder.config, _first(encoder, states, declared, name), tuple(wide.shape[-2:]), name)
    return replace(layout, has_finer=has_finer)


def raw_states(encoder: Any, pixel_values: Float[Tensor, "batch 3 height width"], *, has_finer: bool = False) -> Tensor:
    """The encoder's last states; maps with their width in the second place, whatever the encoder's own order."""
    if has_finer:
        return _with_finer(encoder(pixel_values=pixel_values, output_hidden_states=True))
    states = encoder(pixel_values=pixel_values).last_hidden_state
    timm = getattr(encoder, "timm_model", None)
    is_last = timm is not None and states.ndim == 4 and states.shape[1] != timm.num_features
    return states.permute(0, 3, 1, 2) if is_last else states


def _with_finer(output: Any) -> Float[Tensor, "batch d rows columns"]:
    """The last map, and behind each of its states the four of the last map that is twice as fine, row by row.

    Raises:
        ModelError: states that are no map, or no map twice as fine.
    """
    last = output.last_hidden_state
    if last.ndim == 4:
        rows, columns = last.shape[-2:]
        for stage in reversed(output.hidden_states or ()):
            if stage.shape[-2:] == (2 * rows, 2 * columns):
                return torch.cat([last, F.pixel_unshuffle(stage, 2)], dim=1)
    raise ModelError("it has no stage twice as fine as its last: leave finer_stage out")


def placed_states(
    encoder: Any, pixel_values: Float[Tensor, "batch 3 height width"], n_first: int, *, has_finer: bool = False
) -> Float[Tensor, "batch places d"]:
    """The states that have a place, row by row."""
    states = raw_states(encoder, pixel_values, has_finer=has_finer)
    return states.flatten(2).transpose(1, 2) if states.ndim == 4 else states[:, n_first:]


def _first(encoder: Any, states: Tensor, declared: int | None, name: str) -> tuple[int, str]:
    """How many states come first, and who says so."""
    known = _known_first(encoder, states)
    if known is None and declared is None:
        raise ModelError(
            f"{name}: how many of its {counted(states.shape[1], 'state')} come before the grid of places is "
            "not known of a "
            f'{encoder.config.model_type}; say it: "class_tokens": 1 where it has a class token, 0 where it has none'
        )
    if known is not None and declared is not None and known != declared:
        raise ModelError(f"{name}: a {encoder.config.model_type} has class_tokens {known}, the file says {declared}")
    if known is None:
        assert declared is not None
        return declared, "the file"
    return known, f"the encoder's type, {encoder.config.model_type}"


def _known_first(encoder: Any, states: Tensor) -> int | None:
    if states.ndim == 4:
        return 0
    if (timm := getattr(encoder, "timm_model", None)) is not None:
        return int(getattr(timm, "num_prefix_tokens", 0))
    count = FIRST.get(encoder.config.model_type)
    return None if count is None else count(encoder.config)


def _layout_of(states: Tensor, config: Any, first: tuple[int, str], canvas: tuple[int, ...], name: str) -> Layout:
    n_first, told_by = first
    if states.ndim == 4:
        _, width, rows, columns = states.shape
        return Layout(rows, columns, n_first, width, told_by, MAPS.get(config.model_type, UNKNOWN))
    _, n_states, width = states.shape
    shape = _grid(n_states - n_first, canvas, getattr(config, "patch_size", None))
    if shape is None:
        raise ModelError(
            f"{name}: {counted(n_states, 'state')} without the first {n_first} are no grid over {canvas[0]} × "
            f"{canvas[1]} pixels; "
            "is class_tokens right?"
        )
    return Layout(*shape, n_first, width, told_by)


def _grid(n_places: int, canvas: tuple[int, ...], patch: Any) -> tuple[int, int] | None:
    """Rows and columns: those of the patches, or of patches merged 2 × 2 some times; without patches, a square."""
    if not isinstance(patch, int):
        side = round(max(n_places, 0) ** 0.5)
        is_square = side**2 == n_places > 0 and canvas[0] == canvas[1]
        return (side, side) if is_square else None
    rows, columns = canvas[0] // patch, canvas[1] // patch
    while rows * columns > n_places and rows > 1 and columns > 1:
        rows, columns = rows // 2, columns // 2
    return (rows, columns) if rows * columns == n_places > 0 else None

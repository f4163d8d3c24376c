"""The inputs of a grid of image tokens: the config, the image processor, and what it made of the picture."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mmn.errors import UsageError
from mmn.models.geometry.grids import Axis, Box


@dataclass(frozen=True)
class GridInputs:
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
        height, width = self.pixels.shape[-2:]
        return int(height), int(width)

    @property
    def n_tiles(self) -> int:
        """Squares that the picture was cut into or seen as, those of padding too."""
        return int(self.pixels.shape[-4])

    @property
    def pixels(self) -> Any:
        """What the vision tower is given; a family that reads films, too, says of what."""
        return self.inputs["pixel_values" if "pixel_values" in self.inputs else "pixel_values_images"]

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

    def rule(self, name: str) -> Callable[..., Any]:
        """A function of the processor's own module, by which it sizes or cuts pictures."""
        found = getattr(sys.modules[type(self.processor).__module__], name, None)
        if found is None:
            raise self.refusal(f"it has no rule {name}, and how it prepares pictures was not checked")
        return found

    def require_canvas(self, expected: tuple[int, int]) -> None:
        if self.canvas != expected:
            raise self.refusal(f"it gave the model {self.canvas} pixels (height, width), not {expected}")


@dataclass(frozen=True)
class Line:
    """One axis of the way from canvas to picture: a canvas pixel x is (x - start) · scale of the picture."""

    start: float
    scale: float

    def to_picture(self, span: tuple[float, float]) -> tuple[float, float]:
        return (span[0] - self.start) * self.scale, (span[1] - self.start) * self.scale


def spans(n_pixels: int, patch_size: int) -> Axis:
    """The whole patches along a canvas, in its pixels; a remainder at the end is what the vision tower leaves out."""
    return tuple((float(k * patch_size), float((k + 1) * patch_size)) for k in range(n_pixels // patch_size))

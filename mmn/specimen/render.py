"""Scenes -> pictures and exact masks, in batches, on any device.

Each object's sprite is placed by one `grid_sample` and pasted by its alpha over the place: a vertical colour
gradient, smooth noise and grain. What remains visible of an object after later ones were pasted is its mask.
Sprites are kept at three sizes (a mip chain), so that small objects are not aliased.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmn.specimen.world import NOUNS, PLACES, Placement, Scene

SHEETS = {  # styles of the same glyphs; licences in NOTICE
    "noto": Path(__file__).parent / "sprites.webp",
    "fluent": Path(__file__).parent / "sprites-fluent.webp",
    "twemoji": Path(__file__).parent / "sprites-twemoji.webp",
}
NOTO = "noto"  # the specimen's own, and the gallery's
SPRITE_SIDE = 128
SPRITES_PER_ROW = 10
MIP_LEVELS = 3

# top colour, bottom colour, size of the smooth noise (0..1)
PLACE_COLOURS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], float]] = {
    "grass": ((0.55, 0.78, 0.45), (0.20, 0.50, 0.15), 0.06),
    "beach": ((0.55, 0.80, 0.95), (0.93, 0.84, 0.60), 0.035),
    "snow": ((0.80, 0.86, 0.92), (0.97, 0.97, 1.00), 0.025),
    "road": ((0.60, 0.62, 0.65), (0.25, 0.25, 0.28), 0.03),
    "sea": ((0.20, 0.55, 0.75), (0.02, 0.20, 0.45), 0.06),
    "sky": ((0.25, 0.50, 0.90), (0.75, 0.88, 1.00), 0.05),
    "desert": ((0.95, 0.75, 0.45), (0.75, 0.50, 0.25), 0.045),
    "room": ((0.85, 0.78, 0.72), (0.50, 0.35, 0.25), 0.02),
}
assert set(PLACE_COLOURS) == set(PLACES)


class Rendered(NamedTuple):
    """`pictures` in [0, 1]; `masks[b, i]` the visible share of each pixel that object i of scene b covers."""

    pictures: Float[Tensor, "batch 3 side side"]
    masks: Float[Tensor, "batch objects side side"]


def render(scenes: Sequence[Scene], side: int, device: torch.device | str = "cpu", style: str = NOTO) -> Rendered:
    """Draws `scenes` at `side` × `side` pixels; unused mask rows (fewer objects than the fullest scene) are 0."""
    picture = _places(scenes, side, device)
    n_objects = max(len(scene.objects) for scene in scenes)
    masks = torch.zeros(len(scenes), n_objects, side, side, device=device)
    for index in range(n_objects):
        rows = [row for row, scene in enumerate(scenes) if len(scene.objects) > index]
        sprite = _draw([scenes[row].objects[index] for row in rows], side, device, style)
        alpha = sprite[:, 3:]
        picture[rows] = picture[rows] * (1 - alpha) + sprite[:, :3]
        masks[rows] = masks[rows] * (1 - alpha)
        masks[rows, index] = alpha[:, 0]
    return Rendered(picture.clamp(0, 1), masks)


def to_image(picture: Float[Tensor, "3 side side"]) -> Image.Image:
    return Image.fromarray((picture.permute(1, 2, 0) * 255).round().byte().cpu().numpy())


def _draw(
    objects: Sequence[Placement], side: int, device: torch.device | str, style: str
) -> Float[Tensor, "n 4 side side"]:
    """Premultiplied RGBA of one object a row, on an otherwise transparent canvas."""
    theta = torch.tensor([_canvas_to_sprite(placement) for placement in objects], device=device)
    grid = F.affine_grid(theta, [len(objects), 4, side, side], align_corners=False)
    levels = [_mip_level(placement.side * side) for placement in objects]
    canvas = torch.empty(len(objects), 4, side, side, device=device)
    for level in set(levels):
        rows = [row for row, own in enumerate(levels) if own == level]
        sprites = _sprites(str(device), style)[level][[NOUNS.index(objects[row].noun) for row in rows]]
        canvas[rows] = F.grid_sample(sprites, grid[rows], mode="bilinear", padding_mode="zeros", align_corners=False)
    return canvas


def _canvas_to_sprite(placement: Placement) -> list[list[float]]:
    """The affine map from canvas coordinates in [-1, 1] to the sprite's, as `affine_grid` takes it."""
    cos, sin = math.cos(math.radians(placement.tilt)), math.sin(math.radians(placement.tilt))
    x, y = 2 * placement.x - 1, 2 * placement.y - 1
    mirror = -1 if placement.is_mirrored else 1
    rows = [[mirror * cos, mirror * sin], [-sin, cos]]
    return [[a / placement.side, b / placement.side, -(a * x + b * y) / placement.side] for a, b in rows]


def _mip_level(pixels: float) -> int:
    """The smallest sprite that is not enlarged by more than a quarter."""
    return max(0, min(MIP_LEVELS - 1, math.floor(math.log2(1.25 * SPRITE_SIDE / pixels))))


@lru_cache(maxsize=4)
def _sprites(device: str, style: str) -> tuple[Float[Tensor, "nouns 4 size size"], ...]:
    """Premultiplied RGBA sprites in the order of NOUNS, largest first."""
    sheet = np.asarray(Image.open(SHEETS[style]).convert("RGBA"), dtype=np.float32) / 255
    boxes = [divmod(index, SPRITES_PER_ROW) for index in range(len(NOUNS))]
    s = SPRITE_SIDE
    sprites = torch.from_numpy(np.stack([sheet[r * s : (r + 1) * s, c * s : (c + 1) * s] for r, c in boxes]))
    sprites = sprites.permute(0, 3, 1, 2).contiguous()
    sprites[:, :3] *= sprites[:, 3:]
    return tuple(F.avg_pool2d(sprites, 2**level).to(device) for level in range(MIP_LEVELS))


def _places(scenes: Sequence[Scene], side: int, device: torch.device | str) -> Float[Tensor, "batch 3 side side"]:
    """Backgrounds; drawn from each scene's own seed, at a fixed resolution, so that every size shows the same one."""
    top, bottom, smooth, grain, jitter = zip(*(_place_noise(scene) for scene in scenes), strict=True)
    height = torch.linspace(0, 1, side).view(1, 1, side, 1)
    tops, bottoms = torch.tensor(top).view(-1, 3, 1, 1), torch.tensor(bottom).view(-1, 3, 1, 1)
    picture = tops * (1 - height) + bottoms * height + torch.stack(jitter).view(-1, 3, 1, 1)
    size = (side, side)
    picture = picture + F.interpolate(torch.stack(smooth), size=size, mode="bicubic", align_corners=False)
    picture = picture + F.interpolate(torch.stack(grain), size=size, mode="bilinear", align_corners=False)
    return picture.clamp(0, 1).to(device)


def _place_noise(scene: Scene) -> tuple[tuple[float, ...], tuple[float, ...], Tensor, Tensor, Tensor]:
    top, bottom, smoothness = PLACE_COLOURS[scene.place]
    generator = torch.Generator().manual_seed(scene.seed)
    smooth = torch.randn(3, 7, 7, generator=generator) * 0.3 + torch.randn(1, 7, 7, generator=generator)
    grain = torch.randn(1, 112, 112, generator=generator) * 0.025
    return top, bottom, smooth * smoothness, grain, torch.randn(3, generator=generator) * 0.04

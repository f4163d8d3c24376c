"""Scenes less alike than the gallery's: two styles of glyphs, lone objects that fill the picture, photographic noise.

A map that is to read photographs has to see objects as large as photographs show them: a linear probe on an ImageNet
encoder's features, fitted on scenes, names 3 % of photographs where all its objects were small, 23 % where half of the
scenes showed one large object (39 photographs, 92 nouns, chance 1 %). The third style is never trained on.
"""

from __future__ import annotations

import random
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmn.specimen.render import SHEETS, render
from mmn.specimen.world import NOUNS, Scene, sample_scene

UNSEEN_STYLE = "twemoji"
TRAINED_STYLES = tuple(style for style in SHEETS if style != UNSEEN_STYLE)
LARGE_SHARE = 0.5  # of the scenes
LARGE_SIDES = (0.5, 1.0)  # of the picture's side
NOISY_SHARE = 1 / 3  # of the batches

Pictures = Float[Tensor, "batch 3 side side"]


def sample_varied(rng: random.Random, n: int, side: int) -> tuple[list[Scene], Pictures]:
    """`n` scenes of one style, some with one large object, and their pictures in [0, 1], some noisy as photographs."""
    scenes = [sample_large(rng) if rng.random() < LARGE_SHARE else sample_scene(rng) for _ in range(n)]
    pictures = render(scenes, side, style=rng.choice(TRAINED_STYLES)).pictures
    return scenes, add_photographic_noise(pictures, rng) if rng.random() < NOISY_SHARE else pictures


def sample_large(rng: random.Random) -> Scene:
    """One object that fills much of the picture, a tenth of it perhaps outside."""
    scene = sample_scene(rng, [rng.choice(NOUNS)])
    side = rng.uniform(*LARGE_SIDES)
    margin = min(0.5, max(0.0, side / 2 - 0.1))
    (lone,) = scene.objects
    moved = replace(lone, side=side, x=rng.uniform(margin, 1 - margin), y=rng.uniform(margin, 1 - margin))
    return replace(scene, objects=(moved,))


def add_photographic_noise(pictures: Pictures, rng: random.Random) -> Pictures:
    """Light, contrast, colourfulness, white balance, blur and grain, drawn for each picture."""
    generator = torch.Generator().manual_seed(rng.getrandbits(31))

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return low + (high - low) * torch.rand(len(pictures), channels, 1, 1, generator=generator)

    pictures = pictures * draw(0.6, 1.25)
    mean = pictures.mean((1, 2, 3), keepdim=True)
    pictures = (pictures - mean) * draw(0.5, 1.2) + mean
    grey = pictures.mean(1, keepdim=True)
    pictures = grey + (pictures - grey) * draw(0.2, 1.2)
    pictures = pictures * draw(0.75, 1.25, channels=3)
    blurred = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="reflect"), 3, 1)
    pictures = torch.where(draw(0, 1) < 0.3, blurred, pictures)
    grain = torch.randn(pictures.shape, generator=generator) * draw(0, 0.05)
    return (pictures + grain).clamp(0, 1)

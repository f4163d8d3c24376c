"""Pictures show what the scene says, and the masks are exact."""

from __future__ import annotations

import random

import torch

from mmn.specimen.render import render, to_image
from mmn.specimen.world import Placement, Scene, sample_scene


def _scene(*objects: Placement, seed: int = 3) -> Scene:
    return Scene("snow", objects, seed)


def _at(noun: str, x: float, y: float, side: float = 0.4, mirrored: bool = False) -> Placement:
    return Placement(noun, x, y, side, mirrored, tilt=0.0)


def test_a_mask_is_where_the_object_was_placed() -> None:
    masks = render([_scene(_at("ball", 0.25, 0.7))], 112).masks[0, 0]
    rows, columns = torch.nonzero(masks > 0.5, as_tuple=True)
    assert abs(columns.float().mean() / 112 - 0.25) < 0.02
    assert abs(rows.float().mean() / 112 - 0.7) < 0.02
    assert abs((columns.max() - columns.min() + 1) / 112 - 0.4) < 0.03


def test_the_picture_changes_only_under_the_mask() -> None:
    empty, full = render([_scene(), _scene(_at("dog", 0.5, 0.5))], 112).pictures
    mask = render([_scene(_at("dog", 0.5, 0.5))], 112).masks[0, 0]
    changed = (empty - full).abs().amax(0)
    assert changed[mask == 0].max() == 0
    assert changed[mask > 0.9].mean() > 0.1


def test_what_a_later_object_covers_is_not_in_an_earlier_ones_mask() -> None:
    masks = render([_scene(_at("ball", 0.5, 0.5), _at("ball", 0.6, 0.5))], 112).masks[0]
    assert (masks.sum(0) <= 1 + 1e-5).all()
    assert masks[0].sum() < 0.8 * masks[1].sum()


def test_a_mirrored_object_is_its_mirror_image() -> None:
    plain = render([_scene(_at("bus", 0.5, 0.5))], 112).masks[0, 0]
    mirrored = render([_scene(_at("bus", 0.5, 0.5, mirrored=True))], 112).masks[0, 0]
    assert torch.allclose(plain.flip(-1), mirrored, atol=1e-4)
    assert not torch.allclose(plain, mirrored, atol=1e-2)


def test_every_size_shows_the_same_scene() -> None:
    scene = sample_scene(random.Random(4))
    small, large = render([scene], 112).pictures[0], render([scene], 336).pictures[0]
    shrunk = torch.nn.functional.avg_pool2d(large, 3)
    assert (small - shrunk).abs().mean() < 0.03


def test_a_scene_looks_the_same_in_any_batch() -> None:
    rng = random.Random(5)
    scenes = [sample_scene(rng) for _ in range(4)]
    together = render(scenes, 112).pictures
    assert torch.allclose(together[2], render(scenes[2:3], 112).pictures[0], atol=1e-6)
    assert to_image(together[0]).size == (112, 112)

"""The world says of every scene what is in it, and nothing else."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from mmn.specimen.evaluate import objects_in
from mmn.specimen.world import MOST_OVERLAP, NOUNS, PLACES, Placement, Scene, caption_of, sample_scene


def _at(noun: str, x: float, y: float = 0.5, side: float = 0.3) -> Placement:
    return Placement(noun, x, y, side, is_mirrored=False, tilt=0.0)


@pytest.mark.parametrize(
    ("objects", "caption"),
    [
        ([_at("dog", 0.5, side=0.2)], "a small dog on the grass."),
        ([_at("apple", 0.5, side=0.5)], "a big apple on the grass."),
        ([_at("apple", 0.5)], "an apple on the grass."),
        ([_at("mouse", 0.2), _at("mouse", 0.8)], "two mice on the grass."),
        ([_at("tree", 0.2), _at("zebra", 0.8, y=0.55)], "a tree next to a zebra on the grass."),
        ([_at("tree", 0.2), _at("zebra", 0.8, y=0.75)], "a tree and a zebra on the grass."),
        ([_at("bus", 0.2), _at("owl", 0.5), _at("bus", 0.8)], "two buses and an owl on the grass."),
        ([_at("bus", 0.2), _at("owl", 0.5), _at("key", 0.8)], "a bus, an owl and a key on the grass."),
        ([_at("sheep", 0.2), _at("sheep", 0.5), _at("sheep", 0.8)], "three sheep on the grass."),
    ],
)
def test_captions(objects: list[Placement], caption: str) -> None:
    assert caption_of(Scene("grass", tuple(objects), seed=0)) == caption


def test_a_caption_names_exactly_the_objects_of_its_scene() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        scene = sample_scene(rng)
        assert objects_in(caption_of(scene)) == Counter(scene.nouns)
        assert PLACES[scene.place] in caption_of(scene)


def test_objects_are_inside_the_picture_apart_and_from_left_to_right() -> None:
    rng = random.Random(1)
    for _ in range(500):
        objects = sample_scene(rng).objects
        assert [one.x for one in objects] == sorted(one.x for one in objects)
        assert all(one.side / 2 <= v <= 1 - one.side / 2 for one in objects for v in (one.x, one.y))
        for a, b in itertools.pairwise(objects):
            reach = (a.side + b.side) / 2
            shared = max(0, reach - abs(a.x - b.x)) * max(0, reach - abs(a.y - b.y))
            assert shared < 4 * MOST_OVERLAP * min(a.side, b.side) ** 2


def test_the_same_seed_gives_the_same_scenes() -> None:
    assert [sample_scene(random.Random(7)) for _ in range(3)] == [sample_scene(random.Random(7)) for _ in range(3)]
    assert sample_scene(random.Random(7)) != sample_scene(random.Random(8))


def test_a_repeated_object_said_once_is_a_miss() -> None:
    assert objects_in("a book on the road.") != Counter({"book": 2})
    assert objects_in("two books, an owl on the road.") == Counter({"book": 2, "owl": 1})
    assert len(set(NOUNS)) == 92

"""What the specimen's world contains, and the captions that describe it.

A scene is one to three objects (emoji glyphs) on one of eight places. Its caption follows from the scene
alone, objects named from left to right, so the truth about every picture is known exactly:

    a small dog on the grass.
    two books in the snow.
    a tree next to a zebra in the sea.        (next to: the two stand at about the same height)
    a bus, a snake and a monkey on the road.

Coordinates are fractions of the picture's side, x to the right and y down; sizes likewise.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

# noun -> glyph, by category. The categories feed the text-only stage ("a dog is an animal.").
GLYPHS: dict[str, dict[str, str]] = {
    "animal": {
        "dog": "🐕", "cat": "🐈", "horse": "🐎", "cow": "🐄", "pig": "🐖", "sheep": "🐑", "elephant": "🐘",
        "giraffe": "🦒", "zebra": "🦓", "lion": "🦁", "tiger": "🐅", "bear": "🐻", "monkey": "🐒", "rabbit": "🐇",
        "frog": "🐸", "turtle": "🐢", "snake": "🐍", "fish": "🐟", "shark": "🦈", "whale": "🐳", "dolphin": "🐬",
        "penguin": "🐧", "owl": "🦉", "duck": "🦆", "chicken": "🐔", "butterfly": "🦋", "bee": "🐝", "camel": "🐪",
        "kangaroo": "🦘", "mouse": "🐁", "octopus": "🐙", "crab": "🦀",
    },
    "vehicle": {
        "car": "🚗", "bus": "🚌", "truck": "🚚", "train": "🚆", "airplane": "✈️", "helicopter": "🚁", "boat": "⛵",
        "bicycle": "🚲", "motorcycle": "🏍️", "tractor": "🚜", "rocket": "🚀",
    },
    "food": {
        "apple": "🍎", "banana": "🍌", "pineapple": "🍍", "watermelon": "🍉", "strawberry": "🍓", "carrot": "🥕",
        "mushroom": "🍄", "pizza": "🍕", "hamburger": "🍔", "donut": "🍩", "cake": "🎂", "cookie": "🍪", "egg": "🥚",
        "orange": "🍊", "lemon": "🍋", "sandwich": "🥪",
    },
    "instrument": {"guitar": "🎸", "violin": "🎻", "trumpet": "🎺", "drum": "🥁", "piano": "🎹"},
    "thing": {
        "tree": "🌳", "cactus": "🌵", "flower": "🌻", "house": "🏠", "castle": "🏰", "chair": "🪑", "bed": "🛏️",
        "clock": "⏰", "telephone": "☎️", "television": "📺", "laptop": "💻", "camera": "📷", "book": "📕", "key": "🔑",
        "candle": "🕯️", "umbrella": "☂️", "backpack": "🎒", "shoe": "👟", "hat": "👒", "dress": "👗", "crown": "👑",
        "balloon": "🎈", "ball": "⚽", "kite": "🪁", "robot": "🤖", "snowman": "⛄", "bottle": "🍼", "cup": "☕",
    },
}  # fmt: skip

CATEGORY: dict[str, str] = {noun: category for category, glyphs in GLYPHS.items() for noun in glyphs}
NOUNS: tuple[str, ...] = tuple(CATEGORY)
PLACES: dict[str, str] = {
    "grass": "on the grass", "beach": "on the beach", "snow": "in the snow", "road": "on the road",
    "sea": "in the sea", "sky": "in the sky", "desert": "in the desert", "room": "in a room",
}  # fmt: skip

IRREGULAR_PLURALS = {
    "sheep": "sheep", "fish": "fish", "mouse": "mice", "butterfly": "butterflies", "strawberry": "strawberries",
    "snowman": "snowmen", "octopus": "octopuses", "sandwich": "sandwiches", "bus": "buses", "cactus": "cactuses",
    "dress": "dresses",
}  # fmt: skip
COUNT_WORDS = {2: "two", 3: "three"}

SMALL_BELOW, BIG_ABOVE = 0.28, 0.46  # side of a lone object, as a fraction of the picture's
NEXT_TO_WITHIN = 0.12  # difference of two centres' heights
SIDE_RANGES = {1: (0.20, 0.56), 2: (0.24, 0.46), 3: (0.24, 0.36)}  # by number of objects
MOST_OVERLAP = 0.12  # of the smaller object's square


@dataclass(frozen=True)
class Placement:
    """One object of a scene: `noun` centred at (x, y) with side `side`, mirrored and tilted by `tilt` degrees."""

    noun: str
    x: float
    y: float
    side: float
    is_mirrored: bool
    tilt: float


@dataclass(frozen=True)
class Scene:
    """Objects from left to right on a place; `seed` draws the place's colours and grain."""

    place: str
    objects: tuple[Placement, ...]
    seed: int

    @property
    def nouns(self) -> tuple[str, ...]:
        return tuple(placement.noun for placement in self.objects)


def plural(noun: str) -> str:
    return IRREGULAR_PLURALS.get(noun, noun + "s")


def with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def caption_of(scene: Scene) -> str:
    """The one true caption of a scene, lower case, with its full stop."""
    return f"{_subject(scene.objects)} {PLACES[scene.place]}."


def sample_scene(rng: random.Random, nouns: Sequence[str] | None = None) -> Scene:
    """A random scene; `nouns` fixes what is in it (one to three), otherwise one noun in eight repeats another."""
    chosen = list(nouns) if nouns is not None else _sample_nouns(rng)
    return Scene(rng.choice(list(PLACES)), _place_objects(rng, chosen), rng.getrandbits(32))


def _subject(objects: tuple[Placement, ...]) -> str:
    nouns = [placement.noun for placement in objects]
    if len(nouns) == 1:
        size = "small " if objects[0].side < SMALL_BELOW else "big " if objects[0].side > BIG_ABOVE else ""
        return with_article(size + nouns[0])
    phrases = [
        with_article(noun) if nouns.count(noun) == 1 else f"{COUNT_WORDS[nouns.count(noun)]} {plural(noun)}"
        for noun in dict.fromkeys(nouns)
    ]
    if len(nouns) == 2 == len(phrases):
        link = "next to" if abs(objects[0].y - objects[1].y) < NEXT_TO_WITHIN else "and"
        return f"{phrases[0]} {link} {phrases[1]}"
    return " and ".join(filter(None, [", ".join(phrases[:-1]), phrases[-1]]))


def _sample_nouns(rng: random.Random) -> list[str]:
    nouns = rng.sample(NOUNS, rng.choice((1, 2, 2, 3, 3)))
    if len(nouns) > 1 and rng.random() < 0.125:
        nouns[1] = nouns[0]
    return nouns


def _place_objects(rng: random.Random, nouns: Sequence[str]) -> tuple[Placement, ...]:
    low, high = SIDE_RANGES[len(nouns)]
    placed: list[Placement] = []
    while len(placed) < len(nouns):
        side = rng.uniform(low, high)
        for _ in range(40):
            margin = side / 2
            x, y = rng.uniform(margin, 1 - margin), rng.uniform(margin, 1 - margin)
            candidate = Placement(
                nouns[len(placed)], x, y, side, is_mirrored=rng.random() < 0.5, tilt=rng.uniform(-15, 15)
            )
            if all(_overlap(candidate, other) < MOST_OVERLAP for other in placed):
                placed.append(candidate)
                break
        else:
            placed.clear()  # a corner too tight for the rest: start over
    return tuple(sorted(placed, key=lambda placement: placement.x))


def _overlap(a: Placement, b: Placement) -> float:
    """Shared area of the two squares over the smaller square's area."""
    reach = (a.side + b.side) / 2
    side = min(a.side, b.side)
    shared = max(0.0, min(side, reach - abs(a.x - b.x))) * max(0.0, min(side, reach - abs(a.y - b.y)))
    return shared / side**2

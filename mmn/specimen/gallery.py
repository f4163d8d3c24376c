"""Makes the gallery: held-out scenes as pictures, with reference captions and one mask for each object.

    gallery/0000.webp            336 × 336
    gallery/metadata.jsonl       file_name, text, place, mask_file, objects (noun and index in the mask)
    masks/0000.png               one palette image: 0 is the place, i the i-th object, left to right

Run `python -m mmn.specimen.gallery` to draw it again; it comes out the same, byte for byte.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from mmn.specimen import DISPLAY_SIDE, GALLERY_PATH, MASKS_PATH
from mmn.specimen.render import render, to_image
from mmn.specimen.world import NOUNS, Scene, caption_of, sample_scene

N_SCENES = 512
LEAST_SCENES = 8  # in which every noun is
FREQUENT_SCENES = 24  # in which the frequent nouns are
FREQUENT_NOUNS = ("dog", "cat", "horse", "car", "train", "apple", "pizza", "guitar", "tree", "umbrella")
SEED = "gallery-0"
WEBP_QUALITY = 86
BATCH_SIZE = 32
VISIBLE_FROM = 0.5  # an object owns a pixel that it covers at least by half


def main() -> None:
    for folder in (GALLERY_PATH, MASKS_PATH):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    scenes = sample_scenes()
    rows = []
    for start in tqdm(range(0, len(scenes), BATCH_SIZE), desc="gallery"):
        batch = scenes[start : start + BATCH_SIZE]
        rendered = render(batch, DISPLAY_SIDE)
        for index, scene in enumerate(batch):
            rows.append(_write(start + index, scene, rendered.pictures[index], rendered.masks[index]))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (GALLERY_PATH / "metadata.jsonl").write_text(lines)
    size = sum(file.stat().st_size for path in (GALLERY_PATH, MASKS_PATH) for file in path.iterdir()) / 1e6
    print(f"{GALLERY_PATH}: {len(scenes)} scenes, {size:.1f} MB")


def sample_scenes() -> list[Scene]:
    """Held-out scenes: the training stream is seeded otherwise, and places are drawn from a continuum.

    Nouns are dealt from a deck that holds each as often as it must at least be seen, so that every one is.
    """
    rng = random.Random(SEED)
    scenes: list[Scene] = []
    need = Counter({noun: FREQUENT_SCENES if noun in FREQUENT_NOUNS else LEAST_SCENES for noun in NOUNS})
    deck = [noun for noun, count in need.items() for _ in range(count)]
    rng.shuffle(deck)
    while len(scenes) < N_SCENES:
        nouns: list[str] = []
        for _ in range(rng.choice((1, 2, 2, 3, 3))):
            nouns.append(_draw_other(rng, deck, nouns))
        if len(nouns) > 1 and rng.random() < 0.1:
            nouns.append(nouns[0])
        scenes.append(sample_scene(rng, nouns[:3]))
    assert not deck, f"{len(deck)} nouns were not dealt: more scenes are needed"
    return scenes


def _draw_other(rng: random.Random, deck: list[str], nouns: list[str]) -> str:
    """The next noun of the deck that the scene has not yet; when the deck is empty, any other."""
    for index in range(len(deck) - 1, -1, -1):
        if deck[index] not in nouns:
            return deck.pop(index)
    return rng.choice([noun for noun in NOUNS if noun not in nouns])


def _write(
    index: int,
    scene: Scene,
    picture: Float[Tensor, "3 side side"],
    masks: Float[Tensor, "objects side side"],
) -> dict[str, object]:
    name = f"{index:04d}"
    to_image(picture).save(GALLERY_PATH / f"{name}.webp", quality=WEBP_QUALITY, method=6)
    _mask_image(masks[: len(scene.objects)]).save(MASKS_PATH / f"{name}.png", optimize=True)
    return {
        "file_name": f"{name}.webp",
        "text": caption_of(scene),
        "place": scene.place,
        "mask_file": f"../{MASKS_PATH.name}/{name}.png",
        "objects": [{"noun": noun, "mask": number} for number, noun in enumerate(scene.nouns, 1)],
    }


def _mask_image(masks: Float[Tensor, "objects side side"]) -> Image.Image:
    share, owner = masks.max(dim=0)
    indices = torch.where(share >= VISIBLE_FROM, owner + 1, 0).byte()
    image = Image.fromarray(indices.numpy(), mode="P")
    image.putpalette([0, 0, 0, 255, 99, 71, 65, 155, 255, 255, 215, 0])
    return image


if __name__ == "__main__":
    main()

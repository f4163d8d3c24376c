"""How well the specimen captions: `python -m mmn.specimen.evaluate [MODEL]`.

On fresh scenes, rendered at the gallery's size and put through the model's own processor, as a user's picture is.
Nouns are compared as multisets of object lemmas (two books said as one book is a miss); places apart.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from mmn.specimen import DISPLAY_SIDE
from mmn.specimen.build import PROMPT
from mmn.specimen.render import render, to_image
from mmn.specimen.tokenizer import BOS, IMAGE
from mmn.specimen.world import COUNT_WORDS, NOUNS, PLACES, Scene, caption_of, plural, sample_scene

BATCH_SIZE = 50

_LEMMAS = {form: noun for noun in NOUNS for form in (noun, plural(noun))}
_COUNTS = {word: count for count, word in COUNT_WORDS.items()}


def evaluate(model_path: Path, n_scenes: int, seed: int) -> dict[str, float]:
    """Precision, recall, exact captions and right places (shares) over `n_scenes` fresh scenes."""
    rng = random.Random(f"evaluation-{seed}")
    scenes = [sample_scene(rng) for _ in range(n_scenes)]
    return judge(caption_scenes(model_path, scenes), scenes)


def judge(captions: Sequence[str], scenes: Sequence[Scene]) -> dict[str, float]:
    """What captions get right of the scenes that they are of; nouns once as multisets and once as sets."""
    said = [objects_in(caption) for caption in captions]
    shown = [Counter(scene.nouns) for scene in scenes]
    n_right = sum((a & b).total() for a, b in zip(said, shown, strict=True))
    n_kinds = sum(len(a.keys() & b.keys()) for a, b in zip(said, shown, strict=True))
    return {
        "n_scenes": len(scenes),
        "noun_precision": n_right / max(1, sum(counter.total() for counter in said)),
        "noun_recall": n_right / sum(counter.total() for counter in shown),
        "noun_kinds_recall": n_kinds / sum(len(counter) for counter in shown),
        "exact": sum(c == caption_of(s) for c, s in zip(captions, scenes, strict=True)) / len(scenes),
        "place": sum(PLACES[s.place] in c for c, s in zip(captions, scenes, strict=True)) / len(scenes),
    }


def objects_in(caption: str) -> Counter[str]:
    """The object lemmas that a caption names, counted: "two mice and a dog." -> mouse 2, dog 1."""
    words = re.findall(r"[a-z]+", caption.lower())
    counts: Counter[str] = Counter()
    for before, word in zip(["", *words], words, strict=False):
        if word in _LEMMAS:
            counts[_LEMMAS[word]] += _COUNTS.get(before, 1)
    return counts


@torch.inference_mode()
def caption_scenes(model_path: Path, scenes: Sequence[Scene]) -> list[str]:
    """Greedy captions, in float32, through plain transformers."""
    model = AutoModelForImageTextToText.from_pretrained(model_path, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(model_path)
    captions: list[str] = []
    for start in range(0, len(scenes), BATCH_SIZE):
        pictures = render(scenes[start : start + BATCH_SIZE], DISPLAY_SIDE).pictures
        images = [to_image(picture) for picture in pictures]
        text = [f"{BOS}{IMAGE}{PROMPT}"] * len(images)
        inputs = processor(images=images, text=text, return_tensors="pt", padding=True)
        output = model.generate(**inputs, do_sample=False, max_new_tokens=30)
        new = output[:, inputs["input_ids"].shape[1] :]
        captions += [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)]
    return captions


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "model"
    print(json.dumps(evaluate(path, n_scenes=500, seed=1), indent=2))

"""Each type's own processor beside its tiny model: saved, loaded as a user does, and asked about two pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from tests.families.pictures import PICTURES
from tests.families.processors import save_checkpoint
from tests.families.recipes import RECIPES
from tests.families.tiny import load

WORDS = ("what is this ?", "describe this image .")
NEEDS = {"smolvlm": "num2words"}


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = ((120, 84), (70, 100))
    return [Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)) for width, height in sizes]


@pytest.fixture(params=RECIPES)
def checkpoint(request, tmp_path):
    """Name, processor and model of a type, loaded from the folder that they were saved in."""
    if package := NEEDS.get(request.param):
        pytest.importorskip(package, reason=f"pip install {package}")
    try:
        save_checkpoint(request.param, tmp_path)
    except ImportError as error:
        pytest.skip(str(error))
    processor = AutoProcessor.from_pretrained(tmp_path, local_files_only=True)
    processor.tokenizer.padding_side = "left"
    return request.param, processor, load(tmp_path)


def test_two_pictures_of_different_sizes_in_one_batch_are_read_as_each_alone(checkpoint):
    name, processor, module = checkpoint
    prompts = [prompt(name, processor, words) for words in WORDS]
    together = run(module, encode(name, processor, pictures(), prompts))
    assert together.isfinite().all()
    for row, (picture, asked) in enumerate(zip(pictures(), prompts, strict=True)):
        alone = run(module, encode(name, processor, [picture], [asked]))[0]
        miss = (together[row, -len(alone) :] - alone).abs().max() / alone.abs().max()
        assert miss < 1e-5, f"row {row} of the batch differs from the same picture alone by {miss:.0e}"


def prompt(name, processor, words):
    """The prompt of the type's chat template, which is the one declared; without one, the one declared."""
    declared = PICTURES[name].prompt.format(image=PICTURES[name].placeholder, prompt=words)
    if PICTURES[name].has_template:
        content = [{"type": "image"}, {"type": "text", "text": words}]
        turn = [{"role": "user", "content": content}]
        assert processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) == declared
    return declared


def encode(name, processor, images, prompts):
    nested = [[image] for image in images] if PICTURES[name].nests else images
    inputs = processor(images=nested, text=prompts, return_tensors="pt", padding=True)
    inputs.pop("labels", None)
    return {key: value.float() if value.is_floating_point() else value for key, value in inputs.items()}


def run(module, inputs):
    with torch.no_grad():
        return module(**inputs).logits

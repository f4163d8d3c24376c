"""Each type's own processor beside its tiny model: saved, loaded as a user does, and asked about two pictures."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from tests.families.pictures import MIXES, NOT_ASKED, PICTURES, SAME_PROMPT
from tests.families.processors import build_processor, load_checkpoint, placeholder
from tests.families.recipes import RECIPES
from tests.families.test_exact import EXACT
from tests.families.tiny import REFUSED, TYPES, tiny_config

WORDS = ("what is this ?", "describe this image .")
NEEDS = {"smolvlm": "num2words", "fuyu": "torchvision"}  # without it, its image processor of transformers 5.23 fails
MASKED = -1e30  # logits of what a type may not say


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    sizes = ((120, 84), (70, 100))
    return [Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)) for width, height in sizes]


def skip_without_packages(name):
    """Skips a type whose processor cannot be made here; says what lifts it."""
    package = NEEDS.get(name)
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"pip install {package}: {name}'s processor needs it")
    try:
        build_processor(name, tiny_config(name, RECIPES[name].model))
    except ImportError as error:
        if "torchvision" not in str(error).lower():
            raise
        pytest.skip(f"pip install torchvision: {name}'s processor needs it")


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in EXACT])
def test_a_type_that_is_not_scored_reads_its_pictures_too(name, tmp_path):
    """Those that are scored are read in `test_loaded.py`, from the same checkpoint."""
    skip_without_packages(name)
    two_pictures_of_different_sizes_in_one_batch_are_read_as_each_alone(name, *load_checkpoint(name, tmp_path))


def two_pictures_of_different_sizes_in_one_batch_are_read_as_each_alone(name, processor, module):
    """Their prompts differ in length, so that the shorter one is padded on the left."""
    prompts = [prompt(name, processor, words) for words in WORDS]
    if name in SAME_PROMPT:
        prompts = [prompts[0]] * 2
    inputs = encode(name, processor, module, pictures(), prompts)
    together = run(module, inputs)
    assert together.isfinite().all()
    misses = []
    for row, (picture, asked) in enumerate(zip(pictures(), prompts, strict=True)):
        single = encode(name, processor, module, [picture], [asked])
        alone = attended(run(module, single), single, 0)
        difference = (attended(together, inputs, row) - alone).abs()
        misses.append(float((difference / alone[alone > MASKED].abs().max()).max()))
    assert (max(misses) < 1e-5) != (name in MIXES), f"rows of the batch differ from the same pictures alone by {misses}"


def test_each_type_is_asked_or_says_why_not():
    assert set(PICTURES) == set(RECIPES)
    assert set(RECIPES) | set(NOT_ASKED) | set(REFUSED) == set(TYPES)
    assert not set(RECIPES) & (set(NOT_ASKED) | set(REFUSED))


def attended(logits, inputs, row):
    """The logits of a row of the batch where its prompt is, not its padding."""
    mask = inputs.get("decoder_attention_mask", inputs.get("attention_mask"))
    return logits[row][mask[row] == 1] if mask is not None and mask.shape == logits.shape[:2] else logits[row]


def prompt(name, processor, words):
    """The prompt of the type's chat template, which is the one declared; without one, the one declared."""
    declared = PICTURES[name].prompt.format(image=placeholder(name), prompt=words)
    if PICTURES[name].has_template:
        content = [{"type": "image"}, {"type": "text", "text": words}]
        turn = [{"role": "user", "content": content}]
        assert processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) == declared
    return declared


def encode(name, processor, module, images, prompts):
    nested = [[image] for image in images] if PICTURES[name].nests else images
    inputs = processor(images=nested, text=prompts, return_tensors="pt", padding=True, **PICTURES[name].call)
    inputs.pop("labels", None)
    if module.config.is_encoder_decoder and "decoder_input_ids" not in inputs:
        inputs["decoder_input_ids"] = torch.zeros(len(images), 1, dtype=torch.long)
    return {key: value.float() if is_real(value) else value for key, value in inputs.items()}


def is_real(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def run(module, inputs):
    with torch.no_grad():
        return module(**inputs).logits

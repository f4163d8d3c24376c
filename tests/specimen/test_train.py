"""Each stage of training lowers its own loss, and what is saved loads the way a user loads it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from mmn.specimen import MODEL_PATHS
from mmn.specimen.build import PROMPT, WIDTH, build_model
from mmn.specimen.render import render
from mmn.specimen.tokenizer import build_tokenizer
from mmn.specimen.train import (
    IGNORED,
    PATCH_CLASSES,
    Stage,
    Trainee,
    _encode,
    _pictures,
    run_stage,
    save,
    together_loss,
)
from mmn.specimen.world import NOUNS, Placement, Scene


@pytest.fixture
def trainee() -> Trainee:
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    return Trainee(build_model(tokenizer), torch.nn.Linear(WIDTH, len(PATCH_CLASSES)), tokenizer, random.Random(0))


def test_patches_are_labelled_by_what_covers_them(trainee: Trainee) -> None:
    scene = Scene("sea", (Placement("ball", 3.5 / 8, 1.5 / 8, 0.2, is_mirrored=False, tilt=0.0),), seed=1)
    _, classes = _pictures(trainee, [scene])
    grid = classes.view(8, 8)
    assert grid[1, 3] == NOUNS.index("ball")
    assert grid[6, 6] == PATCH_CLASSES.index("sea")


def test_the_prompt_is_not_trained_on(trainee: Trainee) -> None:
    ids, labels = _encode(trainee, [(PROMPT, "a dog."), (PROMPT, "a dog on the grass.")])
    n_prompt = 1 + len(trainee.tokenizer(PROMPT).input_ids)
    assert (labels[:, :n_prompt] == IGNORED).all()
    assert labels[1, n_prompt] == ids[1, n_prompt] == trainee.tokenizer("a").input_ids[0]
    assert labels[0, -1] == IGNORED
    assert ids[1, -1] == trainee.tokenizer.eos_token_id


def test_the_two_ways_to_the_decoder_are_the_same(trainee: Trainee) -> None:
    """Training puts embeddings together by hand; the model's own forward pass must give the same loss."""
    from mmn.specimen.world import caption_of, sample_scene

    trainee.model.eval()
    scenes = [sample_scene(random.Random(0))]
    trainee.rng.seed(0)
    by_hand = together_loss(trainee, 1) - 0.2 * _patch_part(trainee, scenes)
    ids, labels = _encode(trainee, [(PROMPT, caption_of(scenes[0]))])
    image = torch.full((1, 64), trainee.model.config.image_token_id)
    labels = torch.cat([labels[:, :1], torch.full((1, 64), IGNORED), labels[:, 1:]], 1)
    pixels = render(scenes, 112).pictures * 2 - 1
    whole = trainee.model(
        input_ids=torch.cat([ids[:, :1], image, ids[:, 1:]], 1), pixel_values=pixels, labels=labels
    ).loss
    assert by_hand.item() == pytest.approx(whole.item(), rel=1e-4)


def _patch_part(trainee: Trainee, scenes: list[Scene]) -> torch.Tensor:
    from mmn.specimen.train import _patch_loss, _patches

    pixels, classes = _pictures(trainee, scenes)
    return _patch_loss(trainee, _patches(trainee, pixels), classes)


def test_a_few_steps_lower_the_loss_and_the_result_loads(trainee: Trainee, tmp_path: Path) -> None:
    saved: list[int] = []
    before = _mean_loss(trainee)
    run_stage(trainee, Stage("text", 12, 8, 2e-3), 1.0, checkpoint=lambda: saved.append(1))
    run_stage(trainee, Stage("together", 12, 8, 2e-3), 1.0, checkpoint=lambda: save(trainee, tmp_path))
    assert saved == [1]
    assert _mean_loss(trainee) < before - 0.5
    model = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(model.lm_head.weight, trainee.model.lm_head.weight.half().float())
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert processor.tokenizer.padding_side == "left"
    assert "<image>" in processor.chat_template


def test_the_frozen_recipe_leaves_what_text_alone_taught(trainee: Trainee, tmp_path: Path) -> None:
    before = {name: weights.clone() for name, weights in trainee.model.state_dict().items()}
    run_stage(trainee, Stage("frozen", 3, 4, 2e-3), 1.0, checkpoint=lambda: save(trainee, tmp_path))
    changed = {name for name, weights in trainee.model.state_dict().items() if not torch.equal(weights, before[name])}
    of_text = {name for name in before if "language_model" in name or "lm_head" in name}
    frozen = {name for name in of_text if any(part in name for part in ("mlp", "embed_tokens", "lm_head"))}
    assert len(frozen) == 3 * 8 + 2
    assert not frozen & changed
    assert of_text - frozen <= changed
    assert "model.multi_modal_projector.linear_1.weight" in changed
    assert_same_eye(tmp_path, MODEL_PATHS["specimen"])


def assert_same_eye(*paths: Path) -> None:
    one, other = (load_file(path / "model.safetensors") for path in paths)
    of_eye = [name for name in one if "vision_tower" in name]
    assert of_eye
    assert all(torch.equal(one[name], other[name]) for name in of_eye)


@torch.no_grad()
def _mean_loss(trainee: Trainee) -> float:
    trainee.rng.seed(5)
    return together_loss(trainee, 8).item()

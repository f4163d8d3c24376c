"""The models that come with the package: small, loadable by name, able to caption, and trained as their cards say."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from mmn.models.loading import load_model
from mmn.specimen import MAP_PATHS, MODEL_PATHS
from mmn.specimen.card import card_of, card_of_map
from mmn.specimen.evaluate import evaluate

MOST_BYTES, MOST_BYTES_OF_A_MAP = 15_000_000, 4_000_000
LEAST_RECALL = {"specimen": 0.95, "specimen-frozen": 0.9}
names = pytest.mark.parametrize("name", MODEL_PATHS)


@names
def test_it_is_loaded_by_name_and_small(name: str) -> None:
    model = load_model(name, device="cpu")
    assert (model.facts.name, model.facts.n_layers, model.facts.d_mlp) == (name, 8, 384)
    assert sum(file.stat().st_size for file in MODEL_PATHS[name].iterdir()) <= MOST_BYTES


@names
def test_it_captions_as_well_as_its_card_says(name: str) -> None:
    told = json.loads((MODEL_PATHS[name] / "training.json").read_text())["evaluation"]
    assert min(told["noun_recall"], told["noun_precision"]) >= LEAST_RECALL[name]
    found = evaluate(MODEL_PATHS[name], n_scenes=24, seed=77)
    assert found["noun_recall"] >= told["noun_recall"] - 0.1
    assert found["noun_precision"] >= told["noun_precision"] - 0.1
    assert (MODEL_PATHS[name] / "README.md").read_text() == card_of(name, MODEL_PATHS[name])


@pytest.mark.parametrize("name", MAP_PATHS)
def test_a_map_is_small_and_its_card_says_what_was_measured(name: str) -> None:
    folder = MAP_PATHS[name].parent
    assert (folder / "map.safetensors").stat().st_size <= MOST_BYTES_OF_A_MAP
    assert (folder / "README.md").read_text() == card_of_map(name, folder)


def test_the_frozen_one_has_the_eye_of_the_other_and_words_of_its_own() -> None:
    specimen, frozen = (load_file(MODEL_PATHS[name] / "model.safetensors") for name in MODEL_PATHS)
    assert specimen.keys() == frozen.keys()
    of_eye = [name for name in specimen if "vision_tower" in name]
    of_text = [name for name in specimen if "language_model" in name and ".mlp." in name]
    assert len(of_text) == 3 * 8
    assert all(torch.equal(specimen[name], frozen[name]) for name in of_eye)
    assert not any(torch.equal(specimen[name], frozen[name]) for name in of_text)

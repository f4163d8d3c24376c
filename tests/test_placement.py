"""Models in several places: decoder layers on another GPU or offloaded give the same numbers; GPUs are simulated."""

from __future__ import annotations

import json

import pytest
import torch

from mmn import names
from mmn.cli import main
from mmn.core import ScoreSettings
from mmn.errors import UsageError
from mmn.images import list_source
from mmn.models.adapters.structure import matrix_of
from mmn.models.loading import load_model
from mmn.models.placement import spread
from mmn.runs.doctor import examine
from tests.scored import rows_of
from tests.simulated_devices import SimulatedDevices, place

DECODER = "model.language_model"
ALL_HERE = {
    "model.vision_tower": "cpu",
    "model.multi_modal_projector": "cpu",
    **{
        f"{DECODER}.{name}": "cpu"
        for name in ("embed_tokens", "layers.0", "layers.1", "layers.2", "norm", "rotary_emb")
    },
    "lm_head": "cpu",
}
SETTINGS = ScoreSettings(prompt="what is this ?", top_k=20, methods=tuple(names.METHODS), max_new_tokens=8)
NUMBERS = ("caption", "exactness_residual", "pixel_effect", "fingerprint", "device")


def test_a_model_whose_image_encoder_is_on_disk_gives_the_same_numbers(checkpoint):
    spread = load_model(str(checkpoint), device_map=ALL_HERE | {"model.vision_tower": "disk"})
    assert next(spread.module.model.vision_tower.parameters()).device.type == "meta"
    plain = load_model(str(checkpoint), device="cpu")
    found, expected = examine(spread), examine(plain)
    assert {name: found[name] for name in NUMBERS} == {name: expected[name] for name in NUMBERS}


@pytest.mark.parametrize(
    ("part", "named"),
    [
        (f"{DECODER}.norm", "the final norm"),
        ("lm_head", "the unembedding"),
        (f"{DECODER}.embed_tokens", "the input embedding"),
    ],
)
def test_what_every_score_needs_whole_may_not_be_offloaded(part, named, checkpoint):
    with pytest.raises(UsageError, match=f"--device-map: {named} of .* is offloaded .*--device-map auto"):
        load_model(str(checkpoint), device_map=ALL_HERE | {part: "disk"})


@pytest.fixture(scope="module")
def offloaded(checkpoint):
    return load_model(str(checkpoint), device_map=ALL_HERE | {f"{DECODER}.layers.1": "disk"})


@pytest.fixture(scope="module")
def expected(tiny, pictures):
    """What every method finds of two pictures with the whole model in one place."""
    return scored(tiny, pictures)


def scored(model, pictures):
    return rows_of(model, list_source(str(pictures)).examples[:2], SETTINGS, size=2)


def test_offloaded_layers_give_the_same_scores(offloaded, tiny, pictures, expected):
    assert matrix_of(offloaded.anatomy.ffn_outs[1]).is_meta
    assert torch.equal(offloaded.anatomy.w_out(1), tiny.anatomy.w_out(1))
    assert scored(offloaded, pictures) == expected
    assert {row["method"] for row in expected["score"]} == set(names.METHODS)


def test_an_offloaded_layer_is_not_edited(offloaded):
    with pytest.raises(UsageError, match="--device-map: layer 1 is offloaded, where its weights cannot be changed"):
        offloaded.anatomy.own_w_out(1)
    assert offloaded.anatomy.own_w_out(0).shape == (offloaded.anatomy.unembedding.in_features, offloaded.facts.d_mlp)


def test_score_with_auto_is_score_without(checkpoint, tmp_path, capsys):
    numbers = []
    for more in ([], ["--device-map", "auto"]):
        words = ["score", "--model", str(checkpoint), "--images", "gallery", "--limit", "3", "--progress", "none"]
        assert main([*words, "--cache", str(tmp_path / f"cache{len(more)}"), "--json", *more]) == 0
        told = json.loads(capsys.readouterr().out)
        numbers.append({name: told[name] for name in ("run_id", "n_scores", "max_residual")})
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "cpu"], "it chooses the devices; leave --device cpu out"),
        (["--workers", "2"], "leave --workers and --engine out"),
        (["--engine", "ray"], "leave --workers and --engine out"),
    ],
)
def test_what_does_not_go_with_a_map_is_said(words, message, checkpoint, tmp_path, capsys):
    command = ["score", "--model", str(checkpoint), "--images", "gallery", "--device-map", "auto", *words]
    assert main([*command, "--cache", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_without_accelerate_the_message_is_the_command(checkpoint, monkeypatch):
    monkeypatch.setattr("mmn.models.placement.find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="--device-map needs accelerate: `pip install accelerate`"):
        load_model(str(checkpoint), device_map="auto")


def test_a_limber_has_no_map():
    with pytest.raises(UsageError, match="is of three parts; leave --device-map out"):
        load_model("limber:parts.json", device_map="auto")

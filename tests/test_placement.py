"""Models in several places: decoder layers on another GPU or offloaded give the same numbers; GPUs are simulated."""

from __future__ import annotations

import json
from unittest.mock import MagicMock

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module

from mmn import names
from mmn.cli import main
from mmn.core import ScoreSettings
from mmn.errors import UsageError
from mmn.images import list_source
from mmn.models import loading
from mmn.models.adapters.structure import matrix_of
from mmn.models.loading import load_model
from mmn.models.placement import spread
from mmn.runs.doctor import examine
from tests.scored import rows_of
from tests.simulated_devices import SimulatedDevices, lies_on

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
    elsewhere = load_model(str(checkpoint), device_map=ALL_HERE | {"model.vision_tower": "disk"})
    assert next(elsewhere.module.model.vision_tower.parameters()).device.type == "meta"
    plain = load_model(str(checkpoint), device="cpu")
    found, expected = examine(elsewhere), examine(plain)
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


@pytest.mark.parametrize(("device", "named"), [("cuda", "cuda:0"), ("mps", "mps")])
def test_a_model_on_a_gpu_gives_the_same_scores(device, named, checkpoint, pictures, expected, monkeypatch):
    monkeypatch.setattr(torch, "Event", MagicMock())  # what transformers waits for, of a driver that is not there
    with SimulatedDevices():
        model = load_model(str(checkpoint), dtype="float32", device=device)
        assert str(model.device) == str(model.anatomy.w_out(1).device) == named
        assert scored(model, pictures) == expected


def test_a_decoder_over_two_gpus_gives_the_same_scores(two_gpus, pictures, expected):
    with SimulatedDevices():
        assert str(two_gpus.module.model.language_model.layers[2].mlp.down_proj.weight.device) == "cuda:1"
        assert scored(two_gpus, pictures) == expected


@pytest.fixture(scope="module")
def two_gpus(checkpoint):
    """The tiny LLaVA on two GPUs that are simulated, its last two layers on the second."""
    with SimulatedDevices():
        model = load_model(str(checkpoint), dtype="float32", device="cuda")
        return over_two_gpus(model, model.anatomy.layers[1:])


def over_two_gpus(model, layers):
    """Says of layers that they lie on the second GPU; accelerate's own hooks bring there what they are given."""
    model.module.hf_device_map = {"": 0}
    at_home = (model.anatomy.final_norm, model.anatomy.unembedding)
    for part, device in [(part, 0) for part in at_home] + [(part, 1) for layer in layers for part in layer.modules()]:
        lies_on(part, f"cuda:{device}")
        add_hook_to_module(part, AlignDevicesHook(execution_device=torch.device("cuda", device)))
    add_hook_to_module(model.module, AlignDevicesHook(execution_device=torch.device("cuda:0"), io_same_device=True))
    return model


@pytest.fixture(scope="module")
def run(checkpoint, pictures, tmp_path_factory):
    """A cache with a run of two pictures."""
    cache = tmp_path_factory.mktemp("run") / "cache"
    command = ["score", "--model", checkpoint, "--images", pictures, "--limit", "2", "--cache", cache, "--top-k", "20"]
    assert main([*map(str, command), "--prompt", SETTINGS.prompt, "--max-new-tokens", "8", "--progress", "none"]) == 0
    return cache


@pytest.mark.parametrize(
    "command",
    [
        ["degrade", "latest", "--kind", "ablate", "--limit", "1"],
        ["circuits", "latest", "--pictures", "1"],
        ["lens", "latest"],
    ],
    ids=lambda command: command[0],
)
def test_a_study_runs_over_two_gpus(command, run, monkeypatch):
    put_together = loading._put_together

    def over_two(*parts):
        model = put_together(*parts)
        return over_two_gpus(model, model.anatomy.layers[1:])

    monkeypatch.setattr(loading, "_put_together", over_two)
    with SimulatedDevices():
        assert main([*command, "--device", "cuda", "--cache", str(run), "--progress", "none"]) == 0


def test_what_does_not_fit_on_a_gpu_goes_to_the_next_and_then_to_the_cpu(tiny):
    size = {layer: sum(one.numel() for one in layer.parameters()) * 2 for layer in tiny.anatomy.layers}
    (one, *_) = size.values()
    beside = sum(one.numel() for one in tiny.module.parameters()) * 2 - sum(size.values())
    places = spread(tiny.module, torch.bfloat16, [beside + one, one])
    assert [places[f"{DECODER}.layers.{number}"] for number in range(3)] == [0, 1, "cpu"]
    assert {where for path, where in places.items() if ".layers." not in path or DECODER not in path} == {0}
    named = [name for name, _ in tiny.module.named_parameters()]
    assert all(sum(name == path or name.startswith(f"{path}.") for path in places) == 1 for name in named)
    assert spread(tiny.module, torch.bfloat16, []) == {"": "cpu"}


def test_simulated_devices_refuse_what_real_ones_refuse():
    with SimulatedDevices():
        here, there, number = torch.ones(3), torch.ones(3, device="cuda"), torch.tensor(2.0)
        assert str((there * number + there[torch.arange(3)]).device) == "cuda:0"
        assert str(there.to("cuda:1").to(here).device) == "cpu"
        for refused in (
            lambda: here + there,
            lambda: here[there.long()],
            lambda: torch.cat([there, there.to("cuda:1")]),
            lambda: torch.randperm(3, generator=torch.Generator(), device="cuda"),
        ):
            with pytest.raises(RuntimeError, match="Expected"):
                refused()
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            there.numpy()
        with pytest.raises(TypeError, match="MPS has none"):
            here.to("mps").double()


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

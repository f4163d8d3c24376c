"""Quantised checkpoints: scored is what the numbers in the file stand for, computed here by plain arithmetic, too."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmn.errors import ModelError, UnsupportedModelError
from mmn.models.adapters.structure import matrix_of
from mmn.models.loading import load_model
from mmn.runs.doctor import examine
from tests.simulated_devices import SimulatedDevices
from tests.tiny import FFN, N_LAYERS, WIDTH

Tensors = dict[str, Tensor]
BLOCK = 16
LEFT = ["lm_head", "model.vision_tower", "model.multi_modal_projector"]


def is_quantised(name: str) -> bool:
    return "language_model" in name and name.endswith("proj.weight")


def saved_by_transformers(base: Path, path: Path, settings: Any) -> None:
    """As a user saves a model that was quantised while it was loaded."""
    module = hf.AutoModelForImageTextToText.from_pretrained(base, quantization_config=settings)
    (path / "model.safetensors").unlink()
    module.save_pretrained(path)


def saved_by_hand(path: Path, settings: dict[str, Any], quantise: Callable[[Tensor], dict[str, Tensor]]) -> None:
    tensors = load_file(path / "model.safetensors")
    for name in [name for name in tensors if is_quantised(name)]:
        stem = name.removesuffix("weight")
        tensors |= {stem + key: value for key, value in quantise(tensors.pop(name)).items()}
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))


def bnb8(base: Path, path: Path) -> None:
    saved_by_transformers(base, path, hf.BitsAndBytesConfig(load_in_8bit=True))


def bnb4(base: Path, path: Path) -> None:
    saved_by_transformers(base, path, hf.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"))


def fp8(_base: Path, path: Path) -> None:
    def quantise(weight: Tensor) -> Tensors:
        blocks = weight.reshape(weight.shape[0] // BLOCK, BLOCK, weight.shape[1] // BLOCK, BLOCK)
        scale = blocks.abs().amax((1, 3)) / 448  # the largest number of the format
        numbers = (blocks / scale[:, None, :, None]).reshape(weight.shape)
        return {"weight": numbers.to(torch.float8_e4m3fn), "weight_scale_inv": scale}

    saved_by_hand(
        path, {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "modules_to_not_convert": LEFT}, quantise
    )


def compressed(_base: Path, path: Path) -> None:
    def quantise(weight: Tensor) -> Tensors:
        scale = weight.abs().amax(1, keepdim=True) / 127
        return {"weight": (weight / scale).round().to(torch.int8), "weight_scale": scale}

    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
    settings = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["re:.*vision.*", "re:.*projector.*", "lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }
    saved_by_hand(path, settings, quantise)


def torchao(base: Path, path: Path) -> None:
    from torchao.quantization import Int8WeightOnlyConfig

    saved_by_transformers(base, path, hf.TorchAoConfig(Int8WeightOnlyConfig()))


def of_rows(stem: str, there: Tensors, scale: str, largest: float = 1.0) -> Tensor:
    return there[stem + "weight"].float() * there[stem + scale].reshape(-1, 1) / largest


def of_nibbles(stem: str, there: Tensors) -> Tensor:
    """Four bits each, the upper ones first; each block of 64 numbers has a scale."""
    packed = there[stem + "weight"].reshape(-1)
    numbers = torch.stack([packed >> 4, packed & 15], 1).reshape(-1).long()
    values = there[stem + "weight.quant_map"][numbers].reshape(-1, 64) * there[stem + "weight.absmax"][:, None]
    return values.reshape(WIDTH, FFN)


def of_blocks(stem: str, there: Tensors) -> Tensor:
    scale = there[stem + "weight_scale_inv"].repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    return there[stem + "weight"].float() * scale


FORMATS: dict[str, tuple[str, Callable[[Path, Path], None], Callable[[str, Tensors], Tensor], str]] = {
    "bnb8": ("bitsandbytes", bnb8, lambda stem, there: of_rows(stem, there, "SCB", 127.0), r"8-bit \(bitsandbytes\)"),
    "bnb4": ("bitsandbytes", bnb4, of_nibbles, r"4-bit \(nf4, bitsandbytes\)"),
    "fp8": ("accelerate", fp8, of_blocks, r"8-bit floats \(fp8\)"),
    "compressed": (
        "compressed_tensors",
        compressed,
        lambda stem, there: of_rows(stem, there, "weight_scale"),
        r"quantised \(int-quantized, compressed-tensors\)",
    ),
    "torchao": (
        "torchao",
        torchao,
        lambda stem, there: there[stem + "_weight_qdata"].float() * there[stem + "_weight_scale"],
        r"quantised \(torchao\)",
    ),
}


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_scored_is_what_the_numbers_in_the_file_stand_for(name, checkpoint, copy):
    package, save, stands_for, told = FORMATS[name]
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install -r requirements-models.txt lifts it")
    save(checkpoint, copy)
    model = load_model(str(copy), device="cpu")
    there = load_file(copy / "model.safetensors")
    for layer in range(N_LAYERS):
        (stem,) = {
            f"{name.rpartition('down_proj.')[0]}down_proj."
            for name in there
            if f"layers.{layer}.mlp.down_proj." in name and "vision" not in name
        }
        torch.testing.assert_close(model.anatomy.w_out(layer), stands_for(stem, there), rtol=1e-5, atol=1e-6)
    (sentence,) = model.filled
    assert re.fullmatch(f"its weights are {told}; run and scored is what they dequantise to, as float32", sentence)
    assert examine(model)["exactness_residual"] <= 1e-4


def test_a_quantised_model_has_a_fingerprint_of_its_own(checkpoint, copy):
    compressed(checkpoint, copy)
    quantised, plain = load_model(str(copy), device="cpu"), load_model(str(checkpoint), device="cpu")
    assert quantised.facts.fingerprint != plain.facts.fingerprint
    assert not torch.equal(quantised.anatomy.w_out(0), plain.anatomy.w_out(0))


@pytest.mark.parametrize("name", ["fp8", "compressed"])
def test_a_quantised_checkpoint_over_two_gpus_is_the_same_model(name, checkpoint, copy, monkeypatch):
    """Simulated ones: loaded in one thread, since the others would not be; bitsandbytes' kernels are not simulated."""
    FORMATS[name][1](checkpoint, copy)
    expected = examine(load_model(str(copy), device="cpu"))
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")
    monkeypatch.setattr("transformers.modeling_utils.caching_allocator_warmup", lambda *_given: None)
    with SimulatedDevices():
        model = load_model(str(copy), dtype="float32", device_map=over_two_gpus())
        assert str(matrix_of(model.anatomy.ffn_outs[2]).device) == "cuda:1"
        found = examine(model)
    assert found | {"device": "cpu"} == expected


def over_two_gpus() -> dict[str, str]:
    """The decoder's last two layers on the second."""
    there = ("model.vision_tower", "model.multi_modal_projector", "lm_head")
    decoder = ("embed_tokens", "layers.0", "layers.1", "layers.2", "norm", "rotary_emb")
    places = dict.fromkeys([*there, *(f"model.language_model.{part}" for part in decoder)], "cuda:0")
    return places | dict.fromkeys(("model.language_model.layers.1", "model.language_model.layers.2"), "cuda:1")


@pytest.mark.parametrize(
    ("save", "installed", "command"),
    [
        (compressed, ("accelerate",), "pip install compressed-tensors`"),
        (fp8, (), "pip install accelerate`"),
        (bnb8, (), "pip install bitsandbytes accelerate`"),
    ],
)
def test_without_its_package_the_message_is_the_command(save, installed, command, checkpoint, copy, monkeypatch):
    save(checkpoint, copy)
    there = find_spec
    monkeypatch.setattr("mmn.models.quantised.find_spec", lambda name: there(name) if name in installed else None)
    with pytest.raises(UnsupportedModelError, match=f"quantised .*, and to dequantise them needs .*{command}"):
        load_model(str(copy), device="cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quant_method": "bitsandbytes", "load_in_8bit": "yes"}, "load_in_8bit must be a boolean"),
        ({"quant_method": "compressed-tensors", "config_groups": 3}, "QuantizationConfig"),
        ({"quant_method": ["fp8"]}, "quantised"),
    ],
)
def test_settings_that_are_broken_are_refused_in_one_line(settings, message, checkpoint, copy):
    compressed(checkpoint, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    with pytest.raises(ModelError, match=message) as caught:
        load_model(str(copy), device="cpu")
    assert "\n" not in str(caught.value)

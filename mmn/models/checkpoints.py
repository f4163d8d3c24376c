"""A checkpoint's folder: found or fetched, judged by its small files, then its weights, all of them from the file.

    name ─► config.json (fetched first) ─► family, decoder, layout, number format: refused here, in one line
      ─► weights (fetched only now) ─► the module

The decoder is judged from the config alone: the module is put together without its weights, on torch's `meta` device.
Loud where a silent default would draw a believable chart: weights that are missing from the file (they would be
random), pickled weights (they could run code), quantised weights (what is stored is not what is multiplied), a LoRA
adapter beside the weights (it would be left out, or added where nobody looks).
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from mmn.errors import ModelError, UnsupportedModelError
from mmn.models.adapters import OTHER_LAYOUTS, Family, find_anatomy, find_family
from mmn.safety.boundary import Translated, first_line
from mmn.safety.roots import require_model
from mmn.specimen import MODEL_PATHS as BUNDLED_PATHS

HASH_BLOCK: Final = 1 << 22
ADAPTER_CONFIG: Final = "adapter_config.json"
MOST_CONFIG_BYTES: Final = 1 << 24
MOST_SMALL_BYTES: Final = 1 << 28  # of a file beside the weights: the largest vocabularies take an eighth of it
MOST_LAYERS: Final = 300  # of any part of a model; the deepest there are have about 130
MOST_HEADER_BYTES: Final = 1 << 24  # of a safetensors file: of the largest shards there are, less than a MiB
_FINGERPRINTED: Final = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "adapter_model.*")
_JUDGED_BY: Final = ("config.json", ADAPTER_CONFIG)
_QUANTISED_BESIDE: Final = ("quantize_config.json", "quant_config.json")  # where GPTQ and AWQ said so at first
_FLOATS: Final = ("F64", "F32", "F16", "BF16")
_PLAIN_ATTENTION: Final = (None, "eager", "sdpa")
_MERGE: Final = "merge it: PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(FOLDER)"


def local_folder(name: str, judge: Callable[[Path], object] = lambda _path: None) -> Path:
    """The folder of a checkpoint; a hub id is fetched first (safetensors and configuration only).

    Args:
        name: bundled, a folder or a hub id.
        judge: is given the folder when it holds at least `config.json`, before anything large is fetched; what it
            raises ends the matter.

    Raises:
        ModelError: neither a folder nor to be had from the hub.
        OutsideRootsError: it is outside the folders that this process may read.
    """
    if name in BUNDLED_PATHS:
        return BUNDLED_PATHS[name]
    require_model(name)
    path = Path(name).expanduser()
    if path.is_dir():
        judge(path)
        return path
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(
            f"{name!r} is no folder; give a folder in Hugging Face format, a hub id, or {' or '.join(BUNDLED_PATHS)}"
        )
    small = _fetch(name, _JUDGED_BY)
    judge(small)
    return _fetch(name, _FINGERPRINTED, revision=small.name)  # a snapshot's folder is called by its commit


def _fetch(name: str, patterns: tuple[str, ...], revision: str | None = None) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"{name!r} is neither a folder here nor to be had from the hub: {first_line(error)}"
        ) from error


def judge_family(path: Path) -> tuple[Any, Family]:
    """The config of a vision-language checkpoint and its family, both found fit by the small files alone.

    Raises:
        ModelError: no config, a broken one, one of another layout; an adapter, quantised weights.
        UnsupportedModelError: no adapter for its family, its decoder, or this form of its decoder.
    """
    raw = _read_raw_config(path)
    family = find_family(str(raw.get("model_type")))
    config = read_config(path)
    find_anatomy(_without_weights(path, config), family)
    return config, family


def _without_weights(path: Path, config: Any) -> Any:
    """The module that a config describes, its tensors without values: milliseconds, whatever its size."""
    from transformers import AutoModelForImageTextToText

    with Translated(f"{path}/config.json describes no model that can be put together"), torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def read_config(path: Path) -> Any:
    """A checkpoint's config, for plain attention whatever it asks for.

    `flash_attention_2` and the like are faster ways to the same numbers, from packages that are not needed here.

    Raises:
        ModelError: none there, a broken one, one of another layout; an adapter, quantised weights.
    """
    from transformers import AutoConfig

    from mmn.models import mplug_owl2

    _read_raw_config(path)
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
    """An adapter's weights are neither applied nor, as yet, merged: with them or without, the scores would be wrong."""
    found = [
        file.name for file in sorted(path.glob("adapter_*")) if file.name.startswith((ADAPTER_CONFIG, "adapter_model."))
    ]
    if not found:
        return
    if (path / "config.json").is_file():
        raise ModelError(
            f"{path} holds an adapter ({found[0]}) beside the weights, which would be left out of the scores; "
            f"{_MERGE}, or remove the adapter's files to score the weights alone"
        )
    file = path / ADAPTER_CONFIG
    base = read_json(file).get("base_model_name_or_path") if file.is_file() else None
    raise ModelError(f"{path} is an adapter of {base or 'a model that it does not name'}, not a whole model; {_MERGE}")


def _refuse_other_layout(path: Path, raw: Mapping[str, Any]) -> None:
    named = [raw.get("model_type"), *[key for key in ("mm_vision_tower",) if key in raw]]
    for mark, remedy in OTHER_LAYOUTS.items():
        if mark in named:
            raise UnsupportedModelError(f"{path} is in the layout of its authors ({mark!r} in config.json): {remedy}")


def _refuse_quantised(path: Path, raw: Mapping[str, Any]) -> None:
    settings = next((part["quantization_config"] for part in _objects(raw) if part.get("quantization_config")), None)
    beside = next((name for name in _QUANTISED_BESIDE if (path / name).is_file()), None)
    if not settings and not beside:
        return
    method = settings.get("quant_method", "a method it does not name") if isinstance(settings, dict) else beside
    raise UnsupportedModelError(
        f"{path}: its weights are quantised ({method}, by {'config.json' if settings else beside}), and scores are "
        "read from plain float matrices; give the checkpoint that it was made from, or save model.dequantize() with "
        "save_pretrained where the library can"
    )


def _refuse_depth(file: Path, raw: Mapping[str, Any]) -> None:
    """A module is put together layer by layer, so the number of layers is limited, and that of nothing else."""
    for part in _objects(raw):
        for key, value in part.items():
            is_depth = "layer" in key or key in ("depth", "n_head", "num_attention_heads", "num_experts")
            if is_depth and isinstance(value, int | float) and abs(value) > MOST_LAYERS:
                raise ModelError(f"{file}: {key} = {value}, expected at most {MOST_LAYERS}")


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


def load_weights(auto_class: Any, path: Path, dtype: torch.dtype, unused: tuple[str, ...] = (), half: str = "") -> Any:
    """The weights of a folder as `auto_class` puts them together, all of them from the file.

    Args:
        auto_class: one of transformers' Auto classes.
        path: the folder.
        dtype: to load them in.
        unused: prefixes of weights that may be missing, since nothing is read from them.
        half: the name in the config of the part that is wanted alone, "" for the whole model.

    Raises:
        ModelError: no weights, pickled weights only, quantised ones, weights that do not fit, weights missing.
    """
    config = getattr(read_config(path), half) if half else read_config(path)
    require_safetensors(path)
    failed = f"{path}: the weights cannot be loaded, perhaps since the download is not whole"
    with Translated(failed):
        _require_enough(path, auto_class, config)
        module, report = auto_class.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    missing = sorted([*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])])
    missing = [name for name in missing if not unused or not name.startswith(unused)]
    if missing:
        raise ModelError(f"{path}: {len(missing)} weights are not in the file, {missing[0]} for one; it is not whole")
    return module


def _require_enough(path: Path, auto_class: Any, config: Any) -> None:
    """Refuses a config that describes far more numbers than the files hold: the missing ones would be drawn at random.

    A few missing weights are found by name once the others are loaded; this is against hours and all of the memory.
    """
    there = 0
    for file in path.glob("*.safetensors"):
        for name, about in _header(file).items():
            if name.endswith("weight") and about["dtype"] not in _FLOATS:
                raise UnsupportedModelError(
                    f"{path}: {name} in {file.name} is {about['dtype']}, a quantised weight, and scores are read from "
                    "plain float matrices; give the checkpoint that it was made from"
                )
            there += math.prod(about["shape"])
    with torch.device("meta"):
        wanted = sum(parameter.numel() for parameter in auto_class.from_config(config).parameters())
    if wanted > 2 * there:
        raise ModelError(f"{path}: config.json describes {wanted} parameters, the files hold {there}; they do not fit")


def _header(file: Path) -> dict[str, dict[str, Any]]:
    """What a safetensors file says of its tensors; the library checks it against the file's length first."""
    from safetensors import safe_open

    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))
        if length > MOST_HEADER_BYTES:
            raise ValueError(f"the header of {file.name} has {length} bytes, expected at most {MOST_HEADER_BYTES}")
        with safe_open(file, framework="pt"):
            header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return header


def require_safetensors(path: Path) -> None:
    """Refuses a folder whose weights are missing, pickled, or no files of this folder.

    Raises:
        ModelError: no safetensors there.
    """
    _fingerprinted(path)
    index = path / "model.safetensors.index.json"
    named = read_json(index).get("weight_map") if index.is_file() else {}
    outside = [name for name in set(named.values()) if Path(name).name != name] if isinstance(named, dict) else [named]
    if outside:
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
    files = sorted({file for pattern in _FINGERPRINTED for file in path.glob(pattern)})
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

"""The weights of a checkpoint's folder, all of them from its files; quantised ones as the floats that they stand for.

Loud where transformers only warns: weights that are missing from the files (they would be random), and numbers that are
not what is multiplied. What the files hold is read from their headers first, before memory is taken for any of it.
"""

from __future__ import annotations

import copy
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from mmn.errors import ModelError, UnsupportedModelError
from mmn.models.checkpoints import read_config, require_safetensors
from mmn.models.placement import require_loaded
from mmn.models.quantised import dequantise, prepare
from mmn.safety.boundary import Translated, first_line

MOST_HEADER_BYTES: Final = 1 << 24  # of a safetensors file: of the largest shards there are, less than a MiB
LFS_START: Final = b"version "  # read as a length, more than any file has
_FLOATS: Final = ("F64", "F32", "F16", "BF16")
_COUNTERS: Final = ("I64", "BOOL")  # of buffers such as position_ids, never of a quantised matrix


def load_weights(
    auto_class: Any,
    path: Path,
    dtype: torch.dtype,
    unused: tuple[str, ...] = (),
    config: Any = None,
    device_map: Any = None,
) -> Any:
    """The weights of a folder as `auto_class` puts them together, all of them from the file, quantised ones as floats.

    Args:
        auto_class: one of transformers' Auto classes.
        path: the folder.
        dtype: to load them in.
        unused: prefixes of weights that may be missing, since nothing is read from them.
        config: as `judge_family` gave it; without, quantised weights are refused.
        device_map: accelerate's, where parts are to be put; None leaves all on the CPU.

    Raises:
        ModelError: no weights, pickled weights only, quantised ones, weights that do not fit, weights missing.
    """
    config = copy.deepcopy(config) or read_config(path)
    quantised = prepare(config)
    require_safetensors(path)
    failed = f"{path}: the weights cannot be loaded, perhaps since the download is not whole"
    with Translated(failed):
        _require_enough(path, auto_class, config, is_quantised=quantised is not None)
        module, report = _from_files(auto_class, path, config, dtype, device_map)
    missing = sorted([*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])])
    missing = [name for name in missing if not unused or not name.startswith(unused)]
    if missing:
        raise ModelError(f"{path}: {len(missing)} weights are not in the file, {missing[0]} for one; it is not whole")
    if quantised:
        require_loaded(module, "quantised weights are turned back into floats")
        with Translated(f"{path}: its weights cannot be dequantised", UnsupportedModelError):
            dequantise(module, quantised, dtype)
    return module


def _from_files(
    auto_class: Any, path: Path, config: Any, dtype: torch.dtype, device_map: Any
) -> tuple[Any, dict[str, Any]]:
    """What `from_pretrained` makes of a folder, and its report; what it asserts is said as other errors."""
    try:
        return auto_class.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            device_map=device_map,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except AssertionError as error:
        raise ValueError(first_line(error)) from error


def _require_enough(path: Path, auto_class: Any, config: Any, *, is_quantised: bool) -> None:
    """Refuses a config that describes far more numbers than the files hold: the missing ones would be drawn at random.

    A few missing weights are found by name once the others are loaded; this is against hours and all of the memory.
    """
    there = n_packed = 0
    for file in path.glob("*.safetensors"):
        for name, about in _header(file).items():
            is_packed = about["dtype"] not in _FLOATS
            if is_packed and name.endswith("weight") and not is_quantised:
                raise UnsupportedModelError(
                    f"{path}: {name} in {file.name} is {about['dtype']}, a quantised weight, and scores are read from "
                    "plain float matrices; give the checkpoint that it was made from"
                )
            n_packed += is_packed and about["dtype"] not in _COUNTERS
            there += _n_numbers(about) if is_packed else math.prod(about["shape"])
    if is_quantised and not n_packed:
        method = config.quantization_config["quant_method"]
        raise ModelError(
            f"{path}: config.json says {method} of its weights, and none in the files is quantised; remove "
            "quantization_config from it if they are whole"
        )
    with torch.device("meta"):
        wanted = sum(parameter.numel() for parameter in auto_class.from_config(config).parameters())
    if wanted > 2 * there:
        raise ModelError(f"{path}: config.json describes {wanted} parameters, the files hold {there}; they do not fit")


def _n_numbers(about: Mapping[str, Any]) -> int:
    """How many numbers a packed tensor can hold, of four bits each."""
    start, end = about["data_offsets"]
    return 2 * (end - start)


def _header(file: Path) -> dict[str, dict[str, Any]]:
    """What a safetensors file says of its tensors; the library checks it against the file's length first."""
    from safetensors import safe_open

    with file.open("rb") as stream:
        start = stream.read(8)
        if start == LFS_START:
            raise ValueError(f"{file.name} is git-lfs's note of where the weights are; `git lfs pull` fetches them")
        (length,) = struct.unpack("<Q", start.ljust(8, b"\0"))
        if length > MOST_HEADER_BYTES:
            raise ValueError(f"the header of {file.name} has {length} bytes, expected at most {MOST_HEADER_BYTES}")
        with safe_open(file, framework="pt"):
            header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return header

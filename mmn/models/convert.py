"""Pickled weights to safetensors: `python -m mmn.models.convert FOLDER`.

Of a checkpoint's `pytorch_model*.bin`, tensors alone are read (`weights_only`): nothing in the files is run. Each file
becomes one of safetensors beside it, with an index; the pickled ones stay.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from torch import Tensor

from mmn.errors import ModelError

PICKLED: Final = "pytorch_model*.bin"


def convert(folder: Path) -> list[Path]:
    """The files of safetensors that were written, in the order of the pickled ones.

    Raises:
        ModelError: no pickled weights there, safetensors there already, a file that holds more than tensors.
    """
    pickled = sorted(folder.glob(PICKLED))
    if not pickled:
        raise ModelError(f"{folder} has no {PICKLED} to convert")
    if present := sorted(folder.glob("*.safetensors")):
        raise ModelError(f"{folder} has safetensors already ({present[0].name}); remove them to convert again")
    names = {}
    written = []
    for number, file in enumerate(pickled, start=1):
        target = folder / f"model-{number:05}-of-{len(pickled):05}.safetensors"
        tensors = _read(file)
        save_file(tensors, target, {"format": "pt"})
        names.update(dict.fromkeys(tensors, target.name))
        written.append(target)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}, indent=1))
    return written


def _read(file: Path) -> dict[str, Tensor]:
    """The tensors of a pickled file, each with storage of its own, as safetensors wants them."""
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, OSError, RuntimeError) as error:
        raise ModelError(f"{file} holds more than tensors, or is not whole; nothing was converted: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"{file} is no table of tensors by name")
    return {name: value.clone(memory_format=torch.contiguous_format) for name, value in found.items()}


if __name__ == "__main__":
    try:
        print(*convert(Path(sys.argv[1])), sep="\n")
    except IndexError:
        sys.exit(f"usage: {Path(sys.argv[0]).stem} FOLDER")
    except ModelError as error:
        sys.exit(str(error))

"""A model whose parts lie on several devices (`--device-map auto`, through accelerate), and what may not lie elsewhere.

    home, the first GPU   embeddings, image encoder, projector, final norm, unembedding, and the first decoder layers
    the next GPUs         the decoder layers behind them, in order
    CPU, disk             the layers that no GPU has room for: each is fetched whenever it runs

Inputs go home and logits come from there, so that all that is captured is brought home, and scores are computed there;
a product with a layer's W_out is taken where that layer lies. The embeddings, the final norm and the unembedding, which
every score needs whole, have to be at home.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import nn

from mmn.errors import UsageError
from mmn.models.adapters import Anatomy
from mmn.models.adapters.structure import find_structure

DeviceMap = str | Mapping[str, str | int]
AUTO: Final = "auto"
ROOM: Final = 0.85  # of a GPU's free memory, for weights: the rest is for activations, keys and values
_OFFLOADED: Final = torch.device("meta")


def require_map(device_map: DeviceMap, device: str) -> None:
    """Raises `UsageError` where a device is asked for beside a map, or accelerate is not installed."""
    if device != AUTO:
        raise UsageError(f"--device-map {device_map}: it chooses the devices; leave --device {device} out")
    if find_spec("accelerate") is None:
        raise UsageError("--device-map needs accelerate: `pip install accelerate`, then try again")


def places_of(device_map: DeviceMap, empty: nn.Module, dtype: torch.dtype) -> DeviceMap:
    """What `from_pretrained` is given for `auto`, by the memory that is free, and for accelerate's own map.

    Args:
        device_map: either.
        empty: the model without its weights.
        dtype: of the weights once they are loaded.
    """
    if device_map != AUTO:
        return device_map
    free = [torch.cuda.mem_get_info(gpu)[0] for gpu in range(torch.cuda.device_count())]
    return spread(empty, dtype, [int(ROOM * one) for one in free])


def spread(empty: nn.Module, dtype: torch.dtype, rooms: list[int]) -> dict[str, str | int]:
    """Where each part goes: the first GPU is filled before the next; layers that none has room for stay on the CPU.

    Args:
        empty: the model without its weights.
        dtype: of the weights once they are loaded.
        rooms: bytes that each GPU has for weights; without one, all is on the CPU.
    """
    if not rooms:
        return {"": "cpu"}
    layers = [layer.path for layer in find_structure(empty).layers]
    size = {path: _bytes(empty.get_submodule(path), dtype) for path in layers}
    left = [rooms[0] - (_bytes(empty, dtype) - sum(size.values())), *rooms[1:]]
    places: dict[str, str | int] = dict.fromkeys(_beside(empty, layers), 0)
    gpu = 0
    for path in layers:
        while gpu < len(left) and left[gpu] < size[path]:
            gpu += 1
        places[path] = gpu if gpu < len(left) else "cpu"
        if gpu < len(left):
            left[gpu] -= size[path]
    return places


def _bytes(module: nn.Module, dtype: torch.dtype) -> int:
    return sum(one.numel() for one in module.parameters()) * dtype.itemsize


def _beside(module: nn.Module, layers: list[str]) -> Iterator[str]:
    """Paths of all that is no decoder layer and holds none: the outermost ones, and tensors of what holds some."""
    direct = {path.rpartition(".")[0] for path in layers}
    holders = direct | {one[:end] for one in direct for end, letter in enumerate(one) if letter == "."} | {""}
    for holder in sorted(holders):
        part = module.get_submodule(holder)
        own = [name for name, _ in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False))]
        for name in (*(name for name, _ in part.named_children()), *own):
            path = f"{holder}.{name}".lstrip(".")
            if path not in holders and path not in layers:
                yield path


def require_loaded(module: nn.Module, why: str) -> None:
    """Raises `UsageError` where weights are offloaded that have to be changed, before anything is changed."""
    if any(one.is_meta for one in module.parameters()):
        raise UsageError(
            f"--device-map: {why}, and no GPU has room for some of its layers; use more or larger GPUs, or leave "
            "--device-map out (--device cpu needs no GPU)"
        )


def device_of(module: Any) -> torch.device:
    """Where inputs go: of a module in several places, where its embeddings are."""
    if getattr(module, "hf_device_map", None):
        return module.get_input_embeddings().weight.device
    return module.device


def require_together(module: Any, anatomy: Anatomy, name: str) -> None:
    """Refuses a model in several places whose embeddings, final norm and unembedding are not in one.

    Raises:
        UsageError: one of them is in other memory, on disk, or on another device than the embeddings.
    """
    first = device_of(module)
    for what, part in (
        ("the input embedding", module.get_input_embeddings()),
        ("the final norm", anatomy.final_norm),
        ("the unembedding", anatomy.unembedding),
    ):
        for parameter in part.parameters(recurse=False):
            if parameter.device == _OFFLOADED:
                where = "offloaded to the CPU or the disk"
            elif parameter.device != first:
                where = f"on {parameter.device}, and the embeddings are on {first}"
            else:
                continue
            raise UsageError(
                f"--device-map: {what} of {name} is {where}, where scores cannot read it; use --device-map auto, or a "
                "map that puts embeddings, final norm and unembedding on one device"
            )

"""A model whose parts lie on several devices (`--device-map auto`, through accelerate), and what may not lie elsewhere.

Scores are read from the embeddings' device: W_out of every layer, the final norm and the unembedding have to be there
whole. What is only run, as the image encoder, may be in other memory or on disk, and is fetched while it runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import nn

from mmn.errors import UsageError
from mmn.models.adapters import Anatomy

DeviceMap = str | Mapping[str, str | int]
AUTO: Final = "auto"
_OFFLOADED: Final = torch.device("meta")


def asked_map(device_map: DeviceMap, device: str) -> DeviceMap:
    """What `from_pretrained` is given: `auto` fills the first device before the next, so that a decoder stays whole.

    Raises:
        UsageError: accelerate is not installed; a device is asked for, too.
    """
    if device != AUTO:
        raise UsageError(f"--device-map {device_map}: it chooses the devices; leave --device {device} out")
    if find_spec("accelerate") is None:
        raise UsageError("--device-map needs accelerate: `pip install accelerate`, then try again")
    return "sequential" if device_map == AUTO else device_map


def device_of(module: Any) -> torch.device:
    """Where inputs go: of a module in several places, where its embeddings are."""
    if getattr(module, "hf_device_map", None):
        return module.get_input_embeddings().weight.device
    return module.device


def require_together(module: Any, anatomy: Anatomy, name: str) -> None:
    """Refuses a model in several places whose scores cannot be read in one.

    Raises:
        UsageError: a matrix that scores are read from is in other memory, on disk, or on another device.
    """
    first = device_of(module)
    for what, part in _read_by_scores(module, anatomy):
        for parameter in part.parameters(recurse=False):
            if parameter.device == _OFFLOADED:
                where = "offloaded to the CPU or the disk"
            elif parameter.device != first:
                where = f"on {parameter.device}, and the embeddings are on {first}"
            else:
                continue
            raise UsageError(
                f"--device-map: {what} of {name} is {where}, where scores cannot read it; load it in half precision "
                "(--dtype bfloat16), use a larger GPU, or leave --device-map out (--device cpu needs no GPU)"
            )


def _read_by_scores(module: Any, anatomy: Anatomy) -> Iterator[tuple[str, nn.Module]]:
    yield "the input embedding", module.get_input_embeddings()
    for layer, out in enumerate(anatomy.ffn_outs):
        yield f"the FFN's output matrix of layer {layer}", out
    for layer, norm in enumerate(anatomy.post_ffns):
        yield f"the norm after the FFN of layer {layer}", norm
    yield "the final norm", anatomy.final_norm
    yield "the unembedding", anatomy.unembedding

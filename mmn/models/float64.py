"""Float64 wherever tensors lie."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(values: Tensor) -> Tensor:
    """The values in float64: where they lie, or on the CPU where the accelerator has no such numbers (Apple's MPS)."""
    return values.double() if has_float64(values.device) else values.cpu().double()


def has_float64(device: torch.device) -> bool:
    return device.type != "mps"


def place_of_wide(device: torch.device) -> torch.device:
    """Where float64 values are kept that belong to a device."""
    return device if has_float64(device) else torch.device("cpu")

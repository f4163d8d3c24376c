"""Which form a norm has: found by giving it numbers, since names do not say whether 1 is added to its gain."""

from __future__ import annotations

import copy
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmn.errors import UnsupportedModelError
from mmn.models.adapters.elsewhere import held


class Norm(Enum):
    """A norm's form: what a folded contribution must undo (METHODS: contribution-folded)."""

    RMS = "x / rms · γ"
    RMS_PLUS_ONE = "x / rms · (1 + γ)"
    LAYER = "(x - mean) / std · γ + β"  # β may be missing


TOLERANCE = 1e-5
EPSILONS = ("variance_epsilon", "eps", "epsilon")


def norm_form(name: str, module: nn.Module) -> Norm:
    """The form of a norm module, by what a copy of it with drawn weights makes of drawn numbers.

    Args:
        name: of the module, for the message.
        module: with its weights or on torch's `meta` device.

    Raises:
        UnsupportedModelError: it is of no form that is known, or has no gain.
    """
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 1:
        raise UnsupportedModelError(f"{name} ({type(module).__name__}) has no gain γ of one dimension")
    generator = torch.Generator().manual_seed(0)
    tried = copy.deepcopy(module).to_empty(device="cpu").float()
    with torch.no_grad():
        for parameter in tried.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        x = torch.randn(2, len(weight), generator=generator) + 1
        made = type(tried).forward(tried, x)  # past what accelerate puts around it
        for form in Norm:
            if torch.allclose(made, normed(form, tried, x), atol=TOLERANCE, rtol=TOLERANCE):
                return form
    forms = "; ".join(form.value for form in Norm)
    raise UnsupportedModelError(f"{name} ({type(module).__name__}) is no norm of a known form: {forms}")


def normed(form: Norm, module: nn.Module, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """What a norm of a form makes of x."""
    bias = getattr(module, "bias", None)
    if form is Norm.LAYER:
        x = x - x.mean(dim=-1, keepdim=True)
    scaled = x / scale(form, module, x) * gain(form, module).to(x.device)
    return scaled + bias.float() if form is Norm.LAYER and bias is not None else scaled


def gain(form: Norm, module: nn.Module) -> Float[Tensor, " d"]:
    """What a norm multiplies by behind its scale, in float32."""
    weight = held(module, "weight").float()
    return weight + 1 if form is Norm.RMS_PLUS_ONE else weight


def scale(form: Norm, module: nn.Module, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n 1"]:
    """What a norm divides x by: its rms or its deviation."""
    spread = x.var(dim=-1, correction=0, keepdim=True) if form is Norm.LAYER else x.square().mean(dim=-1, keepdim=True)
    return spread.add(epsilon(module)).sqrt()


def epsilon(norm: nn.Module) -> float:
    for name in EPSILONS:
        if hasattr(norm, name):
            return float(getattr(norm, name))
    raise AssertionError(f"{type(norm).__name__} has no epsilon under a known name")

"""Quantised checkpoints -> plain float matrices, in memory: what is multiplied, and so what is scored, is those.

A quantised matrix is whole numbers and scales; W = scale · number is what it stands for. Scores are read from W, in the
type that the model is loaded in, and the model says so (`Model.filled`, part of its fingerprint). Its logits are those
of W, too: kernels that multiply whole numbers round the activations as well, and give slightly others.

Left out: formats that transformers cannot turn back (GPTQ, AWQ, HQQ, …), and quanto, which it cannot save.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import nn

from mmn.errors import UnsupportedModelError


@dataclass(frozen=True)
class Format:
    """A quantiser of transformers that can be undone.

    Attributes:
        packages: that it needs, by their names on the package index.
        while_loading: whether its config takes `dequantize`, so that the weights come as floats from the start.
        afterwards: turns a loaded module's matrices into floats; given the module and the type.
        described: what the settings of a checkpoint are called.
    """

    packages: tuple[str, ...]
    while_loading: bool
    afterwards: Callable[[Any, torch.dtype], None]
    described: Callable[[Mapping[str, Any]], str]


def find_format(settings: Mapping[str, Any]) -> Format | None:
    """The format of a `quantization_config`, None where it cannot be turned back."""
    return FORMATS.get(str(settings.get("quant_method", "")))


def missing_packages(found: Format) -> tuple[str, ...]:
    """The packages that a format needs and that are not installed."""
    return tuple(name for name in found.packages if find_spec(name.replace("-", "_")) is None)


def prepare(config: Any) -> Format | None:
    """Lets a checkpoint's config ask for floats where its format can; None where nothing is quantised."""
    settings = getattr(config, "quantization_config", None)
    if not settings:
        return None
    found = find_format(settings)
    assert found is not None, f"not judged: {settings}"
    if found.while_loading:
        settings["dequantize"] = True
    return found


def dequantise(module: Any, found: Format, dtype: torch.dtype) -> None:
    """Turns every quantised matrix of a loaded module into a plain one.

    Raises:
        UnsupportedModelError: one is left that is no plain float matrix.
    """
    found.afterwards(module, dtype)
    if quantiser := getattr(module, "hf_quantizer", None):
        quantiser.remove_quantization_config(module)
    for name, parameter in module.named_parameters():
        if type(parameter) is not nn.Parameter or not parameter.is_floating_point():
            raise UnsupportedModelError(
                f"{name} is a {type(parameter).__name__} of {parameter.dtype} after it was dequantised, and scores are "
                "read from plain float matrices; give the checkpoint that it was made from"
            )


def sentence(config: Any, dtype: torch.dtype) -> tuple[str, ...]:
    """What a model's `filled` says of a checkpoint's quantisation; nothing where there is none."""
    settings = getattr(config, "quantization_config", None)
    if not settings:
        return ()
    found = find_format(settings)
    assert found is not None, f"not judged: {settings}"
    kind = str(dtype).removeprefix("torch.")
    return (f"its weights are {found.described(settings)}; run and scored is what they dequantise to, as {kind}",)


def _dequantise_bitsandbytes(module: Any, dtype: torch.dtype) -> None:
    """As one long row each: on a CPU, bitsandbytes 0.50 takes another's scale where a row is no multiple of a block."""
    shapes = {}
    for name, layer in module.named_modules():
        state = getattr(getattr(layer, "weight", None), "quant_state", None)
        if state is not None:
            shapes[name] = state.shape
            state.shape = torch.Size([1, state.shape.numel()])
    module.dequantize(dtype)
    for name, shape in shapes.items():
        layer = module.get_submodule(name)
        layer.weight = nn.Parameter(layer.weight.detach().reshape(shape), requires_grad=False)


def _dequantise_subclasses(module: Any, dtype: torch.dtype) -> None:
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            if type(parameter) is not nn.Parameter:
                setattr(part, name, nn.Parameter(parameter.detach().dequantize().to(dtype), requires_grad=False))


def _nothing_more(_module: Any, _dtype: torch.dtype) -> None:
    """The weights came as floats."""


def _describe_bitsandbytes(settings: Mapping[str, Any]) -> str:
    if settings.get("load_in_4bit"):
        return f"4-bit ({settings.get('bnb_4bit_quant_type', 'fp4')}, bitsandbytes)"
    return "8-bit (bitsandbytes)"


FORMATS: Final[dict[str, Format]] = {
    "bitsandbytes": Format(("bitsandbytes", "accelerate"), False, _dequantise_bitsandbytes, _describe_bitsandbytes),
    "torchao": Format(("torchao",), False, _dequantise_subclasses, lambda _settings: "quantised (torchao)"),
    "fp8": Format(("accelerate",), True, _nothing_more, lambda _settings: "8-bit floats (fp8)"),
    "compressed-tensors": Format(
        ("compressed-tensors",),
        True,
        _nothing_more,
        lambda settings: f"quantised ({settings.get('format', 'compressed-tensors')}, compressed-tensors)",
    ),
}

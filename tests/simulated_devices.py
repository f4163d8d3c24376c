"""GPUs that are not there: tensors that say where they lie, while their numbers lie on the CPU.

Inside `SimulatedDevices` a tensor has a label: the device that it was made on or moved to. `.device` tells it, and
what PyTorch refuses to mix on real devices is refused here with the same words, so that a line that makes its tensor in
the wrong place fails on a machine without a GPU, too. What is made within C++, as a gradient that a hook is given, has
no label and goes with all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

LABEL = "_simulated_device"
CPU = torch.device("cpu")
_OF: Any = vars(torch._C.TensorBase)  # its attributes as functions, which is what a mode is told of
DEVICE, IS_CUDA, GRAD = _OF["device"].__get__, _OF["is_cuda"].__get__, _OF["grad"].__get__
SET_DATA = _OF["data"].__set__
MOVES: set[Any] = {Tensor.to, Tensor.cuda, Tensor.cpu}
TAKES_ANY: set[Any] = {
    *(torch.autograd.grad, Tensor.copy_, Tensor.__setitem__, Tensor.type_as, SET_DATA, Tensor.set_),
    torch._has_compatible_shallow_copy_type,
}
NEEDS_CPU: set[Any] = {Tensor.numpy, Tensor.__array__}


class SimulatedDevices(TorchFunctionMode):
    """Holds what PyTorch would hold, had the machine GPUs; use with `with`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == DEVICE:
            return label_of(args[0]) or func(*args)
        if func == IS_CUDA:
            return (label_of(args[0]) or CPU).type == "cuda"
        if func in MOVES and not args[0].is_meta:
            return _moved(func, args, kwargs)
        if func in NEEDS_CPU and (label_of(args[0]) or CPU).type != "cpu":
            raise TypeError(f"can't convert {label_of(args[0])} device type tensor to numpy.")
        return _computed(func, args, kwargs)


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What a function makes, with its label."""
    wanted = None if kwargs.get("device") is None else _device(kwargs["device"])
    if wanted is not None and wanted.type == "meta":
        return func(*args, **kwargs)
    if wanted is not None:
        kwargs["device"] = CPU
    _require_generator(kwargs.get("generator"), wanted, func)
    if func is torch.histc and not args[0].is_floating_point():
        args = (args[0].float(), *args[1:])  # what CUDA counts as it is, a CPU counts as floats alone
    place = wanted or _together(func, args, kwargs)
    made = func(*args, **kwargs)
    if func == SET_DATA:
        return setattr(args[0], LABEL, label_of(args[1]))
    if func is torch.autograd.grad:
        return _label_gradients(made, args[1] if len(args) > 1 else kwargs["inputs"])
    if func is Tensor.__iter__:
        return iter([_label(one, place) for one in made])
    return _label(made, label_of(args[0]) if func == GRAD else place)


def label_of(tensor: Tensor) -> torch.device | None:
    return tensor.__dict__.get(LABEL)


def lies_on(module: torch.nn.Module, device: str) -> None:
    """Says of all that a module holds that it lies there."""
    for tensor in (*module.parameters(), *module.buffers()):
        setattr(tensor, LABEL, _device(device))


def _device(named: Any) -> torch.device:
    found = torch.device("cuda", named) if isinstance(named, int) else torch.device(named)
    return torch.device("cuda", 0) if found.type == "cuda" and found.index is None else found


def _moved(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """A tensor in another place, or in another format at the same."""
    own, target, rest = label_of(args[0]), label_of(args[0]), []
    if func is Tensor.cpu:
        target = CPU
    elif func is Tensor.cuda:
        target, func = _device(args[1] if len(args) > 1 else kwargs.get("device") or "cuda"), Tensor.cpu
        args, kwargs = args[:1], {}
    for value in args[1:]:
        if isinstance(value, Tensor):
            target = label_of(value)
        elif isinstance(value, torch.device | str) or (isinstance(value, int) and not isinstance(value, bool)):
            target, value = _device(value), CPU
        rest.append(value)
    if kwargs.get("device") is not None:
        target, kwargs["device"] = _device(kwargs["device"]), CPU
    if isinstance(kwargs.get("other"), Tensor):
        target = label_of(kwargs["other"])
    made = func(args[0], *rest, **kwargs)
    is_new = own is None and isinstance(made, torch.nn.Parameter)  # made in C++ of a tensor that has a label
    if made is args[0] and target != own and not is_new:
        made = made.clone()
    return _label(made, target)


def _together(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device | None:
    """Where what is made of some tensors lies.

    Raises:
        RuntimeError: they lie in several places.
    """
    tensors = [*_tensors(args), *_tensors(kwargs)]
    if not tensors:
        return CPU
    if func in TAKES_ANY:
        return label_of(tensors[0])
    labels = [label_of(one) for one in tensors if one.ndim or label_of(one) != CPU]
    if func is Tensor.__getitem__ and label_of(tensors[0]) not in (None, CPU):
        labels = [one for one in labels if one != CPU] or [label_of(tensors[0])]
    found = dict.fromkeys(one for one in labels if one is not None)
    if len(found) > 1:
        several = ", ".join(map(str, found))
        raise RuntimeError(f"Expected all tensors to be on the same device, but found several: {several} ({func})")
    return next(iter(found), CPU if any(label_of(one) == CPU for one in tensors) else None)


def _require_generator(generator: torch.Generator | None, wanted: torch.device | None, func: Any) -> None:
    if generator is not None and generator.device != (wanted or CPU):
        raise RuntimeError(f"Expected a {wanted} device type for generator but found {generator.device} ({func})")


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)


def _label(made: Any, place: torch.device | None) -> Any:
    for tensor in _tensors(made):
        if place is not None and place.type == "mps" and tensor.dtype is torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64: MPS has none")
        if place is not None:
            setattr(tensor, LABEL, place)
    return made


def _label_gradients(made: Any, inputs: Any) -> Any:
    for gradient, of in zip(made, [inputs] if isinstance(inputs, Tensor) else inputs, strict=True):
        _label(gradient, label_of(of))
    return made

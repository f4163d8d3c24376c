"""Weights that are not where the model's inputs are: on another GPU, or kept in other memory until their module runs.

accelerate leaves a parameter on the `meta` device, without values, where it is offloaded to the CPU or to disk, and
fetches it whenever the module is called. What scores read between calls is fetched here in the same way.
"""

from __future__ import annotations

from torch import Tensor, nn

HOOK = "_hf_hook"  # where accelerate keeps what it does around a module's forward


def held(module: nn.Module, name: str) -> Tensor:
    """A parameter or buffer of a module; where it is offloaded, its values from where accelerate keeps them.

    Of a module that was put together without values, on the `meta` device, it has none here, either.
    """
    value = getattr(module, name)
    assert isinstance(value, Tensor), (type(module).__name__, name)
    if not value.is_meta:
        return value
    hook = getattr(module, HOOK, None)
    kept = [one.weights_map for one in getattr(hook, "hooks", [hook]) if getattr(one, "weights_map", None)]
    return kept[0][name].detach() if kept else value

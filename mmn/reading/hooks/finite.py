"""Finds where in a model numbers stop being finite; asked only when its logits are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from mmn.models.model import Model
from mmn.reading.hooks.capture import first_given
from mmn.reading.hooks.lending import lent


@torch.inference_mode()
def first_not_finite(model: Model, inputs: Mapping[str, Tensor]) -> str:
    """The first part of the text decoder whose output is not finite, by name; at positions that are attended alone.

    Args:
        model: Its lock is held meanwhile.
        inputs: Model inputs of some rows (`Model.encode`), with what was generated after them.
    """
    anatomy = model.anatomy
    attended = _attended(inputs)
    found: list[str] = []

    def look(name: str, values: Tensor) -> None:
        by_row = values.reshape(*attended.shape, -1)
        if not torch.isfinite(by_row[attended]).all():
            found.append(name)

    def before(name: str) -> Callable[..., None]:
        return lambda _module, args, kwargs: look(name, first_given(args, kwargs))

    def after(name: str) -> Callable[..., None]:
        return lambda _module, _args, output: look(name, output[0] if isinstance(output, tuple) else output)

    with lent(model) as handles:
        entry = "what goes into the first layer (the words' or the picture's embedding)"
        handles.append(anatomy.layers[0].register_forward_pre_hook(before(entry), with_kwargs=True))
        for number, layer in enumerate(anatomy.layers):
            handles.append(layer.register_forward_hook(after(f"the output of layer {number}")))
        handles.append(anatomy.final_norm.register_forward_hook(after("the output of the final norm")))
        model.module(**inputs, use_cache=False)
    return found[0] if found else "the logits"


def _attended(inputs: Mapping[str, Tensor]) -> Bool[Tensor, "batch positions"]:
    """Which positions of the decoder are no padding."""
    if (ids := inputs.get("decoder_input_ids")) is not None:
        return inputs.get("decoder_attention_mask", torch.ones_like(ids)).bool()
    return inputs["attention_mask"].bool()


def weight_not_finite(module: nn.Module) -> str | None:
    """The first weight that holds an infinity or a NaN, by name."""
    return next((name for name, weight in module.named_parameters() if not torch.isfinite(weight).all()), None)

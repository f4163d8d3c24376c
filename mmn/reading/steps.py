"""A caption that is there already, read token by token as it was written, stopping behind each pass.

It is a generation with the KV cache on whose tokens are forced, so that every family prepares its inputs as it does
while it captions. `captions.read_encoded` reads a whole caption in one pass; here each step can be looked at alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import GenerationMixin

from mmn.models.model import Model
from mmn.reading.captions import decoder_ids, greedy

Visit = Callable[[int, Float[Tensor, " V"]], None]  # of a step: its number and the raw logits that it ends with


def without_last(inputs: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """The prompt without its last token, and that token, as if the caption began with it.

    So the first pass of a caption, too, is one of a single token. It gives the same where the prompt is read causally.
    """
    ids = decoder_ids(inputs)
    shapes = {name: getattr(value, "shape", None) for name, value in inputs.items()}  # a list of pictures has none
    cut = {name: value[:, :-1] if shapes[name] == ids.shape else value for name, value in inputs.items()}
    return cut, ids[0, -1:].tolist()


@torch.inference_mode()
def read_in_steps(
    model: Model, inputs: dict[str, Tensor], token_ids: Sequence[int], n_steps: int, visit: Visit
) -> None:
    """Calls `visit` behind each of the first passes of one picture's caption, before the next one begins.

    Args:
        model: under whatever hooks are on it.
        inputs: the prompt's, of one row.
        token_ids: the caption; pass j predicts its token j.
        n_steps: how many passes.
        visit: what looks at a pass.
    """
    done = 0

    def force(_ids: Tensor, logits: Float[Tensor, "1 V"]) -> Float[Tensor, "1 V"]:
        nonlocal done
        visit(done, logits[0])
        forced = torch.full_like(logits, -torch.inf)
        forced[:, token_ids[done]] = 0
        done += 1
        return forced

    _generate(model)(**inputs, generation_config=greedy(model, n_steps), logits_processor=[force])
    assert done == n_steps, f"{done} of {n_steps} passes: a caption that holds an end token"


def _generate(model: Model) -> Callable[..., object]:
    """The model's `generate`, or the one that it overrides, where its own takes processors and keeps them for pictures
    that it draws (Janus).
    """
    own = type(model.module).generate
    if own is GenerationMixin.generate or "logits_processor" not in inspect.signature(own).parameters:
        return model.module.generate
    return partial(GenerationMixin.generate, model.module)

"""The residual stream over a prompt with a picture, after every layer, from one plain pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmn.models.image_tokens import image_positions
from mmn.models.model import Model

TOLERANCE: Final = {torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.1}  # a few roundings of the last norm


@dataclass(frozen=True)
class Stream:
    """The residual stream of one prompt with one picture.

    `after[l]` is it after layer l, before the final norm but for the last layer, which the libraries hand out normed.
    """

    is_image: Bool[Tensor, " positions"]
    embeddings: Float[Tensor, "positions d"]
    after: tuple[Float[Tensor, "positions d"], ...]

    @property
    def image_embeddings(self) -> Float[Tensor, "tokens d"]:
        """The projected image tokens, as they enter the decoder."""
        return self.embeddings[self.is_image]


@torch.inference_mode()
def read_stream(model: Model, inputs: dict[str, Tensor]) -> Stream:
    """The residual stream of the first row of `inputs`, after every layer; checked against the model's own logits.

    Raises:
        UsageError: as `image_positions`.
        AssertionError: the last state is not what the unembedding is applied to, so the library hands out another site.
    """
    is_image = image_positions(model, inputs)[0]
    with model.lock:
        output = model.module(**inputs, output_hidden_states=True, use_cache=False, logits_to_keep=1)
    states = _decoder_states(output)
    n_layers = model.anatomy.n_layers
    assert len(states) == n_layers + 1, f"{len(states)} hidden states of {n_layers} layers"
    stream = Stream(is_image, states[0][0], tuple(state[0].to(model.device) for state in states[1:]))
    own = output.logits[0, -1].float()
    ours = model.anatomy.logits(model.anatomy.unembedding(stream.after[-1][-1]).float())
    error = ((own - ours).abs().max() / own.abs().max()).item()
    assert error <= TOLERANCE[model.dtype], f"the last hidden state misses the logits by {error:.2g} of the largest"
    return stream


def normed_stream(model: Model, stream: Stream, layer: int) -> Float[Tensor, "positions d"]:
    """The residual stream after `layer` behind the final norm, once: after the last layer it has been there already."""
    after = stream.after[layer]
    return after if layer == model.anatomy.n_layers - 1 else model.anatomy.final_norm(after)


def _decoder_states(output: Any) -> tuple[Tensor, ...]:
    """BLIP's outputs nest those of the language model; the others hand them out directly."""
    nested = getattr(output, "language_model_outputs", None)
    return (output if nested is None else nested).hidden_states

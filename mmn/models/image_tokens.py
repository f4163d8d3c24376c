"""The positions of a prompt that hold the picture: those of the placeholder token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from mmn.errors import UsageError
from mmn.models.model import Model


def image_positions(model: Model, inputs: Mapping[str, Any]) -> Bool[Tensor, "batch positions"]:
    """True where `input_ids` of `inputs` (`Model.encode`) hold the placeholder of a picture's token.

    Raises:
        UsageError: the family has no placeholder (its picture enters by cross-attention), or this prompt has none.
    """
    if model.image_token_id is None:
        raise UsageError(f"models of family {model.facts.family!r} have no image tokens in their prompt")
    mask = inputs["input_ids"] == model.image_token_id
    if not mask.any():
        raise UsageError(
            f"the prompt holds no image tokens (id {model.image_token_id}); let `Model.exact_prompt` write it"
        )
    return mask

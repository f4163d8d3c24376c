"""The positions of a prompt that hold the picture: those of the placeholder token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from mmn.errors import UsageError
from mmn.models.model import Model


def require_image_tokens(model: Model, what: str = "") -> None:
    """Raises `UsageError` for a model whose decoder has no image tokens; `what` was asked for needs them."""
    if model.image_token_id is None:
        needs = what and f"{what} is of units at image tokens, and "
        why = "; an encoder reads them, and scores are of the decoder's units" if model.has_encoder else ""
        raise UsageError(f"{needs}models of family {model.facts.family!r} have no image tokens in their prompt{why}")


def image_positions(model: Model, inputs: Mapping[str, Any]) -> Bool[Tensor, "batch positions"]:
    """True where `input_ids` of `inputs` (`Model.encode`) hold the placeholder of a picture's token.

    Raises:
        UsageError: the family has no placeholder (its picture enters by cross-attention), or this prompt has none.
    """
    require_image_tokens(model)
    mask = inputs["input_ids"] == model.image_token_id
    if not mask.any():
        raise UsageError(
            f"the prompt holds no image tokens (id {model.image_token_id}); let `Model.exact_prompt` write it"
        )
    return mask

"""Does replacing image tokens, or blocking attention to them, do in this model what is said of it? Tried on a picture.

    replaced    with every image token replaced by the mean, a grey picture predicts what this one does: the picture
                enters nowhere else (Qwen3-VL hands it to later layers, too)
    blocked     with nothing blocked, but masks written out, the logits are the plain ones; and where the last position
                is blind to all others in every layer, it predicts the same whatever the picture: nothing passes by
                (linear attention and convolutions heed no mask)

What does not hold is refused by the family's name. OURS.
"""

from __future__ import annotations

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from mmn.errors import UsageError
from mmn.models.image_tokens import image_positions
from mmn.models.model import Model
from mmn.reading.hooks import Blocked, block_attention, embed
from mmn.reading.rows import Inputs, repeated

TOLERANCE: Final = {torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.1}  # of the largest logit: rounding


@torch.no_grad()
def require_replaceable(model: Model, inputs: Inputs, of_other: Inputs, mean: Float[Tensor, " d"]) -> None:
    """Raises `UsageError` where a picture reaches the decoder by another way, too, than its image tokens.

    `of_other` are the inputs of another picture of the same size.
    """
    if not _are_alike(model, _last_logits(model, inputs, mean), _last_logits(model, of_other, mean)):
        raise UsageError(
            f"image tokens of a {model.facts.family!r} model cannot be replaced at the decoder's input: with all of "
            "them replaced it still sees the picture, which is handed to later layers, too"
        )


@torch.no_grad()
def require_blockable(model: Model, inputs: Inputs, mean: Float[Tensor, " d"]) -> None:
    """Raises `UsageError` where blocking attention by masks does not keep a position from reading others."""
    at = image_positions(model, inputs)
    n = at.shape[1]
    plain = model.module(**inputs, use_cache=False).logits[:, -1].float()
    last, before = (torch.zeros(3, n, dtype=torch.bool, device=model.device) for _ in range(2))
    last[:2, -1], before[:2, :-1] = True, True
    everywhere = torch.ones(3, model.anatomy.n_layers, dtype=torch.bool, device=model.device)
    is_replaced = torch.tensor([False, True, False], device=model.device)[:, None]
    values = mean.to(model.device).expand(3, n, -1)
    with embed(model, at & is_replaced, values), block_attention(model, Blocked(last, before, everywhere)):
        logits = model.module(**repeated(inputs, 3), use_cache=False).logits[:, -1].float()
    if not _are_alike(model, logits[:1], logits[1:2]) or not _are_alike(model, logits[2:], plain):
        raise UsageError(
            f"attention of a {model.facts.family!r} model cannot be blocked by masks: a position that was blind to all "
            "others still read them, or masks changed what was not blocked"
        )


def _last_logits(model: Model, inputs: Inputs, mean: Float[Tensor, " d"]) -> Float[Tensor, "1 V"]:
    """What the last position of a prompt predicts with every image token replaced."""
    at = image_positions(model, inputs)
    with embed(model, at, mean.to(model.device).expand(*at.shape, -1)):
        return model.module(**inputs, use_cache=False).logits[:, -1].float()


def _are_alike(model: Model, one: Float[Tensor, "1 V"], other: Float[Tensor, "1 V"]) -> bool:
    return bool((one - other).abs().max() <= TOLERANCE[model.dtype] * one.abs().max())

"""Does a model work here? One caption of one picture, scored, and what it says about the adapter."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from mmn.budget import Reading, logit_budget
from mmn.captions import caption_batch
from mmn.hooks import ACTIVATION, FINAL, ONCE
from mmn.image_tokens import image_positions
from mmn.models import Model
from mmn.scores import contribution, folded_rows

PICTURE_SIDE = 336
N_TOKENS = 8


def examine(model: Model) -> dict[str, Any]:
    """Facts of a model by name, with the exactness residual over the tokens of one caption.

    `exactness_residual` is the largest |residual| / max(|logit|, 1): rounding (about 1e-6 in float32, 1e-2 in half
    precision) when the adapter is right.
    """
    anatomy = model.anatomy
    return {
        "model": model.facts.name,
        "family": model.facts.family,
        "n_layers": model.facts.n_layers,
        "d_mlp": model.facts.d_mlp,
        "n_units": model.facts.n_units,
        "site": "input of the FFN output matrix",
        "norm": anatomy.norm.name.lower(),
        "is_gated": anatomy.is_gated,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "fingerprint": model.facts.fingerprint,
        "prompt": model.exact_prompt(model.default_prompt),
        **_try_caption(model),
    }


@torch.inference_mode()
def _try_caption(model: Model) -> dict[str, Any]:
    prompt = model.exact_prompt(model.default_prompt)
    image = _test_picture()
    batch = caption_batch(model, [image], prompt, N_TOKENS)
    n_steps = len(batch.logits)
    steps = torch.arange(n_steps)
    rows = torch.zeros(n_steps, dtype=torch.long)
    logits = batch.logits_at(rows, steps)
    tokens = logits.argmax(-1)
    w_u = model.anatomy.w_u(tokens)
    folded = folded_rows(model.anatomy, w_u, batch.captured.read(FINAL, ONCE, rows, steps))
    scores = contribution(model.anatomy, batch.captured.read_layers(ACTIVATION, rows, steps), folded)
    budget = logit_budget(model.anatomy, batch.captured, Reading(rows, steps, tokens), folded, scores)
    logit = logits.gather(1, tokens[:, None])[:, 0].double()
    residual = ((logit - budget.total()).abs() / logit.abs().clamp(min=1)).max().item()
    return {
        "caption": batch.captions[0].text,
        "n_image_tokens": n_image_tokens(model, image, prompt),
        "exactness_residual": residual,
    }


def n_image_tokens(model: Model, image: Image.Image, exact_prompt: str) -> int | None:
    """How many positions of the prompt are the picture's; None where the family has no placeholder token."""
    if model.image_token_id is None:
        return None
    return int(image_positions(model, model.encode([image], exact_prompt)).sum())


def _test_picture() -> Image.Image:
    """A gradient with a square: any picture will do."""
    picture = Image.linear_gradient("L").resize((PICTURE_SIDE, PICTURE_SIDE)).convert("RGB")
    picture.paste((200, 40, 40), (100, 100, 220, 220))
    return picture

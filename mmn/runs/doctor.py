"""Does a model work here? Two pictures captioned, and what that says about the model, its processor and its adapter.

`check` is what both `mmn doctor` and `mmn score` do before anything else; it raises where scores would mean nothing:

    image tokens     in the prompt, as many as the projector gives features
    finite           logits, at every step
    pixels           other pixels, other logits: the picture is seen
    proof            the model is what its anatomy says (`proof`)
"""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mmn.counts import counted
from mmn.errors import BatchError, EncodingError, ModelError, UnsupportedModelError
from mmn.models.model import Model
from mmn.models.processors import of_another_family
from mmn.reading.captions import CaptionBatch, caption_encoded
from mmn.runs.proof import Proof, prove
from mmn.safety.boundary import Translated

PICTURE_SIDE = 336
N_TOKENS = 8
_NO_PICTURE = "its chat template leaves the picture out of the prompt: give it its family's template, or none"


@dataclass(frozen=True)
class Checked:
    """What a check found. `pixel_effect` is the largest change of a logit, over the vocabulary, from one test picture
    to the other.

    Numbers of image tokens and of features are those of one picture, None where the family has no placeholder token;
    of features None, too, where it does not tell.
    """

    caption: str
    n_image_tokens: int | None
    n_image_features: int | None
    pixel_effect: float
    proof: Proof


def examine(model: Model) -> dict[str, Any]:
    """Facts of a model by name, with what `check` found.

    Raises:
        ModelError: as `check`.
    """
    anatomy = model.anatomy
    prompt = model.exact_prompt(model.default_prompt)
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
        "filled": list(model.filled),
        "prompt": prompt,
        **_facts_of(check(model, prompt)),
    }


def _facts_of(checked: Checked) -> dict[str, Any]:
    """What was found, each number under one name: the proof's behind what it proves."""
    facts = asdict(checked)
    proof = facts.pop("proof")
    return (
        facts | {"exactness_residual": proof.pop("exact")} | {f"{name}_error": error for name, error in proof.items()}
    )


def check(model: Model, exact_prompt: str) -> Checked:
    """Captions two test pictures and checks all that scores rest on.

    Raises:
        EncodingError: the processor fails on a plain picture.
        ModelError: no image tokens, or not as many as features; a forward pass fails, or is not finite.
        UnsupportedModelError: the pixels change nothing, or the logits are not what the adapter says they add up to.
    """
    inputs = _encode(model, exact_prompt)
    n_tokens, n_features = _require_image_tokens(model, inputs)
    try:
        with Translated(f"{model.facts.name}: captioning a test picture fails"):
            batch = caption_encoded(model, inputs, N_TOKENS)
    except BatchError as error:
        raise ModelError(f"{model.facts.name}: {error}") from error
    effect = _require_sight(model, batch)
    return Checked(batch.captions[0].text, n_tokens, n_features, effect, prove(model, batch))


def _encode(model: Model, exact_prompt: str) -> dict[str, Tensor]:
    try:
        return model.encode(_test_pictures(), exact_prompt)
    except EncodingError as error:
        placeholder = str(getattr(model.processor, "image_token", ""))
        if model.processor.chat_template and placeholder not in exact_prompt:
            raise ModelError(f"{model.facts.name}: {_NO_PICTURE}") from error
        raise


@torch.inference_mode()
def _require_image_tokens(model: Model, inputs: dict[str, Tensor]) -> tuple[int | None, int | None]:
    """The numbers of placeholders and of features of the first picture; equal, unless the family has no placeholder."""
    placeholder = model.placeholder_id if model.has_encoder else model.image_token_id
    if placeholder is None or "input_ids" not in inputs:
        return None, None
    n_tokens = (inputs["input_ids"] == placeholder).sum(1).tolist()
    name = model.facts.name
    if not all(n_tokens):
        processor = "its processor writes no image tokens: save it with the number of tokens that a picture takes"
        raise ModelError(f"{name}: {_NO_PICTURE if model.processor.chat_template else processor}")
    n_features = _image_features(model, inputs)
    if n_features is None:
        return n_tokens[0], None
    if sum(n_tokens) != n_features:
        raise ModelError(
            f"{name}: its processor writes {counted(sum(n_tokens), 'image token')} for "
            f"{counted(len(n_tokens), 'picture')}, and its "
            f"projector gives {n_features} features; mend patch_size, num_additional_image_tokens, "
            "vision_feature_select_strategy or num_query_tokens in processor_config.json"
        )
    return n_tokens[0], n_features // len(n_tokens)


def _image_features(model: Model, inputs: dict[str, Tensor]) -> int | None:
    """How many image tokens the projector gives for all pictures of `inputs`; None where the family does not tell."""
    parts = [getattr(model.module, "model", None), model.module]  # the outer one may take anything, and hand it on
    get_features = next((part.get_image_features for part in parts if hasattr(part, "get_image_features")), None)
    known = inspect.signature(get_features).parameters if get_features else {}
    needed = {name for name, one in known.items() if one.default is one.empty and one.kind is not one.VAR_KEYWORD}
    if get_features is None or not needed <= set(inputs):
        return None
    stranger = of_another_family(model.processor, model.module.config.model_type)
    with Translated(f"{model.facts.name}: its image encoder fails on a test picture{stranger}"):
        features = get_features(**{name: value for name, value in inputs.items() if name in known}).pooler_output
    return None if features is None else sum(one.shape[:-1].numel() for one in features)


def _require_sight(model: Model, batch: CaptionBatch) -> float:
    """The largest difference of a first logit between the pictures; beyond what rounding makes of equal ones.

    Words that the model may not say, with a logit at the lowest number (Chameleon), are left out.
    """
    first, second = batch.logits[0].float()[:, batch.logits[0][0] > torch.finfo(model.dtype).min / 2]
    effect = (first - second).abs().max().item()
    if effect <= torch.finfo(model.dtype).eps * first.abs().max().item():
        raise UnsupportedModelError(
            f"{model.facts.name} does not see the picture: two different ones give the same logits (to {effect:.1g}); "
            "its weights or its processor are not whole"
        )
    return effect


def _test_pictures() -> list[Image.Image]:
    """A gradient with a square, and stripes of other colours: any two will do that differ everywhere."""
    picture = Image.linear_gradient("L").resize((PICTURE_SIDE, PICTURE_SIDE)).convert("RGB")
    other = Image.new("RGB", picture.size, (230, 220, 40))
    picture.paste((200, 40, 40), (100, 100, 220, 220))
    for left in range(0, PICTURE_SIDE, 84):
        other.paste((20, 60, 160), (left, 0, left + 42, PICTURE_SIDE))
    return [picture, other]

"""A tiny random model of every type in transformers' image-text-to-text mapping, and inputs with a picture.

`build("gemma3")` makes the type's own default config small (`shrink.py`), adds what that type needs (`OVERRIDES`), and
saves and loads the model as a user does. Nothing is downloaded. `REFUSED` says of the rest why they cannot be run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from tests.families.inputs import encode_bare
from tests.families.overrides import OVERRIDES
from tests.families.shrink import VOCABULARY, shrink

TYPES: tuple[str, ...] = tuple(sorted(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES))
BUILT_BY: dict[str, str] = dict(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0}
IMAGE_ID = 3  # `<image>` of the specimen's tokenizer
FIRST_OTHER_ID = 500  # above the words of the specimen's tokenizer
_IMAGE_KEYS = ("image_token_id", "image_token_index", "image_patch_id")
Inputs = dict[str, Tensor]

TIMM = "its image encoder needs the package timm, which is not installed"
REFUSED: dict[str, str] = {
    "evolla": "no image input: it reads proteins",
    "fast_vlm": TIMM,
    "gemma3n": TIMM,
    "mistral4": "no image input: the type is a text decoder alone",
    "perception_lm": TIMM,
    "pi0": "no text output: it gives a robot's actions",
}


@dataclass(frozen=True)
class TinyVLM:
    """A model as `from_pretrained` gives it, in float32, and what turns pictures into its inputs.

    Attributes:
        processor: the type's own, where it can be made without packages that are not installed.
        encode: pictures -> one prompt for each, with as many image tokens as the picture gives.
    """

    model_type: str
    module: nn.Module
    processor: Any | None
    encode: Callable[[Sequence[Image.Image]], Inputs]


def build(model_type: str, seed: int = 0) -> TinyVLM:
    """The tiny model of a type, saved and loaded again.

    Raises:
        ImportError: when the type needs a package that is not installed.
    """
    module = new_model(model_type, seed)
    with tempfile.TemporaryDirectory() as folder:
        module.save_pretrained(folder)
        module = load(Path(folder))
    return TinyVLM(model_type, module, None, lambda images: encode_bare(module, images))


def new_model(model_type: str, seed: int = 0, more: Mapping[str, Any] | None = None) -> Any:
    """The tiny model of a type as it is made, with norm scales, biases and gates that are not trivial."""
    torch.manual_seed(seed)
    module = getattr(transformers, BUILT_BY[model_type])(tiny_config(model_type, more)).float()
    _roughen(module)
    return module


def load(folder: Path) -> Any:
    """As a user loads a checkpoint."""
    module = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    return module.eval().requires_grad_(False)


def tiny_config(model_type: str, more: Mapping[str, Any] | None = None) -> Any:
    """The default config of a type, small, with token ids inside the small vocabulary and this type's overrides.

    `more` are settings by dotted path on top of `OVERRIDES`.
    """
    config_type = CONFIG_MAPPING[model_type]
    settings = shrink(config_type().to_dict())
    for path, value in (OVERRIDES.get(model_type, {}) | dict(more or {})).items():
        _set(settings, path, value)
    _renumber_tokens(settings, _other_ids(settings))
    for key in ("transformers_version", "architectures", "model_type"):
        settings.pop(key, None)
    return config_type(**settings)


def _set(settings: dict[str, Any], path: str, value: Any) -> None:
    *parents, key = path.split(".")
    for parent in parents:
        if settings.get(parent) is None:
            settings[parent] = {}
        settings = settings[parent]
    if isinstance(value, dict) and isinstance(settings.get(key), dict) and key.endswith("_config"):
        value = settings[key] | value
    settings[key] = value


def _is_token_id(key: str, value: Any) -> bool:
    return str(key).endswith(("token_id", "token_index", "_patch_id")) and isinstance(value, int)


def _other_ids(settings: dict[str, Any]) -> dict[str, int]:
    """Ids of the type's other special tokens (`vision_start_token_id`, ...), one for each name."""
    names = sorted(_token_keys(settings) - set(SPECIAL) - set(_IMAGE_KEYS))
    return {name: FIRST_OTHER_ID + i for i, name in enumerate(names)}


def _token_keys(settings: dict[str, Any]) -> set[str]:
    keys = {key for key, value in settings.items() if _is_token_id(key, value)}
    return keys.union(*(_token_keys(value) for value in settings.values() if isinstance(value, dict)))


def _renumber_tokens(settings: dict[str, Any], others: dict[str, int]) -> None:
    for key, value in settings.items():
        if isinstance(value, dict):
            _renumber_tokens(value, others)
        elif key in SPECIAL:
            settings[key] = SPECIAL[key]
        elif key in _IMAGE_KEYS and value != VOCABULARY:
            settings[key] = IMAGE_ID
        elif key in others and isinstance(value, int):
            settings[key] = others[key]


def _roughen(module: nn.Module) -> None:
    """Norm scales of exactly 1, biases and gates of exactly 0, would hide mistakes."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if not parameter.isfinite().all() or parameter.abs().max() > 1e4:
                parameter.normal_(std=0.02)  # left empty by the type's own initialisation
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.numel() == 1 else 0.05))
            assert parameter.isfinite().all(), name
        for name, buffer in module.named_buffers():
            if buffer.numel() == 1 and "scalar" in name:
                buffer.fill_(0.7)

"""LiMBeR, the model of P1: a frozen image encoder, one linear map, and a text-only decoder that never saw a picture.

Merullo et al. 2022, arXiv 2209.15162; P1 (arXiv 2308.01544) reads BEiT's 196 patches into GPT-J that way. The three
parts are checkpoints of their own, so a small file says which they are (`limber:FILE.json`):

    {"language_model": "EleutherAI/gpt-j-6b", "vision_model": "microsoft/beit-large-patch16-224-pt22k",
     "projection": "projection.safetensors"}

Folders and files count from where that file is; the projection is safetensors with `weight` (text width × image width)
and `bias`. Each patch state (without BEiT's class token) becomes one image token, before the words, as in P1.

Left out: LiMBeR's other encoders (CLIP's ResNet, NF-ResNet), and projections as pickled `.ckpt`: convert those first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Float, Int
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mmn.errors import ModelError
from mmn.models.adapters import FAMILIES, find_anatomy
from mmn.models.checkpoints import fingerprint, module_without_weights, read_config
from mmn.models.hub import find_checkpoint
from mmn.models.weights import load_weights
from mmn.safety.boundary import Translated
from mmn.safety.roots import require_inside

PARTS: Final = ("language_model", "vision_model", "projection")
PLACEHOLDER: Final = "<image>"


class LimberConfig(PretrainedConfig):  # type: ignore[misc]
    """What the two halves are, and the placeholder that stands for an image token in `input_ids`."""

    model_type = "limber"

    def __init__(self, text_config: Any = None, vision_config: Any = None, image_token_id: int = -1, **more: Any):
        self.text_config, self.vision_config, self.image_token_id = text_config, vision_config, image_token_id
        self.default_prompt = "A picture of"  # P1's
        super().__init__(**more)

    def get_text_config(self, *_given: Any, **_more: Any) -> Any:
        return self.text_config or self


class LimberForConditionalGeneration(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """Image tokens in the places of their placeholders, then the text decoder as it is."""

    config_class = LimberConfig

    def __init__(self, config: LimberConfig, vision_model: Any, language_model: Any) -> None:
        super().__init__(config)
        self.vision_model, self.language_model = vision_model, language_model
        self.projection = nn.Linear(config.vision_config.hidden_size, config.text_config.hidden_size)
        self.generation_config = language_model.generation_config

    def get_input_embeddings(self) -> Any:
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        return self.language_model.get_output_embeddings()

    def forward(
        self,
        input_ids: Int[Tensor, "batch positions"],
        pixel_values: Float[Tensor, "batch 3 height width"] | None = None,
        logits_to_keep: int = 0,
        **more: Any,
    ) -> Any:
        """The decoder's own output; `pixel_values` go with the first pass, the one that holds the placeholders."""
        is_image = input_ids == self.config.image_token_id
        embeddings = self.get_input_embeddings()(input_ids.masked_fill(is_image, 0))
        if pixel_values is not None:
            tokens = self.get_image_features(pixel_values).pooler_output.to(embeddings.dtype)
            assert is_image.sum() == tokens[..., 0].numel(), (is_image.sum(), tokens.shape)
            embeddings = embeddings.masked_scatter(is_image[..., None], tokens)
        return self.language_model(inputs_embeds=embeddings, logits_to_keep=logits_to_keep, **more)

    def get_image_features(self, pixel_values: Float[Tensor, "batch 3 height width"]) -> BaseModelOutputWithPooling:
        """`pooler_output` are the image tokens (batch, patches, text width), as in transformers' own families."""
        states = self.vision_model(pixel_values=pixel_values).last_hidden_state
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=self.projection(states[:, 1:]))


class LimberProcessor:
    """Pictures and prompts to model inputs; each placeholder of the prompt becomes one for every patch."""

    chat_template = None
    image_token = PLACEHOLDER

    def __init__(self, image_processor: Any, tokenizer: Any, n_patches: int) -> None:
        self.image_processor, self.tokenizer, self.n_patches = image_processor, tokenizer, n_patches
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer.add_tokens([PLACEHOLDER], special_tokens=True)

    def __call__(self, images: Sequence[Image.Image], text: Sequence[str], **more: Any) -> dict[str, Tensor]:
        whole = [one.replace(PLACEHOLDER, PLACEHOLDER * self.n_patches) for one in text]
        more.pop("add_special_tokens", None)  # GPT-J has none before a text
        pixels = self.image_processor(images=list(images), return_tensors="pt")
        words = self.tokenizer(whole, **more)
        named = {name: words[name] for name in ("input_ids", "attention_mask")}
        return named | {"pixel_values": pixels["pixel_values"]}


def load_limber(file: Path, dtype: torch.dtype) -> tuple[LimberForConditionalGeneration, LimberProcessor, str]:
    """The model that a `limber:` file describes, its processor, and a fingerprint of all three parts.

    Raises:
        ModelError: no such file, a part of it missing or not whole, a projection that does not fit.
    """
    parts = _read_parts(file)
    text_path = find_checkpoint(parts[PARTS[0]], judge_decoder).path
    vision_path = find_checkpoint(parts[PARTS[1]], read_config).path
    language_model = load_weights(AutoModelForCausalLM, text_path, dtype)
    vision_model = load_weights(AutoModel, vision_path, dtype, unused=("pooler",))
    processor = _load_processor(text_path, vision_path, vision_model.config)
    image_token_id = processor.tokenizer.convert_tokens_to_ids(PLACEHOLDER)
    config = LimberConfig(language_model.config, vision_model.config, image_token_id)
    module = LimberForConditionalGeneration(config, vision_model, language_model)
    projection_path = Path(parts["projection"])
    _load_projection(module.projection, projection_path)
    digest = hashlib.sha256()
    for part in (fingerprint(text_path), fingerprint(vision_path)):
        digest.update(part.encode())
    digest.update(hashlib.sha256(projection_path.read_bytes()).digest())
    return module.to(dtype), processor, digest.hexdigest()


def judge_decoder(path: Path) -> None:
    """Raises `UnsupportedModelError` where scores cannot be read from a text model, by its config alone."""
    find_anatomy(module_without_weights(AutoModelForCausalLM, path, read_config(path)), FAMILIES["limber"])


def _read_parts(file: Path) -> dict[str, str]:
    """The three parts; those that are there beside the file, with their whole path."""
    require_inside(file)
    try:
        parts = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"limber:{file} cannot be read ({error}); it is JSON with {', '.join(PARTS)}") from error
    missing = [name for name in PARTS if not isinstance(parts, dict) or not isinstance(parts.get(name), str)]
    if missing:
        raise ModelError(f"limber:{file} lacks {', '.join(missing)}; it is JSON with {', '.join(PARTS)}")
    beside = {name: (file.parent / parts[name]).absolute() for name in PARTS}
    return {name: str(beside[name]) if beside[name].exists() else parts[name] for name in PARTS}


def _load_processor(text_path: Path, vision_path: Path, vision: Any) -> LimberProcessor:
    with Translated(f"{text_path}: its tokenizer cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(text_path, local_files_only=True, trust_remote_code=False)
    with Translated(f"{vision_path}: its image processor cannot be loaded"):
        images = AutoImageProcessor.from_pretrained(vision_path, local_files_only=True, trust_remote_code=False)
    with Translated(f"{vision_path}: its config tells no number of patches"):
        return LimberProcessor(images, tokenizer, (vision.image_size // vision.patch_size) ** 2)


def _load_projection(projection: nn.Linear, path: Path) -> None:
    require_inside(path)
    if path.suffix != ".safetensors" or not path.is_file():
        raise ModelError(f"{path}: the projection is a file of safetensors with weight and bias (no pickled .ckpt)")
    try:
        projection.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        wanted = tuple(projection.weight.shape)
        raise ModelError(f"{path}: not a projection with weight {wanted} and bias: {error}") from error

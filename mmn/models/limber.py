"""LiMBeR, the model of P1: a frozen image encoder, one linear map, and a text-only decoder that never saw a picture.

Merullo et al. 2022, arXiv 2209.15162; P1 (arXiv 2308.01544) reads BEiT's 196 patches into GPT-J that way. The three
parts are checkpoints of their own, so a small file says which they are (`limber:FILE.json`):

    {"language_model": "EleutherAI/gpt-j-6b", "vision_model": "microsoft/beit-large-patch16-224-pt22k",
     "projection": "projection.safetensors", "class_tokens": 1}

Folders and files count from where that file is; the projection is safetensors with `weight` (text width × image width)
and `bias`. Any text decoder whose parts are found and any image encoder of transformers or timm will do; of a CLIP or
SigLIP the image half is taken; `pip:PACKAGE` is a model that a pip package carries (`packaged`). Each of the encoder's
last states that has a place becomes one image token, before the words, as in P1; `class_tokens`, how many states come
first that have none, may be left out where the encoder's type says it (`encoders`). `"start": "<|endoftext|>"` is a
token before the picture: the first token of a text draws much of everyone's attention, whatever it is, and without
one that is the picture's first. `"finer_stage": true` puts beside each state of a convolutional network the four of its
stage before. Image tokens enter where the words' embeddings do: what a decoder does to those
(Gemma's factor, Granite's multiplier) is done to them, too.

Left out: projections as pickled `.ckpt`: convert those first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from mmn.models.adapters import FAMILIES, Family, find_anatomy, find_family
from mmn.models.checkpoints import fingerprint, module_without_weights, read_config
from mmn.models.encoders import UNKNOWN, Layout, find_layout, placed_states
from mmn.models.hub import Judge, find_checkpoint
from mmn.models.packaged import PREFIX, find_packaged
from mmn.models.weights import load_weights
from mmn.safety.boundary import Translated
from mmn.safety.roots import require_inside

PARTS: Final = ("language_model", "vision_model", "projection")
CLASS_TOKENS, START, FINER_STAGE = "class_tokens", "start", "finer_stage"
PLACEHOLDER: Final = "<image>"
# What text models do with the logits, by `model_type`; of other families it is declared in their own rows.
_CAPPED: Final = {"has_soft_cap": True}
_SCALED: Final = {"head_factor": "logit_scale"}
_HEADS: Final[dict[str, dict[str, Any]]] = {
    "gemma2": _CAPPED,
    "gemma3_text": _CAPPED,
    "cohere": _SCALED,
    "cohere2": _SCALED,
    "granite": {"head_divisor": "logits_scaling"},
}


class LimberConfig(PretrainedConfig):  # type: ignore[misc]
    """What the two halves are, and the placeholder that stands for an image token in `input_ids`.

    `image_grid` is (rows, columns) of image tokens, each at `centre` of its stretch; `n_class_tokens` of the encoder's
    states come before them, `d_image` is how wide these are, and `has_finer` whether they hold a finer stage's.
    """

    model_type = "limber"

    def __init__(
        self,
        text_config: Any = None,
        vision_config: Any = None,
        image_token_id: int = -1,
        image_grid: tuple[int, int] = (0, 0),
        n_class_tokens: int = 0,
        d_image: int = 0,
        centre: str = UNKNOWN,
        has_finer: bool = False,
        **more: Any,
    ):
        self.text_config, self.vision_config, self.image_token_id = text_config, vision_config, image_token_id
        self.image_grid, self.n_class_tokens, self.d_image = image_grid, n_class_tokens, d_image
        self.centre, self.has_finer = centre, has_finer
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
        self.projection = nn.Linear(config.d_image, config.text_config.hidden_size)
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
        """`pooler_output` are the image tokens (batch, places, text width), as in transformers' own families."""
        states = placed_states(
            self.vision_model, pixel_values, self.config.n_class_tokens, has_finer=self.config.has_finer
        )
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=self.projection(states))


class LimberProcessor:
    """Pictures and prompts to model inputs; each placeholder of the prompt becomes one for every image token."""

    chat_template = None
    image_token = PLACEHOLDER

    def __init__(self, image_processor: Any, tokenizer: Any, n_places: int) -> None:
        self.image_processor, self.tokenizer, self.n_places = image_processor, tokenizer, n_places
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer.add_tokens([PLACEHOLDER], special_tokens=True)

    def __call__(self, images: Sequence[Image.Image], text: Sequence[str], **more: Any) -> dict[str, Tensor]:
        whole = [one.replace(PLACEHOLDER, PLACEHOLDER * self.n_places) for one in text]
        more.pop("add_special_tokens", None)  # no prompt here begins with the tokenizer's own
        pixels = self.image_processor(images=list(images), return_tensors="pt")
        words = self.tokenizer(whole, **more)
        named = {name: words[name] for name in ("input_ids", "attention_mask")}
        return named | {"pixel_values": pixels["pixel_values"]}


@dataclass(frozen=True)
class Parts:
    """What a limber file names; those that are there beside it with their whole path."""

    language_model: str
    vision_model: str
    projection: Path
    class_tokens: int | None
    start: str
    has_finer: bool


@dataclass(frozen=True)
class Limber:
    """The parts together; `family` is where they are in `module`, `digest` of all three, `layout` the encoder's."""

    module: LimberForConditionalGeneration
    processor: LimberProcessor
    family: Family
    digest: str
    layout: Layout


def load_limber(file: Path, dtype: torch.dtype) -> Limber:
    """The model that a `limber:` file describes.

    Raises:
        ModelError: no such file, a part of it missing or not whole, a projection that does not fit, an encoder whose
            states are no grid or not known to be one.
        UnsupportedModelError: no adapter for the text decoder.
    """
    parts = _read_parts(file)
    text_path = _find_part(parts.language_model, judge_decoder)
    vision_path = _find_part(parts.vision_model, read_config)
    language_model = load_weights(AutoModelForCausalLM, text_path, dtype)
    vision_model = _load_encoder(vision_path, dtype)
    tokenizer, image_processor = _load_processors(text_path, vision_path)
    layout = find_layout(
        vision_model, image_processor, parts.class_tokens, parts.vision_model, has_finer=parts.has_finer
    )
    processor = LimberProcessor(image_processor, tokenizer, layout.n_places)
    module = put_together(language_model, vision_model, layout, tokenizer.convert_tokens_to_ids(PLACEHOLDER))
    _load_projection(module.projection, parts.projection)
    digest = _digest(text_path, vision_path, parts)
    family = family_of(language_model, _known_token(parts.start, tokenizer, file))
    return Limber(module.to(dtype), processor, family, digest, layout)


def put_together(
    language_model: Any, vision_model: Any, layout: Layout, image_token_id: int
) -> LimberForConditionalGeneration:
    """The whole model, its projection at random."""
    config = LimberConfig(
        language_model.config,
        vision_model.config,
        image_token_id,
        (layout.rows, layout.columns),
        layout.n_first,
        layout.width,
        layout.centre,
        layout.has_finer,
    )
    return LimberForConditionalGeneration(config, vision_model, language_model)


def family_of(language_model: Any, start: str = "") -> Family:
    """The row of `limber` with what this text model does with its logits, and the token before the picture."""
    family = find_family("limber")
    prompt = start.replace("{", "{{").replace("}", "}}") + family.bare_prompt
    return replace(family, bare_prompt=prompt, **_HEADS.get(language_model.config.model_type, {}))


def _known_token(start: str, tokenizer: Any, file: Path) -> str:
    if start and start not in tokenizer.get_vocab():
        raise ModelError(f"limber:{file}: {START} is {start!r}, which is no token of its language model")
    return start


def _find_part(name: str, judge: Judge) -> Path:
    return find_packaged(name) if name.startswith(PREFIX) else find_checkpoint(name, judge).path


def _load_encoder(path: Path, dtype: torch.dtype) -> Any:
    """The image encoder of a folder; of a model of two halves, as CLIP's checkpoints are, the image half."""
    config = read_config(path)
    config = getattr(config, "vision_config", config)
    return load_weights(AutoModel, path, dtype, unused=("pooler", "head"), config=config).eval()


def _digest(text_path: Path, vision_path: Path, parts: Parts) -> str:
    """A fingerprint of all three parts, of the token before the picture and of what is read of the encoder."""
    digest = hashlib.sha256()
    for part in (fingerprint(text_path), fingerprint(vision_path)):
        digest.update(part.encode())
    digest.update(hashlib.sha256(parts.projection.read_bytes()).digest())
    digest.update(parts.start.encode() + (FINER_STAGE.encode() if parts.has_finer else b""))
    return digest.hexdigest()


def judge_decoder(path: Path) -> None:
    """Raises `UnsupportedModelError` where scores cannot be read from a text model, by its config alone."""
    find_anatomy(module_without_weights(AutoModelForCausalLM, path, read_config(path)), FAMILIES["limber"])


def _read_parts(file: Path) -> Parts:
    """What the file names.

    Raises:
        ModelError: it cannot be read, a part is missing, an option is not what it should be.
    """
    require_inside(file)
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"limber:{file} cannot be read ({error}); it is JSON with {', '.join(PARTS)}") from error
    missing = [name for name in PARTS if not isinstance(said, dict) or not isinstance(said.get(name), str)]
    if missing:
        raise ModelError(f"limber:{file} lacks {', '.join(missing)}; it is JSON with {', '.join(PARTS)}")
    class_tokens, start, has_finer = said.get(CLASS_TOKENS), said.get(START, ""), said.get(FINER_STAGE, False)
    if class_tokens is not None and (type(class_tokens) is not int or class_tokens < 0):
        raise ModelError(f"limber:{file}: {CLASS_TOKENS} is {class_tokens!r}, expected a number of states: 0, 1, …")
    if not isinstance(start, str):
        raise ModelError(f"limber:{file}: {START} is {start!r}, expected a token of the language model, as text")
    if type(has_finer) is not bool:
        raise ModelError(f"limber:{file}: {FINER_STAGE} is {has_finer!r}, expected true or false")
    beside = {name: (file.parent / said[name]).absolute() for name in PARTS}
    language_model, vision_model, projection = (
        str(beside[name]) if beside[name].exists() else said[name] for name in PARTS
    )
    return Parts(language_model, vision_model, Path(projection), class_tokens, start, has_finer)


def _load_processors(text_path: Path, vision_path: Path) -> tuple[Any, Any]:
    """The tokenizer of one, the image processor of the other."""
    with Translated(f"{text_path}: its tokenizer cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(text_path, local_files_only=True, trust_remote_code=False)
    with Translated(f"{vision_path}: its image processor cannot be loaded"):
        images = AutoImageProcessor.from_pretrained(vision_path, local_files_only=True, trust_remote_code=False)
    return tokenizer, images


def _load_projection(projection: nn.Linear, path: Path) -> None:
    require_inside(path)
    if path.suffix != ".safetensors" or not path.is_file():
        raise ModelError(f"{path}: the projection is a file of safetensors with weight and bias (no pickled .ckpt)")
    try:
        projection.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        wanted = tuple(projection.weight.shape)
        raise ModelError(f"{path}: not a projection with weight {wanted} and bias: {error}") from error

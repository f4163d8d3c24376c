"""A real processor for each tiny model, saved beside it as a user has it: `save_checkpoint("gemma3", folder)`.

The classes are the type's own, at the tiny model's size (`RECIPES`). The tokenizer is the specimen's, of words, with
the type's special tokens at the ids that the model's config names, so that a random model's captions are made of nouns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer
from transformers import AutoProcessor, PreTrainedTokenizerFast
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

from mmn.specimen.tokenizer import BOS, EOS, IMAGE, PAD, SPACE, SPLIT, UNKNOWN, build_tokenizer
from mmn.specimen.world import GLYPHS, NOUNS, PLACES, plural
from tests.families.inputs import image_id
from tests.families.pictures import PICTURES, Picture
from tests.families.recipes import RECIPES, SEEDS, Recipe
from tests.families.shrink import VOCABULARY
from tests.families.tiny import load, new_model

UNWRITTEN = re.compile("<0x([89A-F].|1.|0[0-8B-F]|7F)>")
FIRST_FREE_ID = 520  # above the ids that tiny configs give to their own special tokens
transformers.Pix2StructProcessor.images_kwargs = {"max_patches": 24}  # else 2048, whatever its image processor says
STANDARD = ("sep_token", "cls_token", "mask_token")  # attributes that every tokenizer has


def save_checkpoint(model_type: str, folder: Path, seed: int | None = None) -> Path:
    """Writes the tiny model of a type and its processor; returns the folder. The usual seed is one of `SEEDS`, or 0."""
    seed = SEEDS.get(model_type, 0) if seed is None else seed
    module = new_model(model_type, seed, RECIPES[model_type].model)
    module.save_pretrained(folder)
    build_processor(model_type, module.config).save_pretrained(folder)
    return folder


def load_checkpoint(model_type: str, folder: Path) -> tuple[Any, Any]:
    """A type's processor, padding on the left, and its tiny model: saved to a folder and loaded as a user does."""
    save_checkpoint(model_type, folder)
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    processor.tokenizer.padding_side = "left"
    return processor, load(folder)


def build_processor(model_type: str, config: Any) -> Any:
    """The processor of a type for a tiny model of this config."""
    recipe, picture = RECIPES[model_type], PICTURES[model_type]
    tokenizer = tokenizer_of(config, recipe, picture)
    kind = getattr(transformers, recipe.processor or PROCESSOR_MAPPING_NAMES[model_type])
    parts = {name: _part(name, model_type, recipe, tokenizer) for name in kind.get_attributes()}
    template = {"chat_template": chat_template(picture, recipe)} if picture.has_template else {}
    return kind(**parts, **recipe.numbers(config), **template)


def placeholder(model_type: str) -> str:
    """What stands for a picture in a prompt at the tiny model's size."""
    return RECIPES[model_type].placeholder or PICTURES[model_type].placeholder


def chat_template(picture: Picture, recipe: Recipe) -> str:
    """A template of one turn that writes `picture.prompt`: the picture's part, then the words' part."""
    before, _, after = picture.prompt.partition("{image}")
    between, _, end = after.partition("{prompt}")
    image, text = (
        json.dumps(part)[1:-1] for part in ((recipe.placeholder or picture.placeholder) + between, "{{ part['text'] }}")
    )
    return (
        f"{before}{{% for message in messages %}}{{% for part in message['content'] %}}"
        f"{{% if part['type'] == 'image' %}}{{{{ \"{image}\" }}}}{{% else %}}{text}{{% endif %}}"
        f"{{% endfor %}}{{% endfor %}}{{{{ {json.dumps(end)} }}}}"
    )


def tokenizer_of(config: Any, recipe: Recipe, picture: Picture) -> PreTrainedTokenizerFast:
    """The specimen's words, more nouns, and each special token at the id that the config has for it."""
    ids = dict(_special_ids(config, recipe, picture))
    state = json.loads(build_tokenizer().backend_tokenizer.to_str())
    state["model"]["vocab"] = _vocabulary(state["model"]["vocab"], ids)
    state["added_tokens"] = [
        {"id": number, "content": token, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for token, number in sorted(_all_special(ids), key=lambda item: item[1])
        if token not in recipe.plain
    ]
    state["post_processor"] = _adds_start()
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        extra_special_tokens={name: token for name, token in recipe.named.items() if name not in STANDARD},
        **{name: token for name, token in recipe.named.items() if name in STANDARD},
    )


def _vocabulary(words: list[tuple[str, float]], ids: dict[str, int]) -> list[tuple[str, float]]:
    """Tokens and scores: nouns written large in place of bytes of no letter, and up to the model's vocabulary."""
    nouns = [*(noun for noun in NOUNS if noun not in SPLIT), *PLACES, *GLYPHS]
    large = iter(dict.fromkeys(SPACE + form.capitalize() for noun in nouns for form in (noun, plural(noun))))
    vocabulary = [(next(large), -5.0) if UNWRITTEN.fullmatch(token) else (token, score) for token, score in words]
    size = max(VOCABULARY, *(number + 1 for number in ids.values()))
    vocabulary += [(next(large, f"<unused{number}>"), -5.0) for number in range(len(vocabulary), size)]
    for token, number in ids.items():
        vocabulary[number] = token, -30.0
    return vocabulary


def _all_special(ids: dict[str, int]) -> Iterable[tuple[str, int]]:
    return [(PAD, 0), (BOS, 1), (EOS, 2), (UNKNOWN, 4), *ids.items()]


def _adds_start() -> dict[str, Any]:
    """`<s>` before a text, as most text decoders' tokenizers write it."""
    start = {"SpecialToken": {"id": BOS, "type_id": 0}}
    first, second = ({"Sequence": {"id": which, "type_id": 0}} for which in "AB")
    known = {BOS: {"id": BOS, "ids": [1], "tokens": [BOS]}}
    return {
        "type": "TemplateProcessing",
        "single": [start, first],
        "pair": [start, first, second],
        "special_tokens": known,
    }


def _special_ids(config: Any, recipe: Recipe, picture: Picture) -> Iterable[tuple[str, int]]:
    """Of the image token and the recipe's tokens; those that the config does not know are put behind the others."""
    image = picture.written or picture.placeholder or IMAGE
    yield image, image_id(config)
    free = iter(range(FIRST_FREE_ID, VOCABULARY))
    for token, name in recipe.tokens.items():
        number = _find(config, name) if name else None
        yield token, next(free) if number is None else number


def _find(config: Any, name: str) -> int | None:
    """An id by its name, in the config or in one of its parts."""
    holders = [config, *(getattr(config, part, None) for part in ("text_config", "encoder", "vision_config"))]
    return next((value for holder in holders if isinstance(value := getattr(holder, name, None), int)), None)


def _part(name: str, model_type: str, recipe: Recipe, tokenizer: Any) -> Any:
    if name.endswith("tokenizer"):
        return tokenizer
    if name == "image_processor":
        kind = recipe.image_processor or _listed(IMAGE_PROCESSOR_MAPPING_NAMES, recipe.kin or model_type)
        return getattr(transformers, kind)(**recipe.images)
    if name == "video_processor":
        return getattr(transformers, _listed(VIDEO_PROCESSOR_MAPPING_NAMES, recipe.kin or model_type))(**recipe.videos)
    return getattr(transformers, recipe.feature_extractor or FEATURE_EXTRACTOR_MAPPING_NAMES[model_type])()


def _listed(table: dict[str, dict[str, str | None]], model_type: str) -> str:
    """The name of a type's class; of its two implementations the one that can run."""
    kinds = table[model_type]
    name = kinds.get("torchvision") or kinds.get("pil")
    if name is None:
        raise ImportError(f"the processor of {model_type} needs torchvision: pip install torchvision")
    return name

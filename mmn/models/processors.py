"""Loads a checkpoint's processor; fills in from the model's config what an older one lacks, and says so.

Older processors left it to the model how many tokens a picture takes. Without these numbers newer ones raise, or, as
BLIP-2's, leave the picture out of the prompt and say nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from tokenizers import AddedToken

from mmn.errors import ModelError
from mmn.models.adapters import CLASS_TOKENS
from mmn.models.checkpoints import read_json
from mmn.safety.boundary import Translated, how_to_get

SAVED_IN: Final = ("processor_config.json", "preprocessor_config.json")
_VOCABULARIES: Final = ("tokenizer.json", "*.model", "vocab.*", "*.tiktoken", "tekken.json")
_NO_IMAGES: Final = "has no image processor; expected preprocessor_config.json or processor_config.json"
_NO_WORDS: Final = "has no tokenizer; expected tokenizer.json and tokenizer_config.json"
N_CLASS_TOKENS: Final = "num_additional_image_tokens"


def load_processor(path: Path, config: Any) -> tuple[Any, tuple[str, ...]]:
    """The processor of a folder, padding on the left, and what was filled in, one sentence each.

    Raises:
        ModelError: none there, or one that does not load, or without a tokenizer or an image processor.
    """
    from transformers import AutoProcessor

    _require_files(path)
    with Translated(f"{path}: its processor cannot be loaded"):
        processor = AutoProcessor.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if getattr(processor, "image_processor", None) is None:
        raise ModelError(f"{path} {_NO_IMAGES}")
    if getattr(processor, "tokenizer", None) is None:
        raise ModelError(f"{path} {_NO_WORDS}")
    processor.tokenizer.padding_side = "left"
    with Translated(f"{path}: its processor lacks what its config cannot tell"):
        return processor, tuple(_fill(path, processor, config))


def of_another_family(processor: Any, model_type: str) -> str:
    """What to add to an error where a processor is not the one that transformers has for a type; "" where it is."""
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    own, usual = type(processor).__name__, PROCESSOR_MAPPING_NAMES.get(model_type)
    if usual in (None, own):
        return ""
    return f", which a {own} prepared; {model_type} models come with a {usual}, in the same folder"


def _require_files(path: Path) -> None:
    """Refuses a folder without a file of an image processor or a tokenizer, of which transformers says other things.

    So it does of a tokenizer that was saved by sentencepiece alone: there it asks for tiktoken.
    """
    if not any((path / name).is_file() for name in SAVED_IN):
        raise ModelError(f"{path} {_NO_IMAGES}")
    if not any(file for pattern in _VOCABULARIES for file in path.glob(pattern)):
        raise ModelError(f"{path} {_NO_WORDS}")
    alone = next(path.glob("*.model"), None) if not (path / "tokenizer.json").is_file() else None
    if alone and find_spec("sentencepiece") is None:
        raise ModelError(f"{path}: its tokenizer is {alone.name} alone; {how_to_get('sentencepiece')}")


def fill_image_token(config: Any, processor: Any, n_embeddings: int) -> tuple[str, ...]:
    """Gives a config of before there were placeholders the one that its processor writes.

    Raises:
        ModelError: the model has no embedding of that number.
    """
    token = getattr(processor, "image_token", None)
    if token is None or getattr(config, "image_token_id", -1) is not None:
        return ()
    token_id = processor.tokenizer.convert_tokens_to_ids(str(token))
    if token_id >= n_embeddings:
        raise ModelError(
            f"config.json names no image_token_index, and {token}, which the processor writes, has number {token_id} "
            f"of {n_embeddings} embeddings; save the model after resize_token_embeddings, with image_token_index"
        )
    config.image_token_id = token_id
    return (f"image_token_index = {token_id} from the tokenizer, since config.json has none",)


def _fill(path: Path, processor: Any, config: Any) -> Iterator[str]:
    for name, value in _known(config).items():
        if value is not None and getattr(processor, name, "not used by it") is None:
            setattr(processor, name, value)
            yield f"{name} = {value} from config.json, since the processor has none"
    if isinstance(getattr(processor, "image_token", None), str) and hasattr(processor, "num_query_tokens"):
        processor.image_token = AddedToken(processor.image_token)  # as BLIP's own code, which asks for its `content`
    yield from _fill_class_tokens(path, processor, config)
    yield from _fill_padding(processor.tokenizer, config)


def _known(config: Any) -> dict[str, Any]:
    """What a model's config says of the numbers that processors need."""
    vision = getattr(config, "vision_config", None)
    patch, side = getattr(vision, "patch_size", None), getattr(vision, "image_size", None)
    n_patches = (side // patch) ** 2 if isinstance(patch, int) and isinstance(side, int) and patch > 0 else None
    return {
        "num_query_tokens": getattr(config, "num_query_tokens", None),
        "patch_size": patch,
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", None),
        "num_image_tokens": n_patches,
    }


def _fill_class_tokens(path: Path, processor: Any, config: Any) -> Iterator[str]:
    """A processor that was saved before `num_additional_image_tokens` has 0 of them, right only for some towers."""
    saved = [file for name in SAVED_IN if (file := path / name).is_file()]
    tower = getattr(getattr(config, "vision_config", None), "model_type", None)
    n_tokens = CLASS_TOKENS.get(tower or "", 0)
    if not n_tokens or getattr(processor, N_CLASS_TOKENS, None) != 0:
        return
    if not any(N_CLASS_TOKENS in read_json(file) for file in saved):
        setattr(processor, N_CLASS_TOKENS, n_tokens)
        yield f"{N_CLASS_TOKENS} = {n_tokens}, what {tower} adds, since the processor has none"


def _fill_padding(tokenizer: Any, config: Any) -> Iterator[str]:
    if tokenizer.pad_token is not None:
        return
    text = getattr(config, "text_config", None)
    ids = [getattr(config, "pad_token_id", None), getattr(text, "pad_token_id", None), tokenizer.eos_token_id]
    token_id = next((one for one in ids if isinstance(one, int) and 0 <= one < len(tokenizer)), 0)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(token_id)
    yield f"the pad token is {tokenizer.pad_token}, since the tokenizer has none"

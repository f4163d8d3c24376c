"""Which columns of a row name pictures, and which hold captions.

Rows come from annotation files, metadata beside pictures, lists and saved data sets. Pictures are named as in Hugging
Face's ImageFolder (`file_name`, `*_file_name`, `file_names`, …) or in LLaVA's files (`image`, `images`). Captions are
texts, lists of texts, Karpathy's `sentences`, or a model's turns in LLaVA's `conversations`: a human's turns ask, and
say nothing of the picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

CAPTION_COLUMNS: Final = (
    *("text", "caption", "sentence", "description", "raw", "alt", "alt_text", "reference", "image_caption"),
    *("image_description", "short_caption", "long_caption", "detailed_caption"),
)  # also with an s or a number behind them; not `*_caption`, which may be a wrong one on purpose
TURN_COLUMNS: Final = ("conversations", "conversation", "messages")
_CAPTION: Final = re.compile(rf"(?:{'|'.join(CAPTION_COLUMNS)}|alttext)s?(?:_?\d+)?")
_NAMES: Final = (
    *("file_name", "file_names", "image_file_name", "image_file_names", "image", "images", "image_path", "image_name"),
    *("filename", "path", "file_path", "filepath", "image_url", "url", "coco_url"),
)  # the first of these that a row has is what it is about
_MASK: Final = re.compile(r"(?:.*_)?(?:mask|segmentation)_file(?:_name)?")
_OF_A_CAPTION: Final = ("raw", "caption", "text", "sentence", "value", "content")
_WHO: Final = ("from", "role")
_MODELS: Final = ("gpt", "assistant", "model", "chatgpt", "bot")
_DEEPEST: Final = 4  # lists in lists


def plain_key(name: object) -> str:
    """A column's name as it is compared: lower case, words joined by underscores."""
    return re.sub(r"[\s-]+", "_", str(name or "").strip().casefold())


def is_caption_column(name: str) -> bool:
    return bool(_CAPTION.fullmatch(plain_key(name))) or plain_key(name) in TURN_COLUMNS


def captions_in(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The captions of an annotation row, in the order of its columns.

    Half characters, which JSON can write and no file can store, become `?`.
    """
    found: list[str] = []
    for name, value in row.items():
        key = plain_key(name)
        if key in TURN_COLUMNS:
            found += _answers(value)
        elif _CAPTION.fullmatch(key):
            found += _texts(value)
    texts = (text.encode("utf-8", "replace").decode().strip() for text in found)
    return tuple(text for text in texts if text)


def names_in(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The pictures that a row is about, from the first such column that it has; empty where it names none."""
    plain = {plain_key(name): value for name, value in row.items()}
    for column in _NAMES:
        if names := tuple(_named(plain.get(column))):
            return names
    others = [key for key in plain if key.endswith(("_file_name", "_file_names")) and not _MASK.fullmatch(key)]
    return tuple(name for key in others for name in _named(plain[key]))


def masks_in(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The files that a row names as masks of its picture, which are no pictures to caption."""
    return tuple(name for key, value in row.items() if _MASK.fullmatch(plain_key(key)) for name in _named(value))


def unread(columns: Iterable[str]) -> str:
    """That none of a table's columns holds captions, in words that tell which would."""
    there = ", ".join(str(column)[:40] for column in list(columns)[:12]) or "none"
    return f"columns {there}; captions are read from {', '.join(CAPTION_COLUMNS[:7])} or conversations"


def _named(value: object) -> Iterator[str]:
    for one in value if isinstance(value, list | tuple) else (value,):
        name = one.get("path") or one.get("file_name") if isinstance(one, Mapping) else one
        if isinstance(name, str) and name.strip():
            yield name.strip()


def _texts(value: object, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        key = next((key for key in _OF_A_CAPTION if isinstance(value.get(key), str)), None)
        if key is not None:
            yield value[key]
    elif isinstance(value, list | tuple) and depth < _DEEPEST:
        for one in value:
            yield from _texts(one, depth + 1)


def _answers(value: object) -> Iterator[str]:
    """What the model says in a conversation; parts of a turn that are no text are left out."""
    for turn in value if isinstance(value, list | tuple) else ():
        if isinstance(turn, Mapping) and any(str(turn.get(key)).casefold() in _MODELS for key in _WHO):
            yield from _texts(turn.get("value", turn.get("content")))

"""Errors that a library raises over a user's files, translated once into one-line errors of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import TracebackType

from mmn.errors import MmnError, ModelError

# The name of what is amiss is in the text of these; of others (`KeyError: 'size'`) the type is said, too.
_SPEAKING = (OSError, ValueError, ImportError, RuntimeError)
_MUTE = (TypeError, LookupError, AttributeError, ArithmeticError, MemoryError, EOFError, RecursionError)
_LIBRARY = re.compile(r"(?:requires the |Package `)(\w+)")  # that transformers asks for in an error


class Translated(AbstractContextManager[None]):
    """Turns what libraries raise inside the block into `error`, with `what` failed and why in one line.

    Assertions and our own errors pass. The tokenizers' library raises bare `Exception`; nothing derived from it is
    caught that is not named here.
    """

    def __init__(self, what: str, error: type[MmnError] = ModelError) -> None:
        self.what, self.error = what, error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and _is_of_a_library(error):
            raise self.error(f"{self.what}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """What a library's error says in one line; a library that it asks for with the command that installs it."""
    if isinstance(error, ImportError) and (needed := _missing_libraries(error)):
        return how_to_get(*needed)
    line = first_line(error)
    is_mute = isinstance(error, _MUTE) and line != type(error).__name__
    return f"{type(error).__name__}: {line}" if is_mute else line


def first_line(error: BaseException) -> str:
    """What a library's error says, without the pages that may follow."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):  # «Validation error for field 'x':» and what it is, below
        return f"{lines[0]} {lines[1]}"
    return (lines or [type(error).__name__])[0]


def _is_of_a_library(error: BaseException) -> bool:
    if isinstance(error, MmnError):
        return False
    return isinstance(error, (*_SPEAKING, *_MUTE, *_libraries_own())) or type(error) is Exception


def _libraries_own() -> Iterator[type[BaseException]]:
    """Errors that libraries derive from `Exception` themselves; imported when one is asked about, not before."""
    from huggingface_hub.errors import StrictDataclassError
    from jinja2 import TemplateError
    from safetensors import SafetensorError

    yield from (StrictDataclassError, TemplateError, SafetensorError)


def how_to_get(*libraries: str) -> str:
    """That libraries are needed, with the command that installs them."""
    import torch

    names = list(dict.fromkeys(library.lower() for library in libraries))
    beside = f" (the build for torch {torch.__version__})" if "torchvision" in names else ""
    return f"it needs {' and '.join(names)}{beside}: `pip install {' '.join(names)}`, then try again"


def _missing_libraries(error: ImportError) -> list[str]:
    """The libraries that are not installed: those that an error asks for, or the one whose import failed."""
    if asked := _LIBRARY.findall(str(error)):
        return asked
    is_whole = isinstance(error, ModuleNotFoundError) and error.name and "." not in error.name
    return [error.name] if is_whole and error.name else []

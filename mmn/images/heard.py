"""Keeps what image decoders print off the terminal, and reports it where a picture fails.

Pillow warns through Python; libtiff writes to standard error by itself, unless somebody else takes its messages.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
import warnings
from collections.abc import Iterator
from typing import Any, Final

import PIL
from PIL import _imaging

_MOST_TOLD: Final = 2
_LONGEST: Final = 200  # characters of one message
_warnings_lock = threading.Lock()  # warnings.catch_warnings swaps a global; one of us at a time
_of_this_thread = threading.local()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Takes Pillow's warnings, of large pictures, damaged tags and files cut short; everyone else's pass."""
    with _warnings_lock:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for one in caught:
            if _is_pillows(one):
                _hear(str(one.message))
    for one in caught:
        if not _is_pillows(one):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def forget() -> None:
    """Begins with a new picture."""
    _take_libtiffs_messages()
    _of_this_thread.messages = []


def told() -> str:
    """What was said of the picture since `forget`, in a few words; empty for nothing."""
    messages = dict.fromkeys(getattr(_of_this_thread, "messages", []))
    return "; ".join(list(messages)[:_MOST_TOLD])


def _hear(message: str) -> None:
    if not hasattr(_of_this_thread, "messages"):
        _of_this_thread.messages = []
    _of_this_thread.messages.append(" ".join(message.split())[:_LONGEST])


def _is_pillows(warning: warnings.WarningMessage) -> bool:
    return warning.filename.startswith(os.path.dirname(PIL.__file__))  # noqa: PTH120


@functools.cache
def _take_libtiffs_messages() -> Any:
    """Sets libtiff's error handler, for the whole process; returns it, since it must live as long.

    libtiff is found through Pillow's own library, whether it came with it or is the system's. Where it is built in and
    not to be seen from outside, it goes on writing to standard error.
    """
    try:
        library, libc = ctypes.CDLL(_imaging.__file__), ctypes.CDLL(None)
        set_handler, format_message = library.TIFFSetErrorHandler, libc.vsnprintf
    except (OSError, AttributeError, TypeError):
        return None

    def handle(_module: bytes, template: bytes, arguments: int) -> None:
        buffer = ctypes.create_string_buffer(_LONGEST)
        format_message(buffer, ctypes.c_size_t(_LONGEST), template, ctypes.c_void_p(arguments))
        _hear(buffer.value.decode("utf-8", "replace"))

    handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)(handle)
    set_handler.restype = ctypes.c_void_p
    set_handler(handler)
    return handler

"""Reads files that strangers may have made: no links followed, no pipes waited for, no endless reads."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, Final, NoReturn

from mmn.errors import BrokenFileError
from mmn.printable import printable

MOST_JSON_BYTES: Final = 1_000_000
_OPENED: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_regular(path: Path, most_bytes: int, remedy: str) -> bytes:
    """Returns what is in a regular file of at most `most_bytes`.

    Raises:
        BrokenFileError: a link, folder, pipe or device, too large, or it cannot be read; `remedy` tells what to do.
    """
    try:
        why = _why_unfit(path.lstat(), most_bytes)  # before it is opened: some devices act on that
        if why:
            raise BrokenFileError(path, why, remedy)
        with os.fdopen(os.open(path, _OPENED), "rb") as file:
            why = _why_unfit(os.fstat(file.fileno()), most_bytes)
            data = b"" if why else file.read(most_bytes + 1)
    except (OSError, ValueError) as error:
        raise BrokenFileError(path, f"it cannot be read ({_reason(error)})", remedy) from error
    if why or len(data) > most_bytes:
        raise BrokenFileError(path, why or f"it has more than the {most_bytes:,} bytes that are read", remedy)
    return data


def check_regular(path: Path, most_bytes: int, remedy: str) -> Path:
    """Returns `path`, if it is a regular file of at most `most_bytes`: for files of which only a part is read.

    Raises:
        BrokenFileError: it is not.
    """
    try:
        why = _why_unfit(path.lstat(), most_bytes)
    except (OSError, ValueError) as error:
        raise BrokenFileError(path, f"it cannot be read ({_reason(error)})", remedy) from error
    if why:
        raise BrokenFileError(path, why, remedy)
    return path


def read_tail(path: Path, most_bytes: int, remedy: str) -> tuple[bytes, bool]:
    """Returns the last bytes of a regular file, and whether there are more before them.

    Raises:
        BrokenFileError: as `read_regular`, but for the size.
    """
    try:
        why = _why_unfit(path.lstat(), None)
        if not why:
            with os.fdopen(os.open(path, _OPENED), "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - most_bytes))
                return file.read(most_bytes), size > most_bytes
    except (OSError, ValueError) as error:
        raise BrokenFileError(path, f"it cannot be read ({_reason(error)})", remedy) from error
    raise BrokenFileError(path, why, remedy)


def read_json_object(path: Path, remedy: str, most_bytes: int = MOST_JSON_BYTES) -> dict[str, Any]:
    """Returns the object in a JSON file. Only what JSON allows: no NaN, no name twice, no half of a character.

    Raises:
        BrokenFileError: that is not in it, or the file is not fit to be read.
    """
    data = read_regular(path, most_bytes, remedy)
    try:
        values = json.loads(data.decode(), parse_constant=_refuse, object_pairs_hook=_distinct)
        json.dumps(values, ensure_ascii=False).encode()  # a lone surrogate is no text
    except (ValueError, RecursionError) as error:
        raise BrokenFileError(path, f"it is not JSON as mmn writes it ({_reason(error)})", remedy) from error
    if not isinstance(values, dict):
        raise BrokenFileError(path, f"it is a {type(values).__name__} and not an object", remedy)
    return values


def _why_unfit(found: os.stat_result, most_bytes: int | None) -> str:
    if stat.S_ISLNK(found.st_mode):
        return "it is a link, which may lead anywhere"
    if not stat.S_ISREG(found.st_mode):
        return "it is a folder, pipe or device and not a file"
    if most_bytes is not None and found.st_size > most_bytes:
        return f"it has {found.st_size:,} bytes, more than the {most_bytes:,} that are read"
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return (error.strerror if isinstance(error, OSError) else "") or printable(str(error)[:200])


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return values

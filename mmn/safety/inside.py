"""Turns a name from a file, a database or a request into a path that stays inside its folder."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Final

from mmn.errors import CacheError
from mmn.printable import quoted

RUN_ID: Final = re.compile(r"[0-9a-f]{16}")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")  # no separator, nothing hidden, no `..`


def is_name(name: object) -> bool:
    """Whether a name may become a file's or folder's: letters, digits, `_`, `.` and `-`, not hidden, at most 200."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def is_run_id(run_id: object) -> bool:
    """Whether that is the id of a run: 16 hexadecimal digits."""
    return isinstance(run_id, str) and RUN_ID.fullmatch(run_id) is not None


def inside(folder: Path, name: str) -> Path:
    """Returns `<folder>/<name>`, which lies in that folder whatever is on the disk.

    `folder` itself is the user's choice and may be reached by links; what is in it may not.

    Raises:
        CacheError: `name` is no plain name, or there is a link of that name, which may lead anywhere.
    """
    path = folder / name if is_name(name) else None
    if path is None:
        raise CacheError(f"{quoted(name)} is no name of a file in {folder}: nothing was read, written or removed")
    if path.is_symlink():
        raise CacheError(f"{path} is a link, which may lead anywhere: put the file or folder itself there")
    return path


def last_part(name: str) -> str:
    """Returns a name that a browser sent as the end of a file's name: its last part, printable, at most 60 characters.

    Something of ours stands before it, so that it is neither hidden nor `..`; the end is kept, where a suffix is.
    """
    last = PurePosixPath(name.replace("\\", "/")).name
    return "".join(c if c.isprintable() and c != "/" else "_" for c in last)[-60:]

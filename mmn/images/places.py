"""Where a picture lies and its captions, before it is opened; and reading the files that say so."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmn.core import Failure
from mmn.errors import SourceError
from mmn.safety.roots import is_inside, require_inside


@dataclass(frozen=True)
class Place:
    """A path that should hold a picture, with the captions that came with it."""

    path: Path
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Places:
    """A source's places in a fixed order, some of them already failed, and how many there are.

    `is_written_out` says that walking on costs more than a look: each place is first copied out of a dataset.
    `why_none` says of a source that should have captions why no picture may have got one.
    """

    each: Iterable[Place | Failure]
    n_places: int
    is_written_out: bool = False
    why_none: str = ""


def one_place(path: Path) -> Places:
    return Places((Place(path),), 1)


def sorted_places(
    references: Mapping[Path, Iterable[str]], failures: Sequence[Failure] = (), why_none: str = ""
) -> Places:
    """Places by path, each path once, with what has failed already."""
    each: list[Place | Failure] = [*failures]
    each += [Place(path, tuple(dict.fromkeys(captions))) for path, captions in references.items()]
    each.sort(key=lambda one: str(one.path) if isinstance(one, Place) else one.source)
    return Places(tuple(each), len(each), why_none=why_none)


def is_file(path: Path | str) -> bool:
    """Whether a regular file is there; unlike Path.is_file, False for a name that no file could have."""
    return is_inside(path) and os.path.isfile(path)  # noqa: PTH113


def read_text(path: Path) -> str:
    """The text of an annotation file.

    Raises:
        SourceError: it is missing, may not be read, is no regular file or is not UTF-8.
        OutsideRootsError: it is outside the folders that this process may read.
    """
    require_inside(path)
    if os.path.lexists(path) and not is_file(path):
        raise SourceError(f"{path} is not a file: give the annotation file itself")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise SourceError(f"{path} cannot be read ({reason}): check the path") from error


def parse_json(text: str, where: str) -> Any:
    """The value written in `text`.

    Raises:
        SourceError: it is no JSON; the message names `where`.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where} is not valid JSON ({error}): export it again") from error


def require_folder(folder: Path) -> None:
    """Passes a folder that can be listed.

    Raises:
        SourceError: there is none, or it may not be read.
        OutsideRootsError: it is outside the folders that this process may read.
    """
    require_inside(folder)
    if not os.path.isdir(folder):  # noqa: PTH112 - no error for names too long
        raise SourceError(f"{folder} is no folder: check the path of the pictures")
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise cannot_list(error) from error


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """(Folder, its files' names) for `folder` and all below; hidden ones left out, links followed, none twice.

    Raises:
        SourceError: a folder that may not be read; leaving out what is in it would go unnoticed.
        OutsideRootsError: likewise one, reached by a link, that this process may not read.
    """
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=_raise_cannot_list):
        require_inside(root)
        real = os.path.realpath(root)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:
            yield Path(root), sorted(name for name in names if not name.startswith("."))
        seen.add(real)


def cannot_list(error: OSError) -> SourceError:
    """The message for a folder that may not be read."""
    return SourceError(f"{error.filename} cannot be listed ({error.strerror}): change its permissions or leave it out")


def _raise_cannot_list(error: OSError) -> None:
    raise cannot_list(error) from error

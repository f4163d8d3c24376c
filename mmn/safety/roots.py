"""Which folders may be read when the dashboard serves other machines: only those that its owner names.

A confined process, and every job that it starts, reads pictures, lists, masks, models and deltas from some folders
alone (`confine`; the environment carries it into jobs). Paths are judged as what they really are, links followed. Any
other process reads what its user may read: nothing here changes that.

Left out: whoever can make links inside such a folder while a job runs; they have an account on the machine already.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from mmn.errors import UsageError

CONFINED_TO: Final = "MMN_CONFINED_TO"
BUNDLED_PATH: Final = Path(__file__).parents[1] / "specimen"
BUNDLED_NAMES: Final = ("specimen", "specimen-frozen", "specimen-smollm", "specimen-smollm-finer")
LIMBER: Final = "limber:"


class OutsideRootsError(UsageError):
    """A path outside the folders that may be read."""


def confine(folders: Iterable[str | os.PathLike[str]]) -> None:
    """Lets this process, and those that it starts, read from `folders` and what is bundled alone."""
    os.environ[CONFINED_TO] = os.pathsep.join(os.path.realpath(folder) for folder in folders)


def is_confined() -> bool:
    return CONFINED_TO in os.environ


def is_inside(path: str | os.PathLike[str]) -> bool:
    """Whether `path`, all links followed, may be read."""
    if not is_confined():
        return True
    try:
        real = Path(os.path.realpath(path))
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return False
    allowed = [BUNDLED_PATH.resolve(), *map(Path, filter(None, os.environ[CONFINED_TO].split(os.pathsep)))]
    return any(real.is_relative_to(folder) for folder in allowed)


def require_inside(path: str | os.PathLike[str]) -> None:
    """Passes a path that may be read; asks nothing of a path that may not, not even whether it is there.

    Raises:
        OutsideRootsError: it lies elsewhere.
    """
    if not is_inside(path):
        raise OutsideRootsError(
            f"{os.fspath(path)!r} is outside the folders that this server may read: "
            "choose another, or let its owner add the folder to MMN_ROOTS"
        )


def require_model(name: str) -> None:
    """Passes the name of a model that may be read: bundled, in a folder that may, or already in such a hub cache.

    Raises:
        OutsideRootsError: it lies elsewhere, or would have to be fetched.
    """
    if not is_confined() or name in BUNDLED_NAMES:
        return
    base, _, delta = name.partition("+/")  # as `models.with_delta` names it
    if delta:
        require_inside(f"/{delta}")
    path = Path(base.removeprefix(LIMBER)).expanduser()
    if base not in BUNDLED_NAMES and not is_inside(path):
        require_inside(_in_hub_cache(base) or path)


def _in_hub_cache(name: str) -> Path | None:
    """Where the model of a hub id lies, if it was fetched before."""
    if name.startswith((".", "/", "~")) or name.count("/") != 1 or ".." in name:
        return None
    from huggingface_hub.constants import HF_HUB_CACHE

    path = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    return path if path.is_dir() else None

"""Files and folders that are there whole or not at all, however a writer ends.

What is written goes to a hidden place beside its own, is flushed to the disk and renamed. The hidden name tells which
process writes it, so that what killed writers left behind can be told from what live ones are at.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from mmn.errors import CacheError

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY: Final = (errno.EROFS, errno.EACCES, errno.EPERM)
_NO_PLACE: Final = (errno.EEXIST, errno.ENOTDIR, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP)
_STALE_S: Final = 24 * 3600.0  # a hidden folder of another machine is a leftover after this long
_HOST: Final = socket.gethostname().replace(".", "-")
_PROCESS: Final = uuid.uuid4().hex[:8]  # tells us from a killed process that had our process id


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file; one that is there is replaced."""
    hidden_path = hidden(path.parent, path.name)
    try:
        hidden_path.write_bytes(data)
        flush(hidden_path)
        hidden_path.replace(path)
        flush(path.parent)
    finally:
        hidden_path.unlink(missing_ok=True)


def publish(hidden_path: Path, folder: Path) -> None:
    """Renames a folder; another writer's of that name, there already, is kept."""
    try:
        hidden_path.rename(folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
    flush(folder.parent)


def flush(path: Path) -> None:
    """Waits until a file or folder is on the disk, so that a rename cannot outrun what it names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def explain_unwritable(path: Path) -> Iterator[None]:
    """Says what to do where nothing can be written: no space is left, or the place is not ours to write to."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise CacheError(
                f"no space left to write {path} ({_free_mb(path):.1f} MB free): finished batches are kept; "
                "make room and give the same command again to resume"
            ) from error
        if error.errno in _READ_ONLY:
            raise CacheError(
                f"{path} cannot be written ({os.strerror(error.errno)}): make its folder writable, "
                "or copy the cache to where you can write and choose the copy (--cache; MMN_CACHE for the app)"
            ) from error
        if error.errno in _NO_PLACE:
            raise CacheError(
                f"{path} cannot be written ({os.strerror(error.errno)}): choose a folder, or a new name in one that is "
                "there (--cache; MMN_CACHE for the app)"
            ) from error
        raise


def require_folder(path: Path) -> None:
    """Makes a folder where there is none, so that minutes of work do not end where nothing can be written.

    Raises:
        CacheError: there can be none, or it is not ours to write to.
    """
    with explain_unwritable(path):
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _free_mb(path: Path) -> float:
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    return shutil.disk_usage(there).free / 1e6


def hidden(folder: Path, name: str) -> Path:
    """Returns a new path that no reader looks at and whose name tells which process writes it."""
    return folder / f".{name}.{_HOST}.{os.getpid()}.{_PROCESS}.{uuid.uuid4().hex[:8]}"


def remove_leftovers(folder: Path) -> None:
    """Removes the hidden files and folders of writers that are no more; live writers keep theirs."""
    for path in folder.glob(".*.*.*.*.*"):
        with suppress(OSError):  # another process was faster, or nothing can be written here
            if _is_leftover(path):
                path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)


def _is_leftover(path: Path) -> bool:
    host, pid, process = path.name.rsplit(".", 4)[-4:-1]
    if not re.fullmatch(r"[0-9]{1,9}", pid) or process == _PROCESS:
        return False
    if host != _HOST:
        return time.time() - path.lstat().st_mtime > _STALE_S
    return int(pid) == os.getpid() or not _is_alive(int(pid))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process
        return True
    return True

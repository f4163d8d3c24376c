"""Files that commands write for the user: refused before minutes of work, and there whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmn.errors import UsageError
from mmn.safety.atomic_files import hidden


def require_out(out: Path | None, *endings: str) -> None:
    """Checks `--out` before anything is computed; None, where nothing is to be written, is as good.

    Args:
        out: the file.
        endings: how its name may end, as `.csv`; any way if there are none.

    Raises:
        UsageError: another ending, a folder of that name, no folder to write it to, or one that is not ours.
    """
    if out is None:
        return
    if endings and out.suffix.lower() not in endings:
        raise UsageError(f"--out {out}: the name must end in {' or '.join(endings)}")
    with explained(out):
        if out.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not out.absolute().parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if not os.access(out.absolute().parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextmanager
def writing(out: Path) -> Iterator[Path]:
    """Gives a place to write `--out` to, which gets its name when the block ends, and is removed where it fails.

    Raises:
        UsageError: it cannot be written.
    """
    place = hidden(out.parent, out.name)
    with explained(out):
        try:
            yield place
            place.replace(out)
        finally:
            place.unlink(missing_ok=True)


@contextmanager
def explained(out: Path) -> Iterator[None]:
    """Says what is wrong with `--out` where the file cannot be written inside the block."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"--out {out} cannot be written ({reason}); give a file in a folder that is there") from error

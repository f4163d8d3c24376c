"""Files that commands write for the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmn.errors import UsageError


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Says what is wrong with `--out` when the file cannot be written inside the block."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"--out {out} cannot be written ({reason}); give a file in a folder that is there") from error

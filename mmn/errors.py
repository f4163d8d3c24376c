"""What a user or the machine can mend. Each message says what happened, with which value, and what to do.

Anything that is our own mistake is an assertion; anything else propagates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmn.counts import counted
from mmn.printable import printable


class MmnError(Exception):
    """The parent of all errors that are shown as one line instead of a traceback."""


class UsageError(MmnError):
    """An option or argument that cannot be used as given."""


class ImageError(MmnError):
    """One picture that cannot be opened or is not fit to be shown to a model."""


class SourceError(MmnError):
    """A set of pictures that cannot be listed at all: no such folder, nothing in it, a broken annotation file."""


class ModelError(MmnError):
    """A checkpoint that cannot be loaded: nothing there, no weights, weights that could run code."""


class UnsupportedModelError(ModelError):
    """A checkpoint of a family that no adapter describes, or that its adapter's own check refuses."""


class LanguageError(MmnError):
    """A caption that is not English, in which nouns cannot be found."""


class EncodingError(ModelError):
    """A checkpoint's processor cannot turn a prompt and these pictures into model inputs."""


class BatchError(MmnError):
    """Pictures of a batch that nothing can be said of: `reasons` by row; the others are unharmed."""

    def __init__(self, stage: str, reasons: Mapping[int, str]) -> None:
        super().__init__(next(iter(reasons.values())))
        self.stage, self.reasons = stage, reasons


class CacheError(MmnError):
    """A cache that cannot be opened or written."""


@dataclass(frozen=True)
class SetAside:
    """A file or folder of a run that is not used: which, why, and what to do."""

    path: Path
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{printable(self.path)}: {self.reason}; {self.remedy}"


def were_set_aside(n: int) -> str:
    """`1 broken file or folder was set aside`, as every command and page says it."""
    verb = "was" if n == 1 else "were"
    return f"{counted(n, 'broken file or folder', 'broken files or folders')} {verb} set aside"


class BrokenFileError(CacheError):
    """A file or folder of a run is not as this program writes it: it is set aside (`told`), and all else is used."""

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        self.told = SetAside(path, reason, remedy)
        super().__init__(str(self.told))

    def __reduce__(self) -> tuple[type[BrokenFileError], tuple[Path, str, str]]:
        return type(self), (self.told.path, self.told.reason, self.told.remedy)  # a worker process can raise it


class CacheLockedError(CacheError):
    """Another process holds the database; DuckDB lets nobody else even read it meanwhile."""


class CacheNewerError(CacheError):
    """The database was written by a newer version of this program."""


class RunNotFoundError(MmnError):
    """No run of that id, or more than one that begins so."""


class Cancelled(MmnError):
    """The user asked to stop; what was finished is kept."""


class Unfit(Exception):
    """Why a value is not what it may be. Whoever knows the file that it is in says so (`BrokenFileError`)."""

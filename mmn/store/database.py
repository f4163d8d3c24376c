"""Opens the database, gives out cursors, and explains DuckDB's errors in words that help.

DuckDB locks its file per process: while one holds it nobody else can even read it. Within a process every use takes a
cursor of its own, because a connection shared by threads mixes up their answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb

from mmn.errors import CacheError, CacheLockedError, CacheNewerError

_DAMAGE: Final = ("not a valid DuckDB", "Corrupt", "corrupt", "Could not read enough bytes")
_UNWRITABLE: Final = ("Could not write", "No space left")  # said of a commit, too
DATABASE: Final = "mmn.duckdb"
_CONFIG: Final[dict[str, str | bool | int | float | list[str]]] = {
    "autoinstall_known_extensions": False,
    "enable_external_access": False,  # what a stranger's database says cannot read or write other files
    "lock_configuration": True,  # nor can what somebody asks in SQL allow it
    "python_enable_replacements": False,  # a table's name is never that of a variable
}


def connect(database_path: Path) -> duckdb.DuckDBPyConnection:
    """Returns a connection to the database, made if it is not there.

    Raises:
        CacheLockedError: another process holds it.
        CacheNewerError: a newer DuckDB wrote it.
        CacheError: it is broken, or the folder cannot be made or written.
    """
    is_new = not database_path.exists()
    try:
        database_path.parent.mkdir(parents=True, exist_ok=True)
        for path in (database_path, database_path.with_name(f"{database_path.name}.wal")):
            if path.exists() and not path.is_file():
                raise CacheError(f"{path} cannot be used: it is a folder, pipe or device; remove it")
        return duckdb.connect(str(database_path), config=_CONFIG)
    except OSError as error:
        raise CacheError(
            f"the cache folder {database_path.parent} cannot be made ({error.strerror}); choose another --cache"
        ) from error
    except duckdb.Error as error:
        if is_new and database_path.is_file():
            database_path.unlink()  # the beginning of one, on a full disk
        raise _explained(error, database_path) from error


@contextmanager
def open_cursor(connection: duckdb.DuckDBPyConnection, database_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A cursor for one use, closed after it; damage and a full disk are told in the user's words."""
    cursor = connection.cursor()
    try:
        yield cursor
    except (duckdb.IOException, duckdb.FatalException, duckdb.SerializationException) as error:
        raise _explained(error, database_path) from error
    except duckdb.Error as error:
        if not any(sign in str(error) for sign in (*_DAMAGE, *_UNWRITABLE)):
            raise
        raise _explained(error, database_path) from error
    finally:
        cursor.close()


def _explained(error: duckdb.Error, path: Path) -> CacheError:
    text = str(error)
    first_line = text.partition("\n")[0]
    if "lock" in text and (holder := re.search(r"held in (.*?) ?\(PID (\d+)\)", text)):
        return CacheLockedError(
            f"{path} is in use by process {holder[2]} ({holder[1]}): close the dashboard or command that holds it, "
            "or choose another --cache"
        )
    if "Could not set lock" in text:
        return CacheLockedError(f"{path} is in use by another process: close it, or choose another --cache")
    if "newer version of DuckDB" in text:
        return CacheNewerError(
            f"{path} was written by a newer DuckDB ({first_line}): update mmn, or choose another --cache"
        )
    if any(sign in text for sign in _DAMAGE) or isinstance(error, duckdb.SerializationException):
        return CacheError(
            f"{path} is damaged ({first_line}): delete {path.name} and {path.name}.wal; "
            "the results are in runs/ beside it, and the database is rebuilt from them"
        )
    if "Read-only" in text or "Permission denied" in text:
        return CacheError(
            f"{path} cannot be written, which even reading needs ({first_line}): copy its folder to where you can "
            "write, and choose the copy (--cache; MMN_CACHE for the app)"
        )
    return CacheError(f"{path} cannot be used ({first_line}): check its permissions and the space left on its disk")

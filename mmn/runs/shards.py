"""A run on disk: one folder per run, one sub-folder of Parquet files per finished batch.

    <runs>/<run id>/run.json                every input that can change a number
    <runs>/<run id>/<shard>/*.parquet       one file per table of `tables.TABLES`; the folder's name gives the run
    <runs>/<run id>/<shard>/manifest.json   binds the shard to its run, its name and its content
    <runs>/<run id>/outcome.json            how and when it ended

A shard is written into a hidden folder beside its place, flushed to the disk and renamed: it is there whole or not at
all. That makes a job resumable and safe to kill, and its results readable while it runs. Nothing here opens the
database; `mmn.store` loads shards into it. Whatever is read was perhaps made by a stranger: `manifests`, `shard_files`
and `checks` say what is wrong with it, by name.

Invariant: all rows of one image and caption variant are in one shard (image-level ranks are computed shard by shard).
What is added later (`tables.ADDED`), which tells more of concepts that are stored already, lies in shards of its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa

from mmn.core import Outcome, Run
from mmn.errors import BrokenFileError, CacheError, SetAside, Unfit
from mmn.names import COMPLETE, RUN_STATES, RUNNING
from mmn.printable import quoted
from mmn.runs.checks import check_tables
from mmn.runs.manifests import (
    MANIFEST_FILE,
    OUTCOME_FILE,
    RUN_FILE,
    RunFile,
    outcome_bytes,
    read_outcome,
    read_run_file,
    run_bytes,
)
from mmn.runs.shard_files import (
    COMPRESSION_LEVEL,
    read_checked,
    read_columns,
    read_shard,
    row_counts,
    write_files,
)
from mmn.safety.atomic_files import explain_unwritable, hidden, publish, remove_leftovers, write_whole
from mmn.safety.inside import inside, is_name
from mmn.studies.tables import TABLES

__all__ = [
    "OUTCOME_FILE",
    "RUN_FILE",
    "RunFile",
    "broken_entries",
    "check_place",
    "copy_run",
    "create_run",
    "find_runs",
    "finish_run",
    "finished_shards",
    "read_checked",
    "read_columns",
    "read_outcome",
    "read_run",
    "read_run_file",
    "read_shard",
    "remove",
    "row_counts",
    "write_shard",
]
_ITSELF: Final = "put the folder itself there, or give its own place to mmn load"


def create_run(runs_path: Path, run: Run) -> Path:
    """Returns the folder of `run` below `runs_path`, new or, when the run is resumed, as it was.

    Removes what killed writers left behind in it.

    Raises:
        CacheError: nothing can be written there, or the folder holds a `run.json` of another run.
    """
    run_path = inside(runs_path, run.run_id)
    if (run_path / RUN_FILE).exists():
        found, _ = read_run(run_path)
        if found.run_id != run.run_id:
            raise CacheError(f"{run_path} holds the run {found.run_id}: move that folder away, then start again")
    else:
        with explain_unwritable(run_path):
            run_path.mkdir(parents=True, exist_ok=True)
            write_whole(run_path / RUN_FILE, run_bytes(run))
    remove_leftovers(runs_path)
    remove_leftovers(run_path)
    return run_path


def read_run(run_path: Path) -> tuple[Run, Outcome | None]:
    """Returns the run of a folder and how it ended, None while it has not.

    Raises:
        CacheError: no readable `run.json`, or one that says what this version does not know or no run can be.
    """
    return read_run_file(run_path).run, read_outcome(run_path)


def check_place(run_path: Path, run: Run) -> None:
    """Checks that a folder which was found in another one is a run's own: no link, and named as the run is.

    Raises:
        BrokenFileError: it is not, so that nothing may be written there or removed.
    """
    if run_path.is_symlink():
        raise BrokenFileError(run_path, "it is a link, which may lead anywhere", _ITSELF)
    if run_path.name != run.run_id:
        raise BrokenFileError(run_path, f"it holds the run {run.run_id}", "name the folder as its run is named")


def write_shard(
    run_path: Path, name: str, tables: Mapping[str, pa.Table], compression_level: int = COMPRESSION_LEVEL
) -> Path:
    """Returns the folder `<run_path>/<name>` that holds `tables`, whole; the first shard of a name wins.

    Args:
        run_path: folder of a run, from `create_run`.
        name: of the shard; a plain folder name, the same for the same batch of a resumed run.
        tables: by the names of `TABLES`, with exactly their columns in any order; row order is kept.
        compression_level: of zstd; 19 takes a tenth less room and many times as long.

    Raises:
        CacheError: the disk is full or cannot be written, or the run's folder is gone. Finished shards stay.
        AssertionError: values that must not be stored (our own bug): NaN, infinite, null, a score without its concept.
    """
    assert is_name(name), f"not a shard name: {name!r}"
    assert tables, "a shard without tables"
    typed = {table: _typed(table, rows) for table, rows in tables.items()}
    shard_path = inside(run_path, name)
    if shard_path.exists():
        return shard_path
    if not run_path.is_dir():
        raise CacheError(f"{run_path} is gone: the run was deleted while it was being scored; score it again")
    run = read_run_file(run_path).run
    try:
        check_tables(typed, run)
    except Unfit as error:
        raise AssertionError(str(error)) from error
    hidden_path = hidden(run_path, name)
    try:
        with explain_unwritable(run_path):
            write_files(hidden_path, run, name, typed, compression_level)
            publish(hidden_path, shard_path)
    finally:
        shutil.rmtree(hidden_path, ignore_errors=True)
    return shard_path


def finished_shards(run_path: Path) -> frozenset[str]:
    """Returns the names of the shards that are there whole."""
    with os.scandir(run_path) as entries:
        return frozenset(entry.name for entry in entries if is_name(entry.name) and _is_shard(entry))


def broken_entries(run_path: Path) -> list[SetAside]:
    """Returns what lies in a run's folder like a shard, and is not read: links, and names that no shard has."""
    with os.scandir(run_path) as entries:
        seen = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    found = []
    for entry in seen:
        path = Path(entry.path)
        if entry.is_symlink() and entry.name not in (RUN_FILE, OUTCOME_FILE):
            found.append(SetAside(path, "it is a link, which may lead anywhere", "put the folder itself there"))
        elif not is_name(entry.name) and _is_shard(entry):
            found.append(SetAside(path, f"{quoted(entry.name)} is no name of a shard", "remove that folder"))
    return found


def _is_shard(entry: os.DirEntry[str]) -> bool:
    if not entry.is_dir(follow_symlinks=False):
        return False
    path = Path(entry.path)
    return any(path.glob("*.parquet")) or (path / MANIFEST_FILE).exists()


def copy_run(run_path: Path, runs_path: Path) -> Path:
    """Returns the folder below `runs_path` that holds the same run, copied where it is not there: one may add to it."""
    run, outcome = read_run(run_path)
    copy_path = create_run(runs_path, run)
    for name in sorted(finished_shards(run_path) - finished_shards(copy_path)):
        write_shard(copy_path, name, read_shard(run_path / name))
    if outcome is not None:
        finish_run(copy_path, outcome)
    return copy_path


def finish_run(run_path: Path, outcome: Outcome) -> None:
    """Writes how the run ended. A resumed run replaces an earlier end, but a complete run stays as it is.

    Raises:
        CacheError: nothing can be written there.
    """
    assert outcome.status in set(RUN_STATES) - {RUNNING}, outcome
    earlier = read_outcome(run_path)
    if earlier is not None and earlier.status == COMPLETE:
        return
    with explain_unwritable(run_path):
        write_whole(run_path / OUTCOME_FILE, outcome_bytes(outcome))


def find_runs(runs_paths: Iterable[Path]) -> list[Path]:
    """Returns the folders with a `run.json`, of whatever kind, in `runs_paths`: each is such a folder itself or holds
    some; in the order given.
    """
    found: list[Path] = []
    for path in runs_paths:
        if os.path.lexists(path / RUN_FILE):
            found.append(path)
        elif path.is_dir():
            children = sorted(child for child in path.iterdir() if not child.name.startswith("."))
            found += [child for child in children if os.path.lexists(child / RUN_FILE)]
    return list(dict.fromkeys(found))


def remove(folder: Path, name: str) -> Callable[[], None]:
    """Hides the folder of a run or shard from all readers, at once; call what is returned to give its space back.

    Two steps, so that the caller can forget it in between: killed half-way, no half of a run comes back. Where there is
    no such folder, nothing is done.

    Raises:
        CacheError: `name` is no plain name, or a link; the folder cannot be written.
    """
    path, hidden_path = inside(folder, name), hidden(folder, "deleted")
    if not path.is_dir():
        return lambda: None
    with explain_unwritable(path):
        path.rename(hidden_path)
    return lambda: shutil.rmtree(hidden_path, ignore_errors=True)


def _typed(table: str, rows: pa.Table) -> pa.Table:
    schema = TABLES[table]
    assert sorted(rows.column_names) == sorted(schema.names), f"{table}: {rows.column_names} is not {schema.names}"
    for field in schema:
        n_null = rows[field.name].null_count
        assert field.nullable or n_null == 0, f"{table}.{field.name}: {n_null} nulls"
    return rows.select(schema.names).cast(_keeping_dictionaries(schema, rows.schema)).unify_dictionaries()


def _keeping_dictionaries(schema: pa.Schema, given: pa.Schema) -> pa.Schema:
    """The schema with strings as given, plain or by dictionary: a long column of few words is many times smaller so."""

    def wanted(field: pa.Field) -> pa.Field:
        own = given.field(field.name).type
        is_same_text = pa.types.is_dictionary(own) and own.value_type == field.type
        return field.with_type(own) if is_same_text else field

    return pa.schema([wanted(field) for field in schema])

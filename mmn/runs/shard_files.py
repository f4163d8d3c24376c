"""The Parquet files of one shard, in and out. What is read is checked: the files, their digests, and what they hold.

A file is read whole, once: what was hashed is what is parsed. A file or folder that is a link, a pipe or a device is
refused, and so is a file of more than `MOST_FILE_BYTES` or a table of more than `checks.MOST_ROWS`.
"""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from mmn.core import Run
from mmn.counts import counted
from mmn.errors import BrokenFileError, Unfit
from mmn.printable import printable, quoted
from mmn.runs.checks import MOST_ROWS, check_tables, in_schema
from mmn.runs.manifests import MANIFEST_FILE, Manifest, RunFile, digest, read_manifest, read_run_file, to_json
from mmn.safety.atomic_files import flush
from mmn.safety.regular_files import check_regular, read_regular
from mmn.studies.tables import TABLES

MOST_FILE_BYTES: Final = 1_000_000_000
COMPRESSION_LEVEL: Final = 3  # zstd's usual one
REMEDY: Final = "delete that folder and give the same command again: only it is redone"
_TEXTS: Final = {name: [f.name for f in schema if f.type == pa.string()] for name, schema in TABLES.items()}
_BY_ARROW: Final = (pa.ArrowException, OSError, ValueError, KeyError, MemoryError)


@dataclass(frozen=True)
class Shard:
    """The tables of a shard, text by dictionary; `digest` stands for its content, `is_bound` if a manifest says so."""

    tables: dict[str, pa.Table]
    digest: str
    is_bound: bool


def read_checked(shard_path: Path, run_file: RunFile) -> Shard:
    """Returns the tables of a shard of a run, in the order of `TABLES`, with all that can be checked checked.

    Paths of pictures that were written relative count from the run's folder; here they are absolute.

    Raises:
        BrokenFileError: a file is not fit to be read, is not the one that was written, or holds what no run can hold.
    """
    manifest = _manifest_of(shard_path, run_file)
    files = {name: _file_bytes(shard_path, name) for name in _tables_there(shard_path)}
    digests = {name: digest(data) for name, data in files.items()}
    if manifest is not None:
        _check_digests(shard_path, manifest, digests)
    try:
        tables = {name: in_schema(name, _parsed(name, data)) for name, data in files.items()}
        check_tables(tables, run_file.run)
    except Unfit as error:
        raise BrokenFileError(shard_path, printable(error), REMEDY) from error
    except _BY_ARROW as error:
        raise _unreadable(shard_path, error) from error
    if "image" in tables:
        tables["image"] = _with_absolute_sources(tables["image"].cast(TABLES["image"]), shard_path.parent)
    return Shard(tables, digest(repr(sorted(digests.items())).encode()), manifest is not None)


def read_shard(shard_path: Path, only: Container[str] = TABLES) -> dict[str, pa.Table]:
    """Returns the tables of one shard by name, those of `only`, checked, with exactly the types of `TABLES`.

    Raises:
        CacheError: the shard or its run's `run.json` is broken.
    """
    found = read_checked(shard_path, read_run_file(shard_path.parent)).tables
    return {name: table.cast(TABLES[name]) for name, table in found.items() if name in only}


def read_columns(shard_path: Path, table: str, columns: list[str]) -> pa.Table:
    """Returns some columns of one table, text by dictionary as it is stored, without checks of what they hold: many
    times faster than `read_shard`.

    Raises:
        CacheError: the file is broken, or has no such columns.
    """
    try:
        return pq.ParquetFile(_checked_path(shard_path, table)).read(columns).select(columns)
    except _BY_ARROW as error:
        raise _unreadable(shard_path, error) from error


def row_counts(shard_path: Path) -> dict[str, int]:
    """Returns how many rows each table of a shard has, without reading them.

    Raises:
        CacheError: a file is broken.
    """
    try:
        paths = {name: _checked_path(shard_path, name) for name in _tables_there(shard_path)}
        return {name: pq.ParquetFile(path).metadata.num_rows for name, path in paths.items()}
    except _BY_ARROW as error:
        raise _unreadable(shard_path, error) from error


def write_files(
    folder: Path, run: Run, shard: str, tables: Mapping[str, pa.Table], level: int = COMPRESSION_LEVEL
) -> None:
    """Writes a new folder of Parquet files and the manifest that binds them to the run; all of it is on the disk."""
    folder.mkdir()
    digests = {}
    for table, rows in tables.items():
        path = folder / f"{table}.parquet"
        pq.write_table(rows, path, **_parquet_options(rows.schema, level))
        flush(path)
        digests[table] = digest(path.read_bytes())
    manifest = folder / MANIFEST_FILE
    manifest.write_bytes(to_json(asdict(Manifest(run.run_id, shard, digests))))
    flush(manifest)
    flush(folder)


def _manifest_of(shard_path: Path, run_file: RunFile) -> Manifest | None:
    """The manifest of a shard, if it is one of this run and this name."""
    if shard_path.is_symlink():
        raise BrokenFileError(shard_path, "it is a link, which may lead anywhere", "put the folder itself there")
    manifest = read_manifest(shard_path)
    if manifest is None:
        if run_file.is_bound:
            raise BrokenFileError(shard_path, f"its {MANIFEST_FILE} is missing", REMEDY)
        return None
    if manifest.run_id != run_file.run.run_id:
        raise BrokenFileError(shard_path, f"it is a shard of the run {quoted(manifest.run_id)}", "remove that folder")
    if manifest.shard != shard_path.name:
        raise BrokenFileError(shard_path, f"it is a copy of the shard {quoted(manifest.shard)}", "remove that folder")
    return manifest


def _tables_there(shard_path: Path) -> list[str]:
    return [name for name in TABLES if os.path.lexists(shard_path / f"{name}.parquet")]


def _checked_path(shard_path: Path, table: str) -> Path:
    return check_regular(shard_path / f"{table}.parquet", MOST_FILE_BYTES, REMEDY)


def _file_bytes(shard_path: Path, table: str) -> bytes:
    return read_regular(shard_path / f"{table}.parquet", MOST_FILE_BYTES, REMEDY)


def _check_digests(shard_path: Path, manifest: Manifest, digests: Mapping[str, str]) -> None:
    known = {name: value for name, value in manifest.files.items() if name in TABLES}  # a newer mmn may have more
    if missing := sorted(set(known) - set(digests)):
        raise BrokenFileError(shard_path, f"{missing[0]}.parquet is missing", REMEDY)
    for name, value in digests.items():
        if known.get(name) != value:
            raise BrokenFileError(
                shard_path / f"{name}.parquet", f"its sha-256 is not the one in {MANIFEST_FILE}", REMEDY
            )


def _opened(data: bytes, texts: list[str] | None = None) -> pq.ParquetFile:
    return pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts)


def _parsed(name: str, data: bytes) -> pa.Table:
    """The columns of a file that its schema knows."""
    file = _opened(data)
    if file.metadata.num_rows > MOST_ROWS:
        raise Unfit(f"{name} has {counted(file.metadata.num_rows, 'row')}, more than the {MOST_ROWS:,} of a shard")
    there = set(file.schema_arrow.names)
    by_dictionary = _opened(data, [column for column in _TEXTS[name] if column in there])
    return by_dictionary.read([column for column in TABLES[name].names if column in there])


def _unreadable(shard_path: Path, error: BaseException) -> BrokenFileError:
    return BrokenFileError(shard_path, f"it cannot be read ({printable(str(error)[:300])})", REMEDY)


def _with_absolute_sources(images: pa.Table, run_path: Path) -> pa.Table:
    def absolute(source: str) -> str:
        return os.path.normpath(run_path.absolute() / source)

    rows = images.to_pylist()
    for row in rows:
        row["source"] = absolute(row["source"])
        row["sources"] = [absolute(source) for source in row["sources"]]
    return pa.Table.from_pylist(rows, schema=images.schema)


def _parquet_options(schema: pa.Schema, level: int) -> dict[str, Any]:
    """Returns what made score shards smallest: 6.2 bytes a row, where zstd with the defaults takes 10.4.

    Floats are stored byte by byte (all first bytes, then all second …), ranks by their steps, all else by dictionary;
    so are expected counts, products of a few whole numbers. The values of lists are stored as a column's are.
    """
    kinds = dict(map(_leaf, schema))
    floats = [path for path, kind in kinds.items() if pa.types.is_floating(kind) and path != "n_random"]
    encodings = dict.fromkeys(floats, "BYTE_STREAM_SPLIT")
    encodings |= {path: "DELTA_BINARY_PACKED" for path in kinds if path == "rank"}
    return {
        "compression": "zstd",
        "compression_level": level,
        "use_dictionary": [path for path in kinds if path not in encodings],
        "column_encoding": encodings,
    }


def _leaf(field: pa.Field) -> tuple[str, pa.DataType]:
    """What Parquet calls the values of a column, and their type."""
    if pa.types.is_nested(field.type):
        return f"{field.name}.list.element", field.type.value_type
    return field.name, field.type

"""What did a scoring run find? Its answer as Parquet: one folder per run, one sub-folder per finished batch.

    <runs>/<run id>/run.json            every input that can change a number
    <runs>/<run id>/<shard>/*.parquet   one file per table of `tables.TABLES`; the folder's name gives the run
    <runs>/<run id>/outcome.json        how and when it ended

A shard is written into a hidden folder beside its place, flushed to the disk and renamed: it is there whole or not at
all. That makes a job resumable and safe to kill, and its results readable while it runs. Nothing here opens the
database; `mmn.store` loads shards into it.

Invariant: all rows of one image and caption variant are in one shard (image-level ranks are computed shard by shard).
What is added later (`tables.ADDED`), which tells more of concepts that are stored already, lies in shards of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmn.core import ModelFacts, Outcome, Run, ScoreSettings
from mmn.errors import CacheError
from mmn.names import COMPLETE, RUN_STATES, RUNNING
from mmn.tables import ADDED_KEYS, SCHEMAS, SINCE_5, TABLES
from mmn.whole_files import explain_full_disk, flush, hidden, publish, remove_leftovers, write_whole

RUN_FILE: Final = "run.json"
OUTCOME_FILE: Final = "outcome.json"


def create_run(runs_path: Path, run: Run) -> Path:
    """Returns the folder of `run` below `runs_path`, new or, when the run is resumed, as it was.

    Removes what killed writers left behind in it.

    Raises:
        CacheError: the disk is full, or the folder holds a `run.json` of another run.
    """
    run_path = runs_path / run.run_id
    if (run_path / RUN_FILE).exists():
        found, _ = read_run(run_path)
        if found.run_id != run.run_id:
            raise CacheError(f"{run_path} holds the run {found.run_id}: move that folder away, then start again")
    else:
        with explain_full_disk(run_path):
            run_path.mkdir(parents=True, exist_ok=True)
            write_whole(run_path / RUN_FILE, _to_json(asdict(run)))
    remove_leftovers(runs_path)
    remove_leftovers(run_path)
    return run_path


def read_run(run_path: Path) -> tuple[Run, Outcome | None]:
    """Returns the run of a folder and how it ended, None while it has not.

    Raises:
        CacheError: no readable `run.json`, or fields that this version does not know.
    """
    values = _read_json(run_path / RUN_FILE)
    outcome_path = run_path / OUTCOME_FILE
    try:
        settings: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values["settings"].items()}
        model = ModelFacts(**values["model"])
        run = Run(**{**values, "model": model, "settings": ScoreSettings(**settings)})
        outcome = Outcome(**_read_json(outcome_path)) if outcome_path.exists() else None
    except (TypeError, KeyError, AttributeError) as error:
        raise CacheError(
            f"{run_path}: {RUN_FILE} or {OUTCOME_FILE} is not as this version of mmn writes it ({error}); "
            "update mmn, or move the folder away"
        ) from error
    return run, outcome


def write_shard(run_path: Path, name: str, tables: Mapping[str, pa.Table]) -> Path:
    """Returns the folder `<run_path>/<name>` that holds `tables`, whole; the first shard of a name wins.

    Args:
        run_path: folder of a run, from `create_run`.
        name: of the shard; a plain folder name, the same for the same batch of a resumed run.
        tables: by the names of `TABLES`, with exactly their columns in any order; row order is kept.

    Raises:
        CacheError: the disk is full or the run's folder is gone. Finished shards stay.
        AssertionError: values that must not be stored (our own bug): NaN, infinite, null, a score without its concept.
    """
    assert re.fullmatch(r"\w[\w.-]*", name), f"not a shard name: {name!r}"
    assert tables, "a shard without tables"
    checked = {table: _checked(table, rows) for table, rows in tables.items()}
    _check_keys(checked)
    shard_path = run_path / name
    if shard_path.exists():
        return shard_path
    if not run_path.is_dir():
        raise CacheError(f"{run_path} is gone: the run was deleted while it was being scored; score it again")
    hidden_path = hidden(run_path, name)
    try:
        with explain_full_disk(run_path):
            _write_tables(hidden_path, checked)
            publish(hidden_path, shard_path)
    finally:
        shutil.rmtree(hidden_path, ignore_errors=True)
    return shard_path


def finished_shards(run_path: Path) -> frozenset[str]:
    """Returns the names of the shards that are there whole."""
    return frozenset(p.name for p in run_path.iterdir() if not p.name.startswith(".") and any(p.glob("*.parquet")))


def read_shard(shard_path: Path) -> dict[str, pa.Table]:
    """Returns the tables of one shard by name, in the order of `TABLES`.

    Paths of pictures that were written relative count from the run's folder; here they are absolute.

    Raises:
        CacheError: a file is broken, or has other columns than `TABLES`.
    """
    try:
        found = {
            table: _with_later_columns(table, pq.ParquetFile(path).read()).select(schema.names).cast(schema)
            for table, schema in TABLES.items()
            if (path := shard_path / f"{table}.parquet").exists()
        }
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise _unreadable(shard_path, error) from error
    if "image" in found:
        found["image"] = _with_absolute_sources(found["image"], shard_path.parent)
    return found


def read_columns(shard_path: Path, table: str, columns: list[str]) -> pa.Table:
    """Returns some columns of one table, text by dictionary as it is stored: many times faster than `read_shard`.

    Raises:
        CacheError: the file is broken, or has no such columns.
    """
    try:
        return pq.ParquetFile(shard_path / f"{table}.parquet").read(columns).select(columns)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise _unreadable(shard_path, error) from error


def row_counts(shard_path: Path) -> dict[str, int]:
    """Returns how many rows each table of a shard has, without reading them.

    Raises:
        CacheError: a file is broken.
    """
    try:
        return {path.stem: pq.ParquetFile(path).metadata.num_rows for path in sorted(shard_path.glob("*.parquet"))}
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(shard_path, error) from error


def _with_later_columns(table: str, rows: pa.Table) -> pa.Table:
    """The rows of an earlier version's shard with the columns that came later, as they would have been written then."""
    for column, value in SINCE_5.get(table, {}).items():
        if column not in rows.column_names:
            rows = rows.append_column(column, pa.array([value] * len(rows), TABLES[table].field(column).type))
    return rows


def _unreadable(shard_path: Path, error: Exception) -> CacheError:
    return CacheError(
        f"the shard {shard_path} cannot be read ({error}); delete that folder and score again: only it is redone"
    )


def _with_absolute_sources(images: pa.Table, run_path: Path) -> pa.Table:
    def absolute(source: str) -> str:
        return os.path.normpath(run_path.absolute() / source)

    rows = images.to_pylist()
    for row in rows:
        row["source"] = absolute(row["source"])
        row["sources"] = [absolute(source) for source in row["sources"]]
    return pa.Table.from_pylist(rows, schema=images.schema)


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
        CacheError: the disk is full.
    """
    assert outcome.status in set(RUN_STATES) - {RUNNING}, outcome
    _, earlier = read_run(run_path)
    if earlier is not None and earlier.status == COMPLETE:
        return
    with explain_full_disk(run_path):
        write_whole(run_path / OUTCOME_FILE, _to_json(asdict(outcome)))


def find_runs(runs_paths: Iterable[Path]) -> list[Path]:
    """Returns the run folders in `runs_paths`, each of which is a run itself or holds runs; in the order given."""
    found: list[Path] = []
    for path in runs_paths:
        if (path / RUN_FILE).is_file():
            found.append(path)
        elif path.is_dir():
            children = sorted(child for child in path.iterdir() if not child.name.startswith("."))
            found += [child for child in children if (child / RUN_FILE).is_file()]
    return list(dict.fromkeys(found))


def remove_run(run_path: Path) -> Callable[[], None]:
    """Hides the folder of a run from all readers, at once; call what is returned to give its space back.

    Two steps, so that the caller can forget the run in between: killed half-way, no half of a run comes back.
    """
    hidden_path = hidden(run_path.parent, "deleted")
    run_path.rename(hidden_path)
    return lambda: shutil.rmtree(hidden_path, ignore_errors=True)


def _checked(table: str, rows: pa.Table) -> pa.Table:
    schema = TABLES[table]
    assert sorted(rows.column_names) == sorted(schema.names), f"{table}: {rows.column_names} is not {schema.names}"
    for field in schema:
        n_null = rows[field.name].null_count
        assert field.nullable or n_null == 0, f"{table}.{field.name}: {n_null} nulls"
    typed = rows.select(schema.names).cast(_keeping_dictionaries(schema, rows.schema)).unify_dictionaries()
    for field in schema:
        values = typed[field.name]
        if pa.types.is_list(field.type) or pa.types.is_fixed_size_list(field.type):
            values = pc.list_flatten(values)
            assert values.null_count == 0, f"{table}.{field.name}: {values.null_count} nulls in its lists"
        if pa.types.is_floating(values.type):
            n_bad = pc.sum(pc.invert(pc.is_finite(values))).as_py() or 0
            assert n_bad == 0, f"{table}.{field.name}: {n_bad} of {len(values)} values are NaN or infinite"
    return typed


def _keeping_dictionaries(schema: pa.Schema, given: pa.Schema) -> pa.Schema:
    """The schema with strings as given, plain or by dictionary: a long column of few words is many times smaller so."""

    def wanted(field: pa.Field) -> pa.Field:
        own = given.field(field.name).type
        is_same_text = pa.types.is_dictionary(own) and own.value_type == field.type
        return field.with_type(own) if is_same_text else field

    return pa.schema([wanted(field) for field in schema])


def _check_keys(tables: Mapping[str, pa.Table]) -> None:
    """Asserts that a noun names one concept of a caption, and that every score and budget row has its concept.

    What is added later is of concepts in other shards of the run; here only its own keys must be distinct.
    """
    key = ["image_id", "variant", "noun"]
    plain = pa.schema([SCHEMAS["concept"].field(name) for name in key])
    concepts = tables.get("concept", SCHEMAS["concept"].empty_table()).select(key).cast(plain)
    n_distinct = len(concepts.group_by(key).aggregate([]))
    assert n_distinct == len(concepts), f"{len(concepts)} concepts but {n_distinct} distinct (image, variant, noun)"
    for name in ("score", "budget"):
        if name in tables:
            rows = tables[name].select(key).group_by(key).aggregate([]).cast(plain)
            orphans = rows.join(concepts, keys=key, join_type="left anti")
            assert len(orphans) == 0, f"{name} rows without a concept: {orphans.slice(0, 3).to_pylist()}"
    for name, keys in ADDED_KEYS.items():
        if name in tables:
            n_distinct = len(tables[name].group_by(list(keys)).aggregate([]))
            assert n_distinct == len(tables[name]), f"{len(tables[name])} {name} rows, {n_distinct} distinct {keys}"


def _write_tables(folder: Path, tables: Mapping[str, pa.Table]) -> None:
    folder.mkdir()
    for table, rows in tables.items():
        path = folder / f"{table}.parquet"
        pq.write_table(rows, path, **_parquet_options(rows.schema))
        flush(path)
    flush(folder)


def _parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Returns what made score shards smallest: 6.2 bytes a row, where zstd with the defaults takes 10.4.

    Floats are stored byte by byte (all first bytes, then all second …), ranks by their steps, all else by dictionary;
    so are expected counts, products of a few whole numbers.
    """
    floats = [f.name for f in schema if pa.types.is_floating(f.type) and f.name != "n_random"]
    encodings = dict.fromkeys(floats, "BYTE_STREAM_SPLIT")
    encodings |= {name: "DELTA_BINARY_PACKED" for name in schema.names if name == "rank"}
    repeating = [f.name for f in schema if f.name not in encodings and not pa.types.is_nested(f.type)]
    return {
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": repeating,
        "column_encoding": encodings,
    }


def _to_json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CacheError(f"{path} cannot be read ({error}); move its folder away, then score again") from error
    if not isinstance(values, dict):
        raise CacheError(f"{path} does not describe a run; move its folder away, then score again")
    return values

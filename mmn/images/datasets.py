"""A Hugging Face dataset saved on disk, read without the `datasets` package.

`save_to_disk` writes Arrow IPC streams (`*.arrow`), exports are Parquet. The picture column is a struct
{bytes, path}; embedded bytes are written to `work_path/<sha-256>.<ending>`, whole or not at all, so that every
example has a path that opens.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmn.core import Failure
from mmn.errors import CacheError, ImageError, SourceError
from mmn.images.columns import captions_in, is_caption_column, unread
from mmn.images.naming import Unresolved, resolve_beside
from mmn.images.opening import format_suffix
from mmn.images.places import Place, Places, require_folder, walk
from mmn.safety.roots import require_inside

_ROWS_AT_ONCE = 64  # pictures in memory


def dataset_places(folder: Path, work_path: Path) -> Places:
    """The rows of all shards in `folder` (its splits too), in shard and row order; written out as they are asked for.

    Raises:
        SourceError: no shards, a damaged one, or one without a picture column.
        CacheError: `work_path` cannot be written (raised while iterating).
    """
    require_folder(folder)
    shards = [inside / name for inside, names in walk(folder) for name in names if _is_shard(name)]
    if not shards:
        raise SourceError(f"{folder} holds no .arrow or .parquet file: give the folder that save_to_disk wrote")
    n_rows = sum(_n_rows(shard) for shard in shards)
    if not n_rows:
        raise SourceError(f"{folder} is a dataset without rows: give one that holds pictures")
    work_path = Path(os.path.abspath(work_path))  # noqa: PTH100 - resolve() would follow links
    places = (place for shard in shards for place in _shard_places(shard, work_path))
    return Places(places, n_rows, is_written_out=True, why_none=_why_none(shards[0]))


def _is_shard(name: str) -> bool:
    """Not the `cache-*.arrow` files that `datasets` leaves beside its shards: they repeat rows."""
    return name.endswith(".parquet") or (name.endswith(".arrow") and not name.startswith("cache-"))


def _n_rows(shard: Path) -> int:
    with _readable(shard):
        if shard.suffix == ".parquet":
            return pq.read_metadata(shard).num_rows
        return sum(batch.num_rows for batch in _arrow_batches(shard))


def _shard_places(shard: Path, work_path: Path) -> Iterator[Place | Failure]:
    with _readable(shard):
        for number, row in enumerate(_rows(shard)):
            for picture in row["image"]:
                yield _place(picture, captions_in(row), shard, number, work_path)


def _why_none(shard: Path) -> str:
    with _readable(shard):
        names = _schema(shard).names
    captions = [name for name in names if is_caption_column(name)]
    if captions:
        return f"nothing is written in the caption columns of {shard} ({', '.join(captions)})"
    return f"{shard} has {unread(names)}"


def _schema(shard: Path) -> pa.Schema:
    return pq.read_schema(shard) if shard.suffix == ".parquet" else next(_arrow_batches(shard)).schema


def _rows(shard: Path) -> Iterator[dict[str, Any]]:
    """Rows of the picture column (as a list `image`) and the caption columns, a few in memory at a time."""
    schema = _schema(shard)
    picture = _picture_column(schema, shard)
    columns = [picture, *(name for name in schema.names if is_caption_column(name) and name != picture)]
    if shard.suffix == ".parquet":
        batches = pq.ParquetFile(shard).iter_batches(_ROWS_AT_ONCE, columns=columns)
    else:
        batches = (batch.select(columns) for batch in _arrow_batches(shard))
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
            for row in batch.slice(start, _ROWS_AT_ONCE).to_pylist():
                pictures = row.pop(picture)
                yield {**row, "image": pictures if isinstance(pictures, list) else [pictures]}


def _arrow_batches(shard: Path) -> Iterator[pa.RecordBatch]:
    """Batches of an Arrow stream, from a memory map: nothing is copied until it is used."""
    with pa.memory_map(str(shard)) as mapped, pa.ipc.open_stream(mapped) as reader:
        n_batches = 0
        for batch in reader:
            n_batches += 1
            yield batch
        if not n_batches:
            yield pa.RecordBatch.from_pylist([], schema=reader.schema)


def _picture_column(schema: pa.Schema, shard: Path) -> str:
    """`image` or `images` if it is there, else the first column of the form struct{bytes, path}, or a list of such."""
    structs = [field.name for field in schema if _is_picture(field.type)]
    named = [name for name in ("image", "images") if name in schema.names]
    if not structs + named:
        columns = ", ".join(schema.names)
        raise SourceError(f"{shard} has no picture column among ({columns}): it needs 'image' with bytes or a path")
    return (named + structs)[0]


def _is_picture(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return pa.types.is_struct(kind) and bool({"bytes", "path"} & {child.name for child in kind})


def _place(picture: Any, captions: tuple[str, ...], shard: Path, number: int, work_path: Path) -> Place | Failure:
    if isinstance(picture, bytes | str):
        picture = {"bytes" if isinstance(picture, bytes) else "path": picture}
    picture = picture if isinstance(picture, dict) else {}
    if picture.get("bytes"):
        return Place(_written(picture["bytes"], work_path), captions)
    reason = f"{shard}, row {number}, holds neither a picture nor a path: leave the row out"
    if picture.get("path"):
        path = resolve_beside(shard.parent, [picture["path"]])[picture["path"]]
        if not isinstance(path, Unresolved):
            return Place(path, captions)
        reason = path.reason
    return Failure(f"{shard}#{number}", "open", ImageError.__name__, reason)


def _written(data: bytes, work_path: Path) -> Path:
    """The path of a file of these bytes, named by their hash; an earlier one of the same size is kept.

    Raises:
        CacheError: it cannot be written.
    """
    path = work_path / (hashlib.sha256(data).hexdigest() + format_suffix(data))
    try:
        if not path.is_file() or path.stat().st_size != len(data):
            work_path.mkdir(parents=True, exist_ok=True)
            _write_whole(data, path)
    except OSError as error:
        raise CacheError(f"{path} cannot be written ({error.strerror}): free space or use another folder") from error
    return path


def _write_whole(data: bytes, path: Path) -> None:
    """All of `data` under its final name, or nothing: a killed job leaves no half picture."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        os.replace(temporary, path)  # noqa: PTH105
    finally:
        Path(temporary).unlink(missing_ok=True)


@contextlib.contextmanager
def _readable(shard: Path) -> Iterator[None]:
    require_inside(shard)
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise SourceError(f"{shard} is no readable Arrow stream or Parquet file ({reason}): save it again") from error

"""A run as one file that another installation imports: its shards, small pictures, settings; no weights. OURS.

    mmn-bundle.json                       which run, written by which program, and the sha-256 of every other file
    run/run.json, run/outcome.json        as in the cache
    run/<shard>/manifest.json, *.parquet  likewise; the paths of pictures are those of the small pictures below
    run/thumbnails/<image id>.webp        at most `SIDE` pixels each way; none of a picture that cannot be opened

The same run gives the same bytes. A bundle may come from a stranger: nothing of it is written before its list of
contents is judged whole (names, kinds, sizes, how far it unpacks), and it counts as a run only after every checksum and
every shard was checked, in a hidden folder. What is left out: the pictures themselves, so that a run that was imported
can be looked at and not measured further.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa

from mmn import __version__
from mmn.core import Run
from mmn.counts import counted
from mmn.errors import BrokenFileError, CacheNewerError, ImageError, UsageError
from mmn.images.opening import read_header, thumbnail
from mmn.printable import printable, quoted
from mmn.runs import shards
from mmn.runs.shard_files import write_files
from mmn.safety.atomic_files import explain_unwritable, hidden, publish
from mmn.safety.inside import is_run_id
from mmn.safety.regular_files import check_regular
from mmn.store.migrations import MIGRATIONS
from mmn.studies.tables import TABLES

CONTENTS: Final = "mmn-bundle.json"
FORMAT: Final = 1  # of bundles
SIDE: Final = 256  # pixels of a small picture's longer side
THUMBNAILS: Final = "thumbnails"
_NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}"
_FILE: Final = re.compile(
    rf"run/(run\.json|outcome\.json|{THUMBNAILS}/[0-9a-f]{{64}}\.webp|{_NAME}/(manifest\.json|[a-z_]{{1,60}}\.parquet))"
)
_MOST_FILES: Final = 500_000
_MOST_CONTENTS: Final = 200_000_000  # bytes of the list of contents
_MOST_BYTES: Final = 100_000_000_000  # of all files, unpacked
_MOST_RATIO: Final = 100  # of what a file unpacks to; ours are stored, Parquet and WebP being compressed already
_SMALL: Final = 1_000_000  # bytes that may unpack further
_CHUNK: Final = 1 << 20
_PACKED: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_TIME: Final = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip knows
_ENCRYPTED: Final = 0x1
Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Bundled:
    """What a bundle holds: the run, how many shards and small pictures, and how many pictures did not open."""

    run_id: str
    n_shards: int
    n_pictures: int
    n_missing: int
    n_bytes: int


@dataclass(frozen=True)
class Unpacked:
    """A run that was imported: where it lies, and how many of its shards were not there before."""

    run_id: str
    path: Path
    n_shards: int


def write_bundle(run_path: Path, out: Path, tell: Tell = lambda _done, _total: None) -> Bundled:
    """Writes a run's folder as one zip file.

    Args:
        run_path: of the run; every shard is checked while it is read.
        out: the file; one that is there is replaced, once the new one is whole.
        tell: is told (shards done, shards to do).

    Raises:
        CacheError: the run's folder is damaged.
        OSError: `out` cannot be written.
    """
    run_file, outcome = shards.read_run_file(run_path), shards.read_outcome(run_path)
    names = sorted(shards.finished_shards(run_path))
    hidden_path = hidden(out.parent, out.name)
    try:
        with _Writer(hidden_path) as writer:
            writer.add(f"run/{shards.RUN_FILE}", (run_path / shards.RUN_FILE).read_bytes())
            if outcome is not None:
                writer.add(f"run/{shards.OUTCOME_FILE}", (run_path / shards.OUTCOME_FILE).read_bytes())
            for number, name in enumerate(names, start=1):
                _add_shard(writer, run_file, run_path / name)
                tell(number, len(names))
            writer.finish(run_file.run.run_id)
        hidden_path.replace(out)
    finally:
        hidden_path.unlink(missing_ok=True)
    return Bundled(run_file.run.run_id, len(names), writer.n_pictures, writer.n_missing, out.stat().st_size)


class _Writer:
    """A zip file that is being written; it remembers the digest of each file for the list of contents."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path, "w")
        self._digests: dict[str, str] = {}
        self.n_pictures = self.n_missing = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def add(self, name: str, data: bytes) -> None:
        if name not in self._digests:  # two shards may tell of one picture
            self._digests[name] = hashlib.sha256(data).hexdigest()
            self._write(name, data)

    def add_picture(self, image_id: str, source: str) -> str:
        """The path of the small picture, counted from the run's folder, whether there is one or not."""
        name = f"{THUMBNAILS}/{image_id}.webp"
        try:
            self.add(f"run/{name}", thumbnail(source, SIDE))
            self.n_pictures += 1
        except ImageError:
            self.n_missing += 1
        return name

    def finish(self, run_id: str) -> None:
        told = {"mmn_bundle": FORMAT, "run_id": run_id, "mmn": __version__, "schema": len(MIGRATIONS)}
        self._write(CONTENTS, json.dumps(told | {"files": self._digests}, indent=1).encode())

    def _write(self, name: str, data: bytes) -> None:
        entry = zipfile.ZipInfo(name, _TIME)
        entry.external_attr = (stat.S_IFREG | 0o644) << 16
        entry.create_system = 3  # Unix, on every machine
        is_packed = name.endswith((".parquet", ".webp"))
        self._zip.writestr(entry, data, zipfile.ZIP_STORED if is_packed else zipfile.ZIP_DEFLATED)


def _add_shard(writer: _Writer, run_file: shards.RunFile, shard_path: Path) -> None:
    """Adds a shard; where it tells of pictures, with the paths of their small ones, written anew."""
    tables = shards.read_checked(shard_path, run_file).tables
    if "image" not in tables and "failure" not in tables:
        _add_files(writer, shard_path, shard_path.name)
        return
    plain = {name: table.cast(TABLES[name]) for name, table in tables.items()}
    if "image" in plain:
        plain["image"] = _with_small_pictures(writer, plain["image"])
    if "failure" in plain:
        plain["failure"] = _without_folders(plain["failure"])
    with TemporaryDirectory() as folder:
        write_files(Path(folder) / shard_path.name, run_file.run, shard_path.name, plain)
        _add_files(writer, Path(folder) / shard_path.name, shard_path.name)


def _add_files(writer: _Writer, folder: Path, shard: str) -> None:
    for path in sorted(folder.iterdir()):
        if _FILE.fullmatch(name := f"run/{shard}/{path.name}"):
            writer.add(name, path.read_bytes())


def _with_small_pictures(writer: _Writer, images: pa.Table) -> pa.Table:
    rows = images.to_pylist()
    for row in rows:
        row["source"] = writer.add_picture(row["image_id"], row["source"])
        row["sources"] = [row["source"]]
    return pa.Table.from_pylist(rows, schema=images.schema)


def _without_folders(failures: pa.Table) -> pa.Table:
    rows = [row | {"source": PurePath(row["source"]).name} for row in failures.to_pylist()]
    return pa.Table.from_pylist(rows, schema=failures.schema)


def read_bundle(path: Path, runs_path: Path, tell: Tell = lambda _done, _total: None) -> Unpacked:
    """Unpacks a bundle into a folder of runs; shards of the run that are there already stay as they are.

    Args:
        path: of the zip file, whoever made it.
        runs_path: where its run's folder goes.
        tell: is told (files done, files to do).

    Raises:
        UsageError: it is no bundle, or not as `write_bundle` writes them: a name, kind or size, a wrong checksum.
        CacheNewerError: a newer program wrote it.
        CacheError: its run is damaged, or nothing can be written.
    """
    check_regular(path, _MOST_BYTES, "give a file that mmn bundle wrote")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _judged(archive, path)
            contents = _contents(archive, entries, path)
            return _unpacked(archive, entries, contents, path, runs_path, tell)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error, struct.error, OverflowError) as error:
        raise UsageError(f"{path.name} is no whole zip file ({printable(str(error)[:200])})") from error


def _refused(path: Path, why: str) -> UsageError:
    return UsageError(f"{path.name} is refused: {why}; nothing was written")


def _judged(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive by name, none of which was opened yet.

    Raises:
        UsageError: a name, kind or size that no bundle has.
    """
    infos = archive.infolist()
    if len(infos) > _MOST_FILES:
        raise _refused(path, f"it lists {counted(len(infos), 'file')}")
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if why := _why_unfit(info):
            raise _refused(path, f"{quoted(info.orig_filename)} {why}")
        if info.filename.lower() in entries:
            raise _refused(path, f"{quoted(info.filename)} is in it twice")
        entries[info.filename.lower()] = info
    if sum(info.file_size for info in infos) > _MOST_BYTES:
        raise _refused(path, "it unpacks to more than is read")
    if sum(info.compress_size for info in infos) > path.stat().st_size:
        raise _refused(path, "its files lie over each other")
    return {info.filename: info for info in infos}


def _why_unfit(info: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a link, which may lead anywhere"
    if kind not in (0, stat.S_IFREG) or info.is_dir():
        return "is no plain file"
    if info.orig_filename != info.filename or not (info.filename == CONTENTS or _FILE.fullmatch(info.filename)):
        return "is no name of a file in a bundle"
    if info.flag_bits & _ENCRYPTED or info.compress_type not in _PACKED:
        return "is packed as no bundle is"
    if info.file_size > _SMALL and info.file_size > _MOST_RATIO * info.compress_size:
        return f"unpacks to {info.file_size:,} bytes from {info.compress_size:,}"
    return ""


def _contents(archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], path: Path) -> dict[str, Any]:
    """The list of contents, which tells of all files and no others.

    Raises:
        UsageError: there is none, or it does not.
        CacheNewerError: a newer program wrote it.
    """
    info = entries.get(CONTENTS)
    if info is None or info.file_size > _MOST_CONTENTS:
        raise _refused(path, f"it has no {CONTENTS}, so mmn bundle did not write it")
    try:
        told = json.loads(archive.read(info).decode())
    except (ValueError, RecursionError) as error:
        raise _refused(path, f"its {CONTENTS} is no JSON") from error
    if not isinstance(told, dict) or type(told.get("mmn_bundle")) is not int or type(told.get("schema")) is not int:
        raise _refused(path, f"its {CONTENTS} is not as mmn bundle writes it")
    if told["mmn_bundle"] > FORMAT or told["schema"] > len(MIGRATIONS):
        raise CacheNewerError(
            f"{path.name} was written by a newer mmn ({quoted(told.get('mmn'), 20)}; tables of version "
            f"{told['schema']}, this one knows {len(MIGRATIONS)}): update this one"
        )
    files = told.get("files")
    if not isinstance(files, dict) or set(files) != set(entries) - {CONTENTS}:
        raise _refused(path, f"its {CONTENTS} does not list the files that are in it")
    if not is_run_id(told.get("run_id")):
        raise _refused(path, f"{quoted(told.get('run_id'))} is no id of a run")
    return told


def _unpacked(
    archive: zipfile.ZipFile,
    entries: Mapping[str, zipfile.ZipInfo],
    contents: Mapping[str, Any],
    path: Path,
    runs_path: Path,
    tell: Tell,
) -> Unpacked:
    """Unpacks into a hidden folder, checks all of it there, and moves it to its place."""
    hidden_path = hidden(runs_path, "bundle")
    try:
        with explain_unwritable(runs_path):
            hidden_path.mkdir(parents=True)
            for number, (name, digest) in enumerate(contents["files"].items(), start=1):
                if _copied(archive, entries[name], hidden_path / name.removeprefix("run/")) != digest:
                    raise _refused(path, f"{quoted(name)} is not the file that its checksum is of")
                tell(number, len(entries))
            run_file = _checked(hidden_path, contents["run_id"], path)
            return _placed(hidden_path, runs_path, run_file.run)
    finally:
        shutil.rmtree(hidden_path, ignore_errors=True)


def _copied(archive: zipfile.ZipFile, info: zipfile.ZipInfo, out: Path) -> str:
    """Writes one file, no longer than the archive says that it is; returns its sha-256."""
    out.parent.mkdir(exist_ok=True)
    found, n_bytes = hashlib.sha256(), 0
    with archive.open(info) as packed, out.open("xb") as unpacked:
        while part := packed.read(_CHUNK):
            n_bytes += len(part)
            if n_bytes > info.file_size:
                raise zipfile.BadZipFile(f"{info.filename} is longer than it says")
            found.update(part)
            unpacked.write(part)
    return found.hexdigest()


def _checked(run_path: Path, run_id: str, path: Path) -> shards.RunFile:
    """Reads all that was unpacked as a run's.

    Raises:
        UsageError: it is another run, or one of its files is damaged or says what no run can.
    """
    try:
        run_file = shards.read_run_file(run_path)
        shards.read_outcome(run_path)
        for name in sorted(shards.finished_shards(run_path)):
            shards.read_checked(run_path / name, run_file)
        for small_path in sorted(run_path.glob(f"{THUMBNAILS}/*.webp")):
            check_small(small_path)
    except (BrokenFileError, ImageError) as error:
        raise _refused(path, printable(str(error).replace(str(run_path), "its run"))) from error
    if run_file.run.run_id != run_id:
        raise _refused(path, f"it holds the run {run_file.run.run_id} and says {run_id}")
    return run_file


def check_small(path: Path) -> None:
    """Passes a small picture as we make them.

    Raises:
        ImageError: it is no picture, or a larger one.
    """
    header = read_header(path)
    if max(header.width, header.height) > SIDE:
        raise ImageError(f"{path.name} is a picture of {header.width} × {header.height}, not a small one")


def _placed(hidden_path: Path, runs_path: Path, run: Run) -> Unpacked:
    """Moves the run's folder to its place, or what is new of it into the folder that is there."""
    run_path = shards.create_run(runs_path, run)
    there = shards.finished_shards(run_path)
    new = sorted(shards.finished_shards(hidden_path) - there)
    (run_path / THUMBNAILS).mkdir(exist_ok=True)
    for small_path in hidden_path.glob(f"{THUMBNAILS}/*.webp"):
        small_path.replace(run_path / THUMBNAILS / small_path.name)
    for name in new:
        publish(hidden_path / name, run_path / name)
    outcome = shards.read_outcome(hidden_path)
    if outcome is not None:
        shards.finish_run(run_path, outcome)
    return Unpacked(run.run_id, run_path, len(new))

"""Seeded ways to spoil the files and folders of a cache, and what else lies in it: second part of `attacks.py`'s."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.attack_shards import DEEP, GOOD, VICTIM, Attack, age, leave, reseal, then
from mmn.runs.manifests import _sealed


def on_places() -> Iterator[Attack]:
    """Attacks on what lies where."""
    yield from (*_on_files(), *_on_folders(), *_on_rest())


def _on_files() -> Iterator[Attack]:
    """A file replaced by what is no file, or by another one."""
    places = (
        "run.json",
        "outcome.json",
        "batch-00000/manifest.json",
        "batch-00000/score.parquet",
        "neurons/neuron.parquet",
    )
    kinds: dict[str, Callable[[Path], object]] = {
        "a pipe": os.mkfifo,
        "a folder": Path.mkdir,
        "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "a link to a good file": lambda path: path.symlink_to(_twin(path)),
        "a link to nowhere": lambda path: path.symlink_to("nowhere"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a socket": _socket,
        "3 GB of nothing": _sparse,
        "empty": Path.touch,
    }
    for place, (what, make) in itertools.product(places, kinds.items()):
        yield f"{place} is {what}", partial(_replaced, place=place, make=make)
    yield "a file less", lambda cache: (cache / "runs" / VICTIM / "batch-00000" / "score.parquet").unlink()
    yield "no manifest", lambda cache: (cache / "runs" / VICTIM / "batch-00000" / "manifest.json").unlink()
    yield "two files swapped", _swapped
    yield "a file of the other run", _stolen_file


def _replaced(cache: Path, place: str, make: Callable[[Path], object]) -> None:
    path = cache / "runs" / VICTIM / place
    path.unlink()
    make(path)


def _twin(path: Path) -> Path:
    return Path(*(GOOD if part == VICTIM else part for part in path.parts))


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path must be short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 3_000_000_000)


def _swapped(cache: Path) -> None:
    one, two = (cache / "runs" / VICTIM / f"batch-0000{n}" / "score.parquet" for n in (0, 1))
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)


def _stolen_file(cache: Path) -> None:
    path = cache / "runs" / VICTIM / "batch-00000" / "score.parquet"
    path.write_bytes(_twin(path).read_bytes())


def _on_folders() -> Iterator[Attack]:
    """Folders copied, renamed, linked, taken from another run, and names that lead elsewhere."""
    for shard, after in itertools.product(
        ("batch-00000", "annotation-a", "experiments", "neurons"), (leave, reseal, age)
    ):
        copied = then(partial(_copied, shard=shard, name=f"{shard}-2"), after)
        yield f"{shard} copied ({after.__name__})", copied
        stolen = then(partial(_stolen, shard=shard, name=f"{shard}-of-another"), after)
        if after is leave or shard == "annotation-a":
            yield f"{shard} of the other run ({after.__name__})", stolen
    for name in ("a b", "ünicode", "new\nline", "-rf", "x" * 220, "\x1b[2J", "![](http://example.invalid/x.png)"[:7]):
        yield f"a shard called {name!r}", partial(_copied, shard="neurons", name=name)
    yield "a shard is a link", _linked_shard
    yield "the run is a link", _linked_run
    yield "the run under another name", lambda cache: _run_moved(cache, "f" * 16)
    yield "the run under a hostile name", lambda cache: _run_moved(cache, "![x](http:\x1b[2J")
    yield "the run twice", lambda cache: shutil.copytree(cache / "runs" / VICTIM, cache / "runs" / ("e" * 16))
    for run_id in ("../../outside", "..", "/tmp", GOOD, GOOD[:8], "A" * 16, "latest", "%", "0bad0bad0bad0ba\u0661"):  # noqa: S108
        yield f"run_id is {run_id!r}, sealed", partial(_renamed_run, run_id=run_id)


def _copied(cache: Path, shard: str, name: str) -> None:
    shutil.copytree(cache / "runs" / VICTIM / shard, cache / "runs" / VICTIM / name)


def _stolen(cache: Path, shard: str, name: str) -> None:
    shutil.copytree(cache / "runs" / GOOD / shard, cache / "runs" / VICTIM / name)


def _linked_shard(cache: Path) -> None:
    shutil.rmtree(cache / "runs" / VICTIM / "batch-00000")
    (cache / "runs" / VICTIM / "batch-00000").symlink_to(cache / "runs" / GOOD / "batch-00000")


def _linked_run(cache: Path) -> None:
    (cache / "runs" / VICTIM).rename(cache.parent / "outside" / VICTIM)
    (cache / "runs" / VICTIM).symlink_to(cache.parent / "outside" / VICTIM)


def _run_moved(cache: Path, name: str) -> None:
    (cache / "runs" / VICTIM).rename(cache / "runs" / name)


def _renamed_run(cache: Path, run_id: str) -> None:
    path = cache / "runs" / VICTIM / "run.json"
    values = {name: value for name, value in json.loads(path.read_text()).items() if name != "digest"}
    path.write_bytes(_sealed(values | {"run_id": run_id}))
    reseal(cache)


# ---- the rest of a cache


def _on_rest() -> Iterator[Attack]:
    for what, data in {"rubbish": b"rubbish" * 999, "empty": b"", "zeros": bytes(20_000)}.items():
        yield f"mmn.duckdb is {what}", partial(_database, data=data)
    yield "mmn.duckdb is a folder", lambda cache: (cache / "mmn.duckdb").mkdir()
    yield "mmn.duckdb is a pipe", lambda cache: os.mkfifo(cache / "mmn.duckdb")
    yield "runs/ holds a pipe", lambda cache: os.mkfifo(cache / "runs" / "a-pipe")
    yield "runs/ holds files", lambda cache: (cache / "runs" / ("c" * 16)).write_text("x")
    yield "a run of nothing but a pipe", _pipe_run
    for name, text in {"deep": DEEP, "list": "[]", "pid 0": '{"pid": 0}', "null": "null", "job": _JOB}.items():
        yield f"a job that is {name}", partial(_job, text=text)


_JOB: Final = json.dumps(
    {"job_id": "j1", "command": [1], "model": None, "images": [], "pid": "1", "started_at": "x", "task": ""}
)


def _database(cache: Path, data: bytes) -> None:
    (cache / "mmn.duckdb").write_bytes(data)


def _pipe_run(cache: Path) -> None:
    (cache / "runs" / ("d" * 16)).mkdir()
    os.mkfifo(cache / "runs" / ("d" * 16) / "run.json")


def _job(cache: Path, text: str) -> None:
    path = cache / "jobs" / "j1"
    path.mkdir(parents=True)
    (path / "job.json").write_text(text)
    for name in ("lock", "progress", "result.json"):
        os.mkfifo(path / name)


def fingerprint(folder: Path) -> str:
    """A digest of the names and contents of all files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    parts = [str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() for path in files]
    return hashlib.sha256(b"\0\0".join(parts)).hexdigest()

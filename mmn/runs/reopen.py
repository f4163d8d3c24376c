"""The pictures of a scored run, opened again: where annotating and every study begin.

A run's folder holds what was scored batch by batch. `open_run` pairs it with the model that it was scored with (no
other will do), `batches` lists what is to be gone through, `examples` and `open_again` give the pictures, as they were.
What is found out is added to the run as shards of its own, one for each scored batch, so that it resumes likewise:
`shard_name` names them by what was asked, and the same call again does only what is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from mmn import no_nouns
from mmn.core import Example, Failure, Run
from mmn.errors import ImageError, UsageError
from mmn.images import open_image
from mmn.images.opening import read_header
from mmn.runs import shards
from mmn.runs.plan import Progress, ProgressCallback
from mmn.studies.tables import failure_table

if TYPE_CHECKING:  # both bring torch, which not everything that goes back to a run needs
    from mmn.models.model import Model
    from mmn.scores.rows import Tables


class OnDisk(Protocol):
    """A run's folder, with or without its model."""

    @property
    def path(self) -> Path: ...


@dataclass(frozen=True)
class ScoredRun:
    """A run's folder, and the model that it was scored with."""

    model: Model
    run: Run
    path: Path


def open_run(model: Model, run_path: Path) -> ScoredRun:
    """Pairs a run with its model.

    Raises:
        UsageError: another model than the run's, or no caption of it holds a noun.
        CacheError: no run there.
    """
    run, _ = shards.read_run(run_path)
    require_nouns(run, run_path)
    if model.facts.fingerprint != run.model.fingerprint:
        raise UsageError(
            f"run {run.run_id} was scored with {run.model.name} (fingerprint {run.model.fingerprint[:12]}), and "
            f"{model.facts.name} is another model (fingerprint {model.facts.fingerprint[:12]}): give the run's own"
        )
    return ScoredRun(model, run, run_path)


def require_nouns(run: Run, run_path: Path) -> None:
    """Raises `UsageError` where no finished shard of a run has a noun: all that goes back to it is of nouns."""
    counts: Counter[str] = Counter()
    for name in shards.finished_shards(run_path):
        counts.update(shards.row_counts(run_path / name))
    no_nouns.require_nouns(run.run_id, counts["image"], counts["concept"])


def batches(scored: OnDisk) -> dict[str, int]:
    """The shards with pictures and scores, in order, and how many pictures each has."""
    found = {}
    for name in sorted(shards.finished_shards(scored.path)):
        n_rows = shards.row_counts(scored.path / name)
        if "image" in n_rows and "score" in n_rows:
            found[name] = n_rows["image"]
    return found


def shard_name(prefix: str, batch: str, asked: object) -> str:
    """The name of the shard that answers what was `asked` (plain values) of one scored batch."""
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return f"{prefix}-{batch}-{digest[:8]}"


def for_each_batch(
    scored: ScoredRun,
    prefix: str,
    asked: object | Callable[[str], object],
    answer: Callable[[str], Tables],
    progress: ProgressCallback,
    stage: str = "",
    limit: int | None = None,
) -> None:
    """Writes `answer(batch)` as a shard of the run for every scored batch that has none yet; progress in pictures.

    Args:
        scored: the run.
        prefix: of the shards' names.
        asked: everything that can change the answer, as plain values; or what gives it for a batch.
        answer: the tables of one batch; called in order.
        progress: told after each batch.
        stage: what `progress` calls it, if not by the prefix.
        limit: only the first batches, until that many pictures are reached.
    """
    todo: dict[str, int] = {}
    for batch, n_pictures in batches(scored).items():
        if limit is None or sum(todo.values()) < limit:
            todo[batch] = n_pictures
    finished = shards.finished_shards(scored.path)
    shard_of = {batch: shard_name(prefix, batch, asked(batch) if callable(asked) else asked) for batch in todo}
    done = sum(n for batch, n in todo.items() if shard_of[batch] in finished)
    progress(Progress(stage or prefix, done, sum(todo.values()), "" if not done else f"{done} were done before"))
    for batch, n_pictures in todo.items():
        name = shard_of[batch]
        if name not in finished:
            shards.write_shard(scored.path, name, answer(batch))
            done += n_pictures
            progress(Progress(stage or prefix, done, sum(todo.values())))


def for_each_part(
    scored: OnDisk,
    prefix: str,
    asked: object,
    answer: Callable[[Tables, Callable[[], None]], Tables],
    progress: ProgressCallback,
    stage: str = "",
    limit: int | None = None,
    size: int = 1,
) -> list[str]:
    """`for_each_batch` for answers that take long: one shard for every `size` pictures of a scored batch.

    Args:
        scored: the run.
        prefix: of the shards' names.
        asked: everything that can change the answer, as plain values.
        answer: the tables of a few pictures, given what scoring wrote of them (without `score`) and a function to call
            after each picture.
        progress: told after each picture.
        stage: what `progress` calls it, if not by the prefix.
        limit: exactly the first so many pictures of the run.
        size: pictures of a shard.

    Returns:
        The names of the shards with the answers, those of earlier calls included.
    """
    todo = list(_parts(scored, prefix, asked, limit, size))
    finished = shards.finished_shards(scored.path)
    done = sum(part.stop - part.start for part in todo if part.name in finished)
    total = sum(part.stop - part.start for part in todo)
    progress(Progress(stage or prefix, done, total, "" if not done else f"{done} were done before"))

    def tell() -> None:
        nonlocal done
        done += 1
        progress(Progress(stage or prefix, done, total))

    read: tuple[str, Tables] = ("", {})
    for part in todo:
        if part.name not in finished:
            if read[0] != part.batch:
                read = part.batch, shards.read_shard(scored.path / part.batch)
            shards.write_shard(scored.path, part.name, answer(_of_pictures(read[1], part.start, part.stop), tell))
    return [part.name for part in todo]


def each_alone(answer: Callable[[Example], Tables], stage: str) -> Callable[[Tables, Callable[[], None]], Tables]:
    """An answer for `for_each_part`, given picture by picture; one that does not open is a failure of `stage`."""

    def answers(tables: Tables, tell: Callable[[], None]) -> Tables:
        parts: list[Tables] = []
        for example in examples(tables):
            try:
                parts.append(answer(example))
            except ImageError as error:
                parts.append({"failure": failure_table([Failure.of(example.source, stage, error)])})
            tell()
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: pa.concat_tables([part[name] for part in parts if name in part]) for name in names}

    return answers


@dataclass(frozen=True)
class _Part:
    """Pictures `start` to `stop` of a scored batch, and the shard of their answer."""

    batch: str
    start: int
    stop: int
    name: str


def _parts(scored: OnDisk, prefix: str, asked: object, limit: int | None, size: int) -> Iterator[_Part]:
    left = limit
    for batch, n_pictures in batches(scored).items():
        n_here = n_pictures if left is None else min(left, n_pictures)
        left = None if left is None else left - n_here
        for start in range(0, n_here, size):
            stop = min(start + size, n_here)
            yield _Part(batch, start, stop, shard_name(prefix, batch, [asked, start, stop]))


def _of_pictures(tables: Mapping[str, pa.Table], start: int, stop: int) -> Tables:
    """What a scored shard says of some of its pictures; scores, its bulk, are left out."""
    images = tables["image"].slice(start, stop - start)
    kept = {
        name: tables[name].filter(pc.is_in(tables[name]["image_id"], images["image_id"].combine_chunks()))
        for name in ("caption", "concept")
        if name in tables
    }
    return {"image": images} | kept


def examples(tables: Mapping[str, pa.Table]) -> Iterator[Example]:
    """The pictures of a shard."""
    for row in tables["image"].to_pylist():
        texts = {name: tuple(row[name]) for name in ("sources", "reference")}
        yield Example(row["image_id"], row["source"], texts["sources"], row["width"], row["height"], texts["reference"])


def open_again(example: Example) -> Image.Image:
    """The picture, if it still is the one that was scored.

    Raises:
        ImageError: it has changed, or does not open any more.
    """
    path = Path(example.source)
    if path.exists() and read_header(path).image_id != example.image_id:
        raise ImageError(f"{path} has changed since it was scored: put the picture back, or score again")
    return open_image(path)


def open_all(
    tables: Mapping[str, pa.Table], stage: str
) -> tuple[tuple[Example, ...], tuple[Image.Image, ...], tuple[Failure, ...]]:
    """The pictures of a shard that still open, and what is wrong with the others (a `failure` of `stage` each)."""
    there, images, failures = [], [], []
    for example in examples(tables):
        try:
            images.append(open_again(example))
            there.append(example)
        except ImageError as error:
            failures.append(Failure.of(example.source, stage, error))
    return tuple(there), tuple(images), tuple(failures)

"""The pictures of a scored run, met again: what annotating and every experiment begin with.

A run's folder holds what was scored batch by batch. `open_run` pairs it with the model that it was scored with (no
other will do), `batches` lists what is to be gone through, `examples` and `open_again` give the pictures, as they were.
What is found out is added to the run as shards of its own, one for each scored batch, so that it resumes likewise:
`shard_name` names them by what was asked, and the same call again does only what is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from PIL import Image

from mmn import shards
from mmn.core import Example, Failure, Run
from mmn.errors import ImageError, UsageError
from mmn.images import open_image
from mmn.images.opening import read_header
from mmn.models import Model
from mmn.runs import Progress, ProgressCallback
from mmn.tabulate import Tables


@dataclass(frozen=True)
class ScoredRun:
    """A run's folder, and the model that it was scored with."""

    model: Model
    run: Run
    path: Path


def open_run(model: Model, run_path: Path) -> ScoredRun:
    """Pairs a run with its model.

    Raises:
        UsageError: another model than the run's.
        CacheError: no run there.
    """
    run, _ = shards.read_run(run_path)
    if model.facts.fingerprint != run.model.fingerprint:
        raise UsageError(
            f"run {run.run_id} was scored with {run.model.name} (fingerprint {run.model.fingerprint[:12]}), and "
            f"{model.facts.name} is another model (fingerprint {model.facts.fingerprint[:12]}): give the run's own"
        )
    return ScoredRun(model, run, run_path)


def batches(scored: ScoredRun) -> dict[str, int]:
    """The shards with pictures and scores, in order, and how many pictures each has."""
    found = {}
    for name in sorted(shards.finished_shards(scored.path)):
        tables = shards.read_shard(scored.path / name)
        if "image" in tables and "score" in tables:
            found[name] = len(tables["image"])
    return found


def shard_name(prefix: str, batch: str, asked: object) -> str:
    """The name of the shard that answers what was `asked` (plain values) of one scored batch."""
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return f"{prefix}-{batch}-{digest[:8]}"


def for_each_batch(
    scored: ScoredRun,
    prefix: str,
    asked: object,
    answer: Callable[[str], Tables],
    progress: ProgressCallback,
    stage: str = "",
    limit: int | None = None,
) -> None:
    """Writes `answer(batch)` as a shard of the run for every scored batch that has none yet; progress in pictures.

    Args:
        scored: the run.
        prefix: of the shards' names.
        asked: everything that can change the answer, as plain values.
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
    done = sum(n for batch, n in todo.items() if shard_name(prefix, batch, asked) in finished)
    progress(Progress(stage or prefix, done, sum(todo.values()), "" if not done else f"{done} were done before"))
    for batch, n_pictures in todo.items():
        name = shard_name(prefix, batch, asked)
        if name not in finished:
            shards.write_shard(scored.path, name, answer(batch))
            done += n_pictures
            progress(Progress(stage or prefix, done, sum(todo.values())))


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
            failures.append(Failure(example.source, stage, type(error).__name__, str(error)))
    return tuple(there), tuple(images), tuple(failures)

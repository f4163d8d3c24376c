"""Carries out a run on this machine: in this process, or in several worker processes side by side.

Each finished batch is one shard, written whole or not at all. A picture that cannot be decoded becomes a failure of
its batch; the others are unharmed. Stopping at any moment loses at most the batches in flight.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from PIL import Image

from mmn import names
from mmn.core import Example, Failure, Outcome, Run
from mmn.counts import counted
from mmn.errors import BatchError, Cancelled, EncodingError, ImageError, MmnError, UnsupportedModelError
from mmn.images import open_image
from mmn.models.loading import load_model
from mmn.models.model import Model
from mmn.runs import shards
from mmn.runs.plan import Batch, Plan, Progress, ProgressCallback, open_run
from mmn.scores.batch import INEXACT, score_batch
from mmn.scores.rows import Tables, joined
from mmn.studies.tables import failure_table

Engine = Callable[[Run, Model, Sequence[Batch], Path, int], Iterator[Batch]]  # yields batches as they are finished


@dataclass(frozen=True)
class Opened:
    """A batch's pictures in memory, and those that did not open."""

    batch: Batch
    examples: tuple[Example, ...]
    images: tuple[Image.Image, ...]
    failures: tuple[Failure, ...]


def carry_out(
    plan: Plan,
    model: Model,
    runs_path: Path,
    progress: ProgressCallback,
    n_workers: int = 1,
    engine: Engine | None = None,
) -> tuple[Path, Outcome]:
    """Does what is left of a run and writes its outcome; its seconds are those of all sessions that were not killed.

    Without an `engine` the batches are done in this process, or for more than one worker in processes of their own.

    A run none of whose pictures could be scored has failed, though every one of them was tried.

    Raises:
        Cancelled: SIGINT or SIGTERM came; the run is marked cancelled and what was finished is kept.
        UnsupportedModelError: no concept of the first batch adds up; what follows would be no better.
        CacheError: the disk is full; likewise.
    """
    started = time.monotonic()
    run_path, batches = open_run(plan, runs_path)
    _, earlier = shards.read_run(run_path)
    status = names.FAILED
    try:
        with stoppable():
            finished = engine or (_in_workers if n_workers > 1 and len(batches) > 1 else _in_this_process)
            done = plan.n_images - sum(len(batch.examples) for batch in batches)
            progress(Progress("score", done, plan.n_images, "" if not done else f"{done} were done before"))
            _require_exact(plan, run_path)
            for batch in finished(plan.run, model, batches, run_path, n_workers):
                done += len(batch.examples)
                progress(Progress("score", done, plan.n_images))
                if batch == plan.batches[0]:
                    _require_exact(plan, run_path)
        status = names.COMPLETE if _has_pictures(run_path) else names.FAILED
    except Cancelled:
        status = names.CANCELLED
        raise
    finally:
        seconds = time.monotonic() - started + (earlier.seconds if earlier else 0.0)
        shards.finish_run(run_path, Outcome(status, datetime.now(UTC).isoformat(timespec="seconds"), seconds))
    _, outcome = shards.read_run(run_path)  # of a run that was complete before: as it was
    assert outcome is not None, run_path
    return run_path, outcome


def _require_exact(plan: Plan, run_path: Path) -> None:
    """Stops a run whose first batch, once it is there, has concepts, but none whose terms add up to its logit."""
    first = plan.batches[0].name if plan.batches else None
    if first not in shards.finished_shards(run_path):
        return
    n_rows = shards.row_counts(run_path / first)
    if n_rows.get("concept") or not n_rows.get("failure"):
        return
    failures = shards.read_columns(run_path / first, "failure", ["error", "message"]).to_pylist()
    if reasons := [row["message"] for row in failures if row["error"] == INEXACT]:
        raise UnsupportedModelError(
            f"the adapter does not understand {plan.run.model.name}: {reasons[0]}, and so for all "
            f"{counted(len(reasons), 'concept')} of the first batch"
        )


def _has_pictures(run_path: Path) -> bool:
    return any("image" in shards.row_counts(run_path / name) for name in shards.finished_shards(run_path))


def _in_this_process(
    run: Run, model: Model, batches: Sequence[Batch], run_path: Path, _n_workers: int
) -> Iterator[Batch]:
    """While the model is at work on one batch, the next one's pictures are opened and the last one's shard is written.

    A batch is done, and yielded, when its shard is on the disk; a shard that is being written when the run is stopped
    is finished first.
    """
    with ThreadPoolExecutor(max_workers=1) as opener, ThreadPoolExecutor(max_workers=1) as writer:
        opening = [opener.submit(open_batch, batch) for batch in batches[:1]]
        writing: list[tuple[Batch, Future[Path]]] = []
        for index, batch in enumerate(batches):
            opening += [opener.submit(open_batch, following) for following in batches[index + 1 : index + 2]]
            tables = score_opened(run, model, opening.pop(0).result())
            yield from _written(writing)
            writing.append((batch, writer.submit(shards.write_shard, run_path, batch.name, tables)))
        yield from _written(writing)


def _written(writing: list[tuple[Batch, Future[Path]]]) -> Iterator[Batch]:
    """Waits for the shards that are being written; what went wrong with one is raised here."""
    while writing:
        batch, shard = writing.pop()
        shard.result()
        yield batch


def open_batch(batch: Batch) -> Opened:
    examples, images, failures = [], [], []
    for example in batch.examples:
        try:
            images.append(open_image(Path(example.source)))
            examples.append(example)
        except ImageError as error:
            failures.append(Failure.of(example.source, "open", error))
    return Opened(batch, tuple(examples), tuple(images), tuple(failures))


def score_opened(run: Run, model: Model, opened: Opened) -> Tables:
    """The shard of one batch. Pictures that the model cannot be asked about are failures, too; the rest is a batch."""
    failed: Tables = {"failure": failure_table(opened.failures)} if opened.failures else {}
    if not opened.examples:
        return failed
    try:
        return joined([failed, score_batch(model, opened.examples, opened.images, run.prompt, run.settings)])
    except BatchError as error:
        stage, reasons = error.stage, error.reasons
    except EncodingError:
        stage, reasons = "encode", _not_encoded(model, opened, run.prompt)
        if not reasons:  # each alone can be, so it is the model
            raise
    failures = [
        Failure(example.source, stage, "ModelError", reasons[row])
        for row, example in enumerate(opened.examples)
        if row in reasons
    ]
    others = tuple(example for row, example in enumerate(opened.examples) if row not in reasons)
    rest = open_batch(replace(opened.batch, examples=others))
    return joined([failed, {"failure": failure_table(failures)}, score_opened(run, model, rest)])


def _not_encoded(model: Model, opened: Opened, exact_prompt: str) -> dict[int, str]:
    """The rows of pictures that the processor fails on, one by one: one of them must not take its batch along."""
    reasons = {}
    for row, image in enumerate(opened.images):
        try:
            model.encode_and_close([image], exact_prompt)
        except EncodingError as error:
            reasons[row] = str(error)
    return reasons


def _in_workers(run: Run, model: Model, batches: Sequence[Batch], run_path: Path, n_workers: int) -> Iterator[Batch]:
    """Each worker loads the model for itself and takes every n-th batch; on GPUs, worker i has the i-th of them."""
    context = multiprocessing.get_context("spawn")
    finished: multiprocessing.Queue[Batch | str] = context.Queue()
    workers = [
        context.Process(
            target=_work,
            args=(run, model.facts.name, _device_of(model, index), batches[index::n_workers], run_path, finished),
            daemon=True,
        )
        for index in range(n_workers)
    ]
    try:
        for worker in workers:
            worker.start()
        for _ in batches:
            yield _next_finished(finished, workers)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _next_finished(finished: multiprocessing.Queue[Batch | str], workers: Sequence[BaseProcess]) -> Batch:
    while True:
        try:
            item = finished.get(timeout=1)
        except queue.Empty:
            dead = [worker.exitcode for worker in workers if worker.exitcode not in (None, 0)]
            if dead:
                raise MmnError(
                    f"a worker died (exit code {dead[0]}); the same command resumes, try fewer workers"
                ) from None
        else:
            if isinstance(item, str):
                raise MmnError(item)
            return item


def _work(
    run: Run,
    name: str,
    device: str,
    batches: Sequence[Batch],
    run_path: Path,
    finished: multiprocessing.Queue[Batch | str],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us
    try:
        model = load_model(name, run.settings.dtype, device, revision=run.model.revision or None)
        for batch in _in_this_process(run, model, batches, run_path, 1):
            finished.put(batch)
    except MmnError as error:
        finished.put(str(error))


def _device_of(model: Model, index: int) -> str:
    import torch

    if model.device.type != "cuda":
        return str(model.device)
    return f"cuda:{index % torch.cuda.device_count()}"


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM become `Cancelled` inside the block (in the main thread; elsewhere nothing changes)."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise Cancelled("cancelled; what was finished is kept, and the same command resumes")

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

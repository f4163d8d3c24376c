"""A run survives what happens to it: killed, interrupted, spread over workers, fed broken pictures, out of space."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mmn import names
from mmn.core import Outcome, ScoreSettings
from mmn.errors import CacheError, Cancelled, MmnError
from mmn.images import list_source
from mmn.runs.engines import local
from mmn.runs.engines.local import carry_out
from mmn.runs.plan import Progress, count, plan
from mmn.runs.shards import finished_shards, read_run, read_shard

ROOT = Path(__file__).parents[1]
METHODS = (names.CONTRIBUTION, names.RANDOM)


def quiet(_progress: Progress) -> None:
    """Nobody looks."""


def planned(model, folder: Path, size: int = 2, **settings):
    listing = list_source(str(folder))
    chosen = ScoreSettings(prompt="A picture of", methods=METHODS, top_k=20, max_new_tokens=6, batch_size=size)
    return plan(model.facts, listing, str(folder), model.exact_prompt("A picture of"), replace(chosen, **settings))


def outcome_of(run_path: Path) -> Outcome:
    _, outcome = read_run(run_path)
    assert outcome is not None
    return outcome


def rows_of(run_path: Path) -> dict[str, list[dict]]:
    """Every row of every table of a run, in the order of the shards."""
    rows: dict[str, list[dict]] = {}
    for name in sorted(finished_shards(run_path)):
        for table, values in read_shard(run_path / name).items():
            rows.setdefault(table, []).extend(values.to_pylist())
    return rows


@pytest.fixture(scope="module")
def whole(tiny, pictures, tmp_path_factory):
    """The rows of a run that nothing happened to."""
    run_path, outcome = carry_out(planned(tiny, pictures), tiny, tmp_path_factory.mktemp("whole"), quiet)
    assert outcome.status == names.COMPLETE
    rows = rows_of(run_path)
    assert len(rows["image"]) == 16
    assert len(rows["concept"]) > 16
    return rows


# Loads the model once, then scores in a child again and again; each child is killed at a random moment after a random
# number of its batches. argv: checkpoint · pictures · runs folder · seed; prints how many shards each run had left.
KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from mmn.reading.nouns import tag_nouns
from mmn.runs.engines.local import carry_out
from mmn.models.loading import load_model
sys.path.insert(0, "")
from tests.test_engine import planned, quiet
checkpoint, pictures, runs_path, seed = sys.argv[1:]
model = load_model(checkpoint, device="cpu")
tag_nouns("a dog")  # its tables: once, not in every child
this = planned(model, Path(pictures))
draw = random.Random(int(seed))

def n_shards(folder):
    run_path = folder / this.run.run_id
    return len([p for p in run_path.iterdir() if p.is_dir() and p.name[0] != "."]) if run_path.exists() else 0

def score_in_a_child(folder, n_batches):
    child = os.fork()
    if child == 0:
        carry_out(this, model, folder, quiet)
        os._exit(0)
    while n_shards(folder) < n_batches and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

for number in range(4):
    folder = Path(runs_path) / f"killed-{number}"
    for n_batches in sorted(draw.sample(range(6), 2)):
        score_in_a_child(folder, n_batches)
    print(n_shards(folder))
"""


def test_killed_and_resumed_equals_uninterrupted(tiny, checkpoint, pictures, tmp_path, whole):
    """Eight kills at random moments, two for each of four runs; then each is resumed."""
    words = [sys.executable, "-c", KILLED, str(checkpoint), str(pictures), str(tmp_path), "0"]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    n_left = [int(line) for line in result.stdout.split()]
    assert len(n_left) == 4
    assert any(0 < n < 8 for n in n_left), f"no kill came half-way: {n_left}"
    for number, n_before in enumerate(n_left):
        seen: list[Progress] = []
        run_path, outcome = carry_out(planned(tiny, pictures), tiny, tmp_path / f"killed-{number}", seen.append)
        assert outcome.status == names.COMPLETE
        assert seen[0].done == 2 * n_before, "finished batches must not be done again"
        assert rows_of(run_path) == whole
        assert [path for path in run_path.iterdir() if path.name.startswith(".")] == [], "leftovers of the killed"


def test_the_same_run_again_does_nothing(tiny, pictures, tmp_path, whole, monkeypatch):
    run_path, first = carry_out(planned(tiny, pictures), tiny, tmp_path, quiet)
    before = {path: path.stat().st_mtime_ns for path in run_path.rglob("*")}
    monkeypatch.setattr(local, "score_batch", None)
    again, outcome = carry_out(planned(tiny, pictures), tiny, tmp_path, quiet)
    assert (again, outcome) == (run_path, first)
    assert {path: path.stat().st_mtime_ns for path in run_path.rglob("*")} == before
    assert rows_of(run_path) == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_and_keeps_what_was_finished(number, tiny, pictures, tmp_path, whole):
    handlers = (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))

    def stop_after_three(progress: Progress) -> None:
        if progress.done == 6:
            os.kill(os.getpid(), number)

    this = planned(tiny, pictures)
    with pytest.raises(Cancelled, match="what was finished is kept"):
        carry_out(this, tiny, tmp_path, stop_after_three)
    run_path = tmp_path / this.run.run_id
    assert outcome_of(run_path).status == names.CANCELLED
    assert finished_shards(run_path) == {"batch-00000", "batch-00001", "batch-00002"}
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    _, outcome = carry_out(planned(tiny, pictures), tiny, tmp_path, quiet)
    assert outcome.status == names.COMPLETE
    assert rows_of(run_path) == whole


def test_two_workers_equal_one(tiny, pictures, tmp_path, whole):
    seen: list[Progress] = []
    run_path, outcome = carry_out(planned(tiny, pictures), tiny, tmp_path, seen.append, n_workers=2)
    assert outcome.status == names.COMPLETE
    assert rows_of(run_path) == whole
    assert [progress.done for progress in seen] == list(range(0, 17, 2))
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_is_an_error_and_leaves_no_other_behind(tiny, pictures, tmp_path):
    moved = replace(tiny, facts=replace(tiny.facts, name=str(tmp_path / "gone")))
    this = planned(moved, pictures)
    with pytest.raises(MmnError, match="is no folder"):
        carry_out(this, moved, tmp_path, quiet, n_workers=2)
    assert multiprocessing.active_children() == []
    assert outcome_of(tmp_path / this.run.run_id).status == names.FAILED


def test_a_picture_that_does_not_decode_harms_no_other(tiny, paint, tmp_path, whole):
    """Its header is whole, so that it is listed; its pixels are not."""
    folder = paint(tmp_path / "pictures", 16)
    broken = folder / "005.png"
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    this = planned(tiny, folder, size=4)
    assert this.n_images == 16
    run_path, outcome = carry_out(this, tiny, tmp_path, quiet)
    assert outcome.status == names.COMPLETE
    rows = rows_of(run_path)
    assert [(row["source"], row["stage"], row["error"]) for row in rows["failure"]] == [
        (str(broken), "open", "ImageError")
    ]
    assert "005.png is damaged or cut short" in rows["failure"][0]["message"]
    counts = count(run_path)
    assert (counts.n_images, counts.n_failed) == (15, 1)
    broken_id = next(row["image_id"] for row in whole["image"] if row["source"].endswith("005.png"))
    for table, key in (("image", "width"), ("caption", "text"), ("concept", "noun"), ("score", "unit")):
        others = sorted((row["image_id"], row[key]) for row in whole[table] if row["image_id"] != broken_id)
        assert sorted((row["image_id"], row[key]) for row in rows[table]) == others


def test_a_picture_deleted_after_listing_is_a_failure(tiny, paint, tmp_path):
    folder = paint(tmp_path / "pictures", 4)
    this = planned(tiny, folder)
    for name in ("000.png", "001.png"):  # a whole batch
        (folder / name).unlink()
    run_path, outcome = carry_out(this, tiny, tmp_path, quiet)
    rows = rows_of(run_path)
    assert outcome.status == names.COMPLETE
    assert [Path(row["source"]).name for row in rows["failure"]] == ["000.png", "001.png"]
    assert all("does not exist" in row["message"] for row in rows["failure"])
    assert [Path(row["source"]).name for row in rows["image"]] == ["002.png", "003.png"]


def test_a_full_disk_loses_nothing_that_was_finished(tiny, pictures, tmp_path, whole, monkeypatch):
    this = planned(tiny, pictures)
    write, n_written = pq.write_table, []

    def write_until_full(table, path, **options):
        n_written.append(path)
        if len(n_written) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(table, path, **options)

    monkeypatch.setattr(pq, "write_table", write_until_full)
    with pytest.raises(CacheError, match=r"no space left to write .*finished batches are kept"):
        carry_out(this, tiny, tmp_path, quiet)
    run_path = tmp_path / this.run.run_id
    assert len(finished_shards(run_path)) == 2
    assert outcome_of(run_path).status == names.FAILED
    monkeypatch.setattr(pq, "write_table", write)
    _, outcome = carry_out(planned(tiny, pictures), tiny, tmp_path, quiet)
    assert outcome.status == names.COMPLETE
    assert rows_of(run_path) == whole


def test_seconds_of_a_resumed_run_add_up(tiny, pictures, tmp_path):
    """The rate of a resumed run would else be that of all its pictures over its last session alone."""

    def stop_after_one(progress: Progress) -> None:
        if progress.done == 2:
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGINT)

    this = planned(tiny, pictures)
    with pytest.raises(Cancelled):
        carry_out(this, tiny, tmp_path, stop_after_one)
    first = outcome_of(tmp_path / this.run.run_id)
    _, outcome = carry_out(this, tiny, tmp_path, quiet)
    assert first.seconds > 0.2
    assert outcome.seconds > first.seconds

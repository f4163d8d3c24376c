"""Starts, finds and stops the app's jobs, each a command in a process of its own.

A job is the command line in a process of its own, in a session of its own: Ctrl-C on the app, a browser reload and
even a restart of the app leave it alone. All that is known of it lies in `cache/jobs/<job id>/`:

    job.json      the command, its model and pictures, when it was started
    lock          held (flock) by the process while it lives: safe against reused process ids and zombies
    progress      its standard error: one JSON object a line, and whatever else a library prints there
    result.json   its standard output: one JSON object at the end
    cancel        there once the user asked to stop

Needs a POSIX system (flock, SIGINT). Left out: a queue, several machines.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from mmn.errors import BrokenFileError, UsageError
from mmn.names import CANCELLED, COMPLETE, FAILED, RUNNING
from mmn.safety.atomic_files import explain_unwritable, write_whole
from mmn.safety.inside import is_name
from mmn.safety.regular_files import read_json_object, read_tail
from mmn.safety.roots import require_model

PROGRAM: tuple[str, ...] = (sys.executable, "-m", "mmn")
SCORE: Final = "score"
_MOST_RESULT_BYTES: Final = 100_000_000
_REMEDY: Final = "remove the job's folder"
_NUMBER: Final = (int, float)
_REPORTED: Final[dict[str, Any]] = {  # what pages read of reports and results, and of which types it is
    "stage": str,
    "done": int,
    "total": int,
    "rate": _NUMBER,
    "remaining_s": _NUMBER,
    "message": str,
    "run_id": str,
    "n_images": int,
    "n_failed": int,
    "n_scores": int,
    "seconds": _NUMBER,
    "images_per_s": _NUMBER,
}
_TAIL_BYTES: Final = 65_536  # enough for the last reports and a long traceback


@dataclass(frozen=True)
class Job:
    """A command that was started: `pid` also names its process group; `started_at` is ISO 8601 in UTC; `task` is what
    it does with the model and pictures, `score` or an experiment's words.
    """

    job_id: str
    command: tuple[str, ...]
    model: str
    images: str
    pid: int
    started_at: str
    path: Path
    task: str = SCORE


@dataclass(frozen=True)
class Progress:
    """The last report of a job. `rate` is pictures per second; `remaining_s` is None while nobody knows."""

    stage: str = "start"
    done: int = 0
    total: int = 0
    rate: float | None = None
    remaining_s: float | None = None
    message: str = ""
    run_id: str | None = None

    @property
    def share(self) -> float:
        """The finished share of this stage, from 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0


@dataclass(frozen=True)
class JobState:
    """How a job stands: `status` is one of `names.RUN_STATES`, `result` what it printed at the end, `tail` its last
    lines that are not reports (empty unless something went wrong or a library printed messages).
    """

    status: str
    progress: Progress
    result: Mapping[str, Any]
    tail: tuple[str, ...]
    is_stopping: bool = False

    @property
    def run_id(self) -> str | None:
        return self.result.get("run_id") or self.progress.run_id

    @property
    def error(self) -> str:
        """Why it failed, as a sentence; empty otherwise."""
        if self.status != FAILED:
            return ""
        return self.result.get("message") or "The process ended without a result."


def score_command(options: Mapping[str, str | int | Sequence[str] | None]) -> list[str]:
    """The command line that scores: `{"top_k": 1000}` becomes `--top-k 1000`, a list repeats its option, True is the
    bare option, and None, False or an empty value leaves the option to the command's own default.
    """
    words = [*PROGRAM, SCORE]
    for name, value in options.items():
        if isinstance(value, bool):
            words += [f"--{name.replace('_', '-')}"] * value
            continue
        for one in [value] if isinstance(value, str | int) else value or ():
            if one != "":
                words += [f"--{name.replace('_', '-')}", str(one)]
    return [*words, "--json", "--progress", "json"]


def command(words: Sequence[str], cache_path: Path) -> list[str]:
    """The command line `mmn WORDS` on a cache, with its result and progress as JSON."""
    return [*PROGRAM, *words, "--cache", str(cache_path), "--json", "--progress", "json"]


def start(command: Sequence[str], jobs_path: Path, model: str, images: str, task: str = SCORE) -> Job:
    """Starts `command` as a job of its own and returns at once.

    Args:
        command: The program and its arguments, of the form that the module's text describes.
        jobs_path: The folder that holds one folder per job; made if missing.
        model: The model as the user named it; with `images` and `task` it says which jobs would do the same work.
        images: The picture source as the user named it.
        task: What is done with them: `score`, or the words of an experiment on a run, its id included.

    Raises:
        UsageError: A job for the same model, pictures and task is still running.
        OutsideRootsError: The model is outside the folders that this process may read.
    """
    require_model(model)
    with explain_unwritable(jobs_path):
        jobs_path.mkdir(parents=True, exist_ok=True)
        job, process = _start_alone(command, jobs_path, model, images, task)
    threading.Thread(target=process.wait, daemon=True).start()  # reaps it, should it end before us
    return job


def _start_alone(
    command: Sequence[str], jobs_path: Path, model: str, images: str, task: str
) -> tuple[Job, subprocess.Popen[bytes]]:
    with _locked(jobs_path / ".start"):
        for job in list_jobs(jobs_path):
            if (job.model, job.images, job.task) == (model, images, task) and is_alive(job):
                what = f"{model} is already being scored on {images}" if task == SCORE else f"mmn {task} runs already"
                raise UsageError(f"{what}; wait for that job or cancel it first")
        now = datetime.now(UTC)
        path = jobs_path / f"{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"
        path.mkdir()
        process = _spawn(command, path)
        job = Job(path.name, tuple(command), model, images, process.pid, now.isoformat(timespec="seconds"), path, task)
        known = {name: value for name, value in asdict(job).items() if name != "path"}
        write_whole(path / "job.json", json.dumps(known, indent=1).encode())
    return job, process


def list_jobs(jobs_path: Path) -> list[Job]:
    """All jobs under `jobs_path`, newest first; a folder without a `job.json` as `start` writes it is no job."""
    folders = [path for path in jobs_path.glob("*") if is_name(path.name) and path.is_dir() and not path.is_symlink()]
    return [job for path in sorted(folders, reverse=True) if (job := _read_job(path)) is not None]


def _read_job(path: Path) -> Job | None:
    try:
        known = read_json_object(path / "job.json", _REMEDY)
        job = Job(**(known | {"command": tuple(known["command"])}), path=path)
        datetime.fromisoformat(job.started_at)
    except (BrokenFileError, TypeError, KeyError, ValueError):
        return None
    texts = (*job.command, job.model, job.images, job.task)
    is_ours = job.job_id == path.name and type(job.pid) is int and job.pid > 1  # 0 and 1 name more than a job
    return job if is_ours and all(isinstance(text, str) for text in texts) and job.task.split() else None


def state_of(job: Job) -> JobState:
    """How `job` stands now, read from its files alone."""
    alive = is_alive(job)  # before the result is read: a job may end in between, never begin
    progress, tail = _read_progress(job.path / "progress")
    result = _read_result(job.path / "result.json")
    was_stopped = (job.path / "cancel").exists()
    if alive:
        return JobState(RUNNING, progress, {}, tail, is_stopping=was_stopped)
    return JobState(_end_status(result, was_stopped), progress, result, tail)


def cancel(job: Job) -> None:
    """Asks `job` to stop; finished batches are kept. Nothing happens when it has ended.

    The first call interrupts the job's group (SIGINT), so that it can say how far it came; a second one ends it
    (SIGTERM), should it hang or have inherited an ignored SIGINT.
    """
    if not is_alive(job):
        return
    marker = job.path / "cancel"
    stop = signal.SIGTERM if marker.exists() else signal.SIGINT
    os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW))
    with contextlib.suppress(ProcessLookupError):  # it ended in between
        os.killpg(job.pid, stop)


def is_alive(job: Job) -> bool:
    """Whether the process of `job` (or one that it started) still holds the job's lock."""
    try:
        lock = os.open(job.path / "lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # whoever runs has a lock
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _spawn(command: Sequence[str], path: Path) -> subprocess.Popen[bytes]:
    with (path / "lock").open("w") as lock, (path / "progress").open("wb") as progress:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (path / "result.json").open("wb") as result:
            return subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=result,
                stderr=progress,
                start_new_session=True,  # no terminal, no Ctrl-C of the app
                env=_environment(),
                pass_fds=[lock.fileno()],  # the lock lives as long as the process does
            )


def _environment() -> dict[str, str]:
    """Ours, with this copy of `mmn` to be found from any working directory."""
    known = os.environ.get("PYTHONPATH", "")
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), known]))}


def _end_status(result: Mapping[str, Any], was_stopped: bool) -> str:
    if result.get("status") in (COMPLETE, CANCELLED, FAILED):
        return str(result["status"])
    if "error" in result:
        return CANCELLED if result["error"] == "Cancelled" else FAILED
    if result:  # commands that add to a run tell their counts, and no status
        return COMPLETE
    return CANCELLED if was_stopped else FAILED


def _read_progress(path: Path) -> tuple[Progress, tuple[str, ...]]:
    """The last report, and the last 30 lines that are no reports."""
    progress, run_id, others = Progress(), None, []
    for line in _tail(path).splitlines():
        report = _report(line)
        if report is None:
            others.append(line.rstrip())
            continue
        run_id = report.get("run_id") or run_id
        progress = Progress(**{name: report[name] for name in report if name in Progress.__dataclass_fields__})
    return Progress(**(asdict(progress) | {"run_id": run_id})), tuple(line for line in others if line)[-30:]


def _tail(path: Path) -> str:
    try:
        data, is_cut = read_tail(path, _TAIL_BYTES, _REMEDY)
    except BrokenFileError:
        return ""
    text = data.decode(errors="replace")
    return text.partition("\n")[2] if is_cut else text  # the first line may be cut


def _report(line: str) -> dict[str, Any] | None:
    """The report that `line` is, or None for any other line, a half-written one included."""
    if not line.startswith("{"):
        return None
    try:
        report = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(report, dict) or "stage" not in report:
        return None
    return {name: value for name, value in report.items() if isinstance(value, _REPORTED.get(name, object))}


def _read_result(path: Path) -> dict[str, Any]:
    """What the job printed; empty when it printed nothing, or was killed while printing."""
    try:
        found = read_json_object(path, _REMEDY, _MOST_RESULT_BYTES)
    except BrokenFileError:
        return {}
    return {name: value for name, value in found.items() if isinstance(value, _REPORTED.get(name, object))}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

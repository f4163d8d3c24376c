"""Jobs with a tiny command that speaks the progress protocol in place of the real one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmn.errors import UsageError
from mmn.runs import jobs

# argv: seconds between reports · number of reports · how it ends (ok, error, crash)
FAKE = """
import json, signal, sys, time
step_s, n, end = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
def say(done, run_id="r1"):
    report = {"stage": "score", "done": done, "total": n, "rate": 2.5, "remaining_s": None, "message": ""}
    print(json.dumps(report | {"run_id": run_id}), file=sys.stderr, flush=True)
def stop(*_):
    print(json.dumps({"run_id": "r1", "status": "cancelled", "n_images": 1}), flush=True)
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
print("a library's warning", file=sys.stderr, flush=True)
for i in range(n):
    say(i + 1, "r1" if i == 0 else None)
    time.sleep(step_s)
if end == "ok":
    print(json.dumps({"run_id": "r1", "status": "complete", "n_images": n, "n_failed": 0}))
elif end == "error":
    print(json.dumps({"error": "UsageError", "message": "no such folder: 'x'; give one that exists"}))
    sys.exit(2)
else:
    raise RuntimeError("boom")
"""


def command(step_s: float = 0.0, n: int = 2, end: str = "ok") -> list[str]:
    return [sys.executable, "-c", FAKE, str(step_s), str(n), end]


def wait_for(job: jobs.Job, is_met, timeout_s: float = 10.0) -> jobs.JobState:
    give_up = time.monotonic() + timeout_s
    while not is_met(state := jobs.state_of(job)):
        assert time.monotonic() < give_up, state
        time.sleep(0.02)
    return state


def ended(state: jobs.JobState) -> bool:
    return state.status != "running"


def test_finished_job_shows_its_result(tmp_path: Path):
    job = jobs.start(command(), tmp_path, "specimen", "gallery")
    state = wait_for(job, ended)
    assert (state.status, state.run_id, state.result["n_images"]) == ("complete", "r1", 2)
    assert state.progress.share == 1.0
    assert state.tail == ("a library's warning",)
    assert state.error == ""


def test_running_job_reports_and_cancels_by_sigint(tmp_path: Path):
    job = jobs.start(command(step_s=0.1, n=600), tmp_path, "specimen", "gallery")
    state = wait_for(job, lambda s: s.progress.done >= 3)
    assert state.status == "running"
    assert state.progress.run_id == "r1", "a later report without the id must not lose it"
    assert state.progress.rate == 2.5
    assert state.progress.remaining_s is None
    jobs.cancel(job)
    state = wait_for(job, ended)
    assert (state.status, state.result["n_images"]) == ("cancelled", 1)
    jobs.cancel(job)  # nothing to do, and no error


def test_usage_error_is_shown_as_its_message(tmp_path: Path):
    state = wait_for(jobs.start(command(end="error"), tmp_path, "m", "x"), ended)
    assert (state.status, state.error) == ("failed", "no such folder: 'x'; give one that exists")


def test_crash_is_failed_with_its_last_lines(tmp_path: Path):
    state = wait_for(jobs.start(command(end="crash"), tmp_path, "m", "x"), ended)
    assert state.status == "failed"
    assert state.tail[-1] == "RuntimeError: boom"
    assert state.error == "The process ended without a result."


def test_killed_process_is_failed(tmp_path: Path):
    job = jobs.start(command(step_s=60), tmp_path, "m", "x")
    wait_for(job, lambda s: s.progress.done == 1)
    os.killpg(job.pid, signal.SIGKILL)
    assert wait_for(job, ended).status == "failed"


def test_second_cancel_ends_a_job_that_ignores_the_first(tmp_path: Path):
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('{}'); time.sleep(60)"
    job = jobs.start([sys.executable, "-uc", deaf], tmp_path, "m", "x")
    while not (job.path / "result.json").read_text():
        time.sleep(0.02)
    jobs.cancel(job)
    time.sleep(0.1)
    state = jobs.state_of(job)
    assert (state.status, state.is_stopping) == ("running", True)
    jobs.cancel(job)
    assert wait_for(job, ended).status == "cancelled"


def test_one_job_per_model_and_pictures_at_a_time(tmp_path: Path):
    job = jobs.start(command(step_s=60), tmp_path, "m", "x")
    try:
        with pytest.raises(UsageError, match="already being scored"):
            jobs.start(command(), tmp_path, "m", "x")
        other = jobs.start(command(), tmp_path, "m", "y")
        assert [found.job_id for found in jobs.list_jobs(tmp_path)] == [other.job_id, job.job_id], "newest first"
    finally:
        jobs.cancel(job)
        jobs.cancel(job)  # at once: the first lets it finish its step, of a minute, where that has begun
    wait_for(job, ended)
    wait_for(jobs.start(command(), tmp_path, "m", "x"), ended)


def test_job_outlives_the_process_that_started_it_and_is_found_again(tmp_path: Path):
    starter = (
        "import sys, pathlib; from mmn.runs import jobs; jobs.start(sys.argv[2:], pathlib.Path(sys.argv[1]), 'm', 'x')"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", starter, str(tmp_path), *command(step_s=0.05, n=400)], check=True, cwd=root)
    (job,) = jobs.list_jobs(tmp_path)
    seen = wait_for(job, lambda s: s.progress.done >= 2).progress.done
    wait_for(job, lambda s: s.progress.done > seen)
    jobs.cancel(job)
    assert wait_for(job, ended).status == "cancelled"


def test_reused_process_id_is_not_taken_for_the_job(tmp_path: Path):
    job = jobs.start(command(), tmp_path, "m", "x")
    wait_for(job, ended)
    known = json.loads((job.path / "job.json").read_text())
    (job.path / "job.json").write_text(json.dumps(known | {"pid": os.getpid()}))
    (impostor,) = jobs.list_jobs(tmp_path)
    assert not jobs.is_alive(impostor)
    jobs.cancel(impostor)  # must not interrupt this process


def test_half_written_report_and_long_log_do_not_matter(tmp_path: Path):
    job = jobs.start(command(), tmp_path, "m", "x")
    wait_for(job, ended)
    report = json.dumps({"stage": "score", "done": 5, "total": 9, "new_field": 1})
    (job.path / "progress").write_text("noise\n" * 20_000 + report + '\n{"stage": "sco')
    state = jobs.state_of(job)
    assert (state.progress.done, state.progress.total) == (5, 9)
    assert len(state.tail) == 30


def test_jobs_import_no_torch_and_no_streamlit():
    code = "import sys, mmn.runs.jobs, mmn.figures; print({'torch', 'transformers', 'streamlit'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=Path(__file__).parents[1])
    assert done.stdout.decode().strip() == "set()"

"""Start an experiment on a run from the page that shows its results, and watch it there.

Each is the command line in a process of its own (`mmn.runs.jobs`), so that it outlives the page and the app.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import streamlit as st

from app import job_list, resources
from app.text import code, plain, sentence
from mmn.errors import UsageError
from mmn.runs import jobs


def offer(run: dict[str, Any], words: Sequence[str], label: str, note: str) -> None:
    """A button that starts `mmn WORDS`, or while such a job runs its progress in the button's place.

    When the job has ended, the page runs again and finds the new rows; if it failed, its error stands here.

    Args:
        run: the run's row; its model and pictures name the job.
        words: the command and its arguments, the run first of them, then `--kind` if it has one; `--cache`, `--json`
            and `--progress` are added.
        label: of the button.
        note: what it does and how long it may take, a sentence or two.
    """
    if watch(words):
        return
    ended = _like(words)
    if ended:
        now = jobs.state_of(ended[0])
        with st.container(border=True):
            st.caption(f"The last job of this kind: {plain(now.status)}")
            job_list.tell(now)
    st.markdown(note)
    task = shlex.join(words)
    key = f"start-{shlex.join(_kind(words))}-{label}"  # stays while settings change: a click right after counts
    if st.button(label, type="primary", icon=":material/play_arrow:", key=key):
        _start(run, words, task)
    st.caption(f"From a terminal: {code(f'python -m mmn {task}')}")


def watch(words: Sequence[str]) -> bool:
    """Shows how far the running jobs like `mmn WORDS` are (other settings, too); False where there are none."""
    running = [job for job in _like(words) if jobs.is_alive(job)]
    if running:
        st.fragment(job_list.watch, run_every=1.0)(running)
    return bool(running)


def _like(words: Sequence[str]) -> list[jobs.Job]:
    """The jobs of the same command, run and kind, newest first."""
    found = jobs.list_jobs(job_list.jobs_path())
    return [job for job in found if shlex.split(job.task)[: len(_kind(words))] == _kind(words)]


def _kind(words: Sequence[str]) -> list[str]:
    """Command, run and kind."""
    return list(words[: 4 if "--kind" in words else 2])


def _start(run: dict[str, Any], words: Sequence[str], task: str) -> None:
    try:
        command = jobs.command(words, resources.cache_path())
        jobs.start(command, job_list.jobs_path(), run["model"], run["images"], task)
    except UsageError as error:  # another session was faster
        st.warning(sentence(error), icon=":material/hourglass_top:")
        return
    st.rerun()

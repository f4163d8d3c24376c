"""Jobs: progress while they run, and what became of them. All of them on the Score page; `launcher` shows one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app import resources, state
from app.boundary import error_boundary
from app.text import plain
from mmn.counts import counted
from mmn.errors import RunNotFoundError
from mmn.names import CANCELLED, COMPLETE, RUNNING
from mmn.runs import jobs
from mmn.runs.proved import told
from mmn.studies.registry import STAGES


def jobs_path() -> Path:
    return resources.cache_path() / "jobs"


def show_jobs(n_shown: int = 10) -> None:
    """The newest jobs; looks again every second, but only while one of them runs."""
    found = jobs.list_jobs(jobs_path())[:n_shown]
    if not found:
        st.caption("No jobs yet. A job runs in a separate process: it continues when you close this page or the app.")
        return
    running = [job for job in found if jobs.is_alive(job)]
    if running:
        st.fragment(watch, run_every=1.0)(running)
    for job in found:
        if job not in running:
            _show_ended(job)


def watch(running: list[jobs.Job]) -> None:
    """The progress of jobs, to be run again every second; the page begins anew when one of them has ended."""
    with error_boundary():
        for job in running:
            now = jobs.state_of(job)
            if now.status != RUNNING:
                resources.refresh()
                st.rerun()  # the whole page, which then has no timer, or a shorter list to watch
            _show_running(job, now)


def _show_running(job: jobs.Job, now: jobs.JobState) -> None:
    with st.container(border=True):
        told, button = st.columns([5, 1], vertical_alignment="center")
        told.markdown(f"**{plain(_name(job))}**")
        label = "Stop now" if now.is_stopping else "Cancel"
        if button.button(label, icon=":material/stop_circle:", key=f"cancel-{job.job_id}", width="stretch"):
            jobs.cancel(job)
            st.rerun(scope="fragment")
        st.progress(now.progress.share, text=progress_text(now))
        if now.is_stopping:
            st.caption("Stopping after the current batch. What is finished is kept, and the same job resumes there.")


def progress_text(now: jobs.JobState) -> str:
    """`Scoring: 120 of 512, 8.3 pictures per second, about 47 s left`, with what is known."""
    progress = now.progress
    parts = [f"{progress.done:,} of {progress.total:,}"] if progress.total else []
    if progress.rate:
        parts.append(state.pace(progress.rate))
    if progress.remaining_s is not None:
        parts.append(f"about {state.duration(progress.remaining_s)} left")
    words = plain(STAGES.get(progress.stage, progress.stage))
    return words[:1].upper() + words[1:] + (": " + ", ".join(parts) if parts else " …")


def _show_ended(job: jobs.Job) -> None:
    now = jobs.state_of(job)
    icon = {COMPLETE: ":material/check_circle:", CANCELLED: ":material/stop_circle:"}.get(
        now.status, ":material/error:"
    )
    when = pd.Timestamp(job.started_at).strftime("%d %b, %H:%M UTC")
    with st.expander(f"{plain(_name(job))}: {plain(now.status)} ({when})", icon=icon):
        tell(now)
        run_id = now.run_id
        if run_id:
            _link_run(run_id)
        st.code(_as_typed(job), language=None, wrap_lines=True)


def _name(job: jobs.Job) -> str:
    """`specimen on gallery`, with the experiment before it."""
    of = f"{state.short(job.model)} on {state.short(job.images)}"
    return of if job.task == jobs.SCORE else f"{job.task.split()[0]}: {of}"


def tell(now: jobs.JobState) -> None:
    """What became of a job that has ended."""
    if now.error:
        st.error(plain(now.error))
        if now.tail:
            st.code("\n".join(now.tail), language=None)
    elif now.status == CANCELLED:
        st.markdown("Cancelled. The finished pictures are kept; start the same job again to resume.")
    else:
        st.markdown(_summary(now.result))


def _summary(done: Mapping[str, Any]) -> str:
    parts = [counted(done["n_images"], "picture")] if "n_images" in done else ["Done"]
    parts += [f"{done['n_failed']:,} failed"] if done.get("n_failed") else []
    parts += [counted(done["n_scores"], "score row")] if "n_scores" in done else []
    parts += ["no caption holds a noun"] if done.get("n_concepts") == 0 and done.get("n_images") else []
    parts += [state.duration(done["seconds"])] if "seconds" in done else []
    return ", ".join(parts) + (f" ({state.pace(done['images_per_s'])})" if done.get("images_per_s") else "") + "."


def _link_run(run_id: str) -> None:
    """A way to the run's charts, and its failures; nothing when it was deleted, or left no finished batch."""
    try:
        run = resources.store().run(run_id)
    except RunNotFoundError:
        return
    st.page_link(
        resources.ROOT / "pages" / "layers.py",
        label="Layers of this run",
        icon=":material/stacked_bar_chart:",
        query_params={"run": state.run_label(run)},
    )
    if run["proof"]:
        st.markdown(f":green[:material/verified: {plain(told(run['proof']))}]")
    failures = resources.store().table(run_id, "failure")
    if len(failures):
        st.markdown(f"**{counted(len(failures), 'picture')} could not be used**")
        st.dataframe(failures[["source", "stage", "message"]], hide_index=True)


def _as_typed(job: jobs.Job) -> str:
    """The command as a user would type it."""
    words = list(job.command)
    first = job.task.split()[0]
    start = words.index(first) if first in words else 0
    shown = [word for word in words[start:] if word not in ("--json", "--progress", "json")]
    return shlex.join(["python", "-m", "mmn", *shown])

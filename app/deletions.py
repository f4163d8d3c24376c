"""Runs that somebody deleted on the Runs page: gone once that page is left, and back at a click until then.

Nothing is removed before: closing the window, or a server that ends, keeps them.
"""

from __future__ import annotations

from typing import Final

import pandas as pd
import streamlit as st

from app import job_list, resources
from mmn.errors import RunNotFoundError
from mmn.runs import jobs

PAGE: Final = "Runs"
_KEY: Final = "runs-to-delete"


def pending() -> list[str]:
    """The ids of the runs that go when the page is left."""
    return list(st.session_state.get(_KEY, ()))


def delete(run_id: str) -> None:
    """Takes a run off the list."""
    st.session_state[_KEY] = [*pending(), run_id]


def undo(run_id: str) -> None:
    """Puts it back."""
    st.session_state[_KEY] = [one for one in pending() if one != run_id]


def remaining(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs without those that are deleted here."""
    return runs[~runs["run_id"].isin(pending())] if pending() else runs


def carry_out(page: str) -> None:
    """Removes what was deleted, once another page is shown."""
    if page == PAGE or not pending():
        return
    gone = pending()
    st.session_state[_KEY] = []
    with st.spinner("Deleting"):
        for run_id in gone:
            try:
                resources.store().delete_run(run_id)
            except RunNotFoundError:  # another session, or a command, was faster
                continue
    st.toast(f"{len(gone)} deleted" if len(gone) > 1 else "The run is deleted", icon=":material/delete:")


def is_worked_on(run_id: str) -> bool:
    """Whether a job is at work on a run."""
    running = [job for job in jobs.list_jobs(job_list.jobs_path()) if jobs.is_alive(job)]
    return any(run_id[:8] in job.task.split() or jobs.state_of(job).run_id == run_id for job in running)

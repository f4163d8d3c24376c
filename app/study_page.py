"""What the pages of studies share: the run, whether it was measured, and measuring (again)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from app import launcher, resources, widgets
from app.text import sentence
from mmn.errors import UsageError
from mmn.studies.registry import study
from mmn.studies.study import Measurement


def chosen_run() -> dict[str, Any]:
    """The run of the sidebar; ends the page with what to do where there is none."""
    run = widgets.chosen_run()
    if run is None:
        widgets.no_runs()
        st.stop()
    return run


def measurement(name: str, kind: str = "") -> Measurement:
    """A measurement of the study `name`."""
    return study(name).measurements[kind]


def is_measured(run: dict[str, Any], job: Measurement) -> bool:
    """Whether the run has been measured; if not, says so and offers the job."""
    if resources.store().has_rows(run["run_id"], job.table, job.kind):
        return True
    if not launcher.watch(job.of(run["run_id"])):
        st.info("This run has not been measured yet.", icon=":material/science:")
        launcher.offer(run, job.of(run["run_id"]), job.button, job.note)
    return False


def measure_again(run: dict[str, Any], job: Measurement) -> None:
    """The same offer on a page that has something to show: a running job openly, else folded away."""
    words = job.of(run["run_id"])
    if not launcher.watch(words):
        with st.expander("Measure again, or finish a cancelled job"):
            launcher.offer(run, words, "Measure", job.note)


def guarded(body: Callable[[], object]) -> None:
    """Draws, or says what the filters leave nothing of."""
    try:
        body()
    except UsageError as error:
        st.info(sentence(error), icon=":material/filter_alt_off:")

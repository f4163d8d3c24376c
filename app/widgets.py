"""The run in the sidebar, and what a page says where there is none, or where something is not known yet."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import resources, state
from app.text import code, plain
from mmn.counts import counted
from mmn.names import COMPLETE, RUNNING
from mmn.no_nouns import why
from mmn.specimen import IN_WORDS


def run_picker(runs: pd.DataFrame) -> dict[str, Any] | None:
    """The choice of run for all pages (`?run=`), with what is worth knowing of it; returns its row, None without."""
    if runs.empty:
        st.caption("No runs yet.")
        return None
    rows = runs.to_dict("records")
    labels = [state.run_label(row) for row in rows]
    known = state.find_label(labels, st.session_state.get("run") or labels[0])
    if known is None:
        del st.session_state["run"]  # it was deleted
    elif "run" in st.session_state and known != st.session_state["run"]:
        st.session_state["run"] = known  # it was renamed
    _follow_link(labels)
    state.tidy_address({"run": lambda text: state.find_label(labels, text)})
    chosen = st.selectbox("Run", labels, key="run", bind="query-params", help="Model, pictures, and the run's id")
    run = rows[labels.index(chosen)]
    _describe(run)
    return run


def _follow_link(labels: list[str]) -> None:
    """Chooses the run that a link of this app names: Streamlit puts it behind the one that was chosen before, which
    would win.
    """
    *_, last = [None, *st.query_params.get_all("run")]
    label = state.find_label(labels, last or "")
    if len(st.query_params.get_all("run")) > 1 and label:
        st.session_state["run"] = label


def chosen_run() -> dict[str, Any] | None:
    """The run chosen in the sidebar, its row and counts together; None while there are none.

    A page of nouns ends here, with the reason, where the run has no noun (`captioned_run` is for the others).
    """
    run = captioned_run()
    if run is not None and not run["n_concepts"]:
        st.info(_sentence(why(run["n_images"])), icon=":material/speaker_notes_off:")
        st.stop()
    return run


def captioned_run() -> dict[str, Any] | None:
    """The run chosen in the sidebar, whether its captions hold nouns or not; None while there are none."""
    label = st.session_state.get("run")
    if not label:
        return None
    store = resources.store()
    run = store.run(label.split()[-1])
    return run | store.summary(run["run_id"])


def no_runs() -> None:
    """What a page says while nothing has been scored."""
    st.info(
        "Nothing has been scored yet. The Score page scores the bundled gallery with the bundled model in a few "
        "minutes, or your own pictures with your own model.",
        icon=":material/inbox:",
    )
    st.page_link(resources.ROOT / "pages" / "score.py", label="Score pictures", icon=":material/play_circle:")
    st.caption("From a terminal: `python -m mmn score --model specimen --images gallery`")


def annotate(run: dict[str, Any]) -> str:
    """The command that decodes units and finds where they look, as Markdown."""
    return code(f"python -m mmn annotate {run['run_id'][:8]}")


def _describe(run: dict[str, Any]) -> None:
    if run["model"] in IN_WORDS:
        st.caption(f"{IN_WORDS[run['model']]}.")
    parts = [counted(run["n_images"], "picture"), counted(run["n_concepts"], "concept")]
    if run["n_failed"]:
        parts.append(f"{run['n_failed']:,} failed")
    size = f"{counted(run['n_layers'], 'layer')} × {counted(run['d_mlp'], 'unit')}"
    st.caption(f"{', '.join(parts)}. {size}. {run['created_at']:%d %b %Y, %H:%M} UTC")
    if run["tags"]:
        st.caption(f":material/sell: {plain(', '.join(run['tags']))}")
    if run["n_images"] and not run["n_concepts"]:
        st.info("No caption of this run holds a noun.", icon=":material/speaker_notes_off:")
    if run["status"] == RUNNING:
        st.caption(":blue[Still being scored: what you see is incomplete.]")
    elif run["status"] != COMPLETE:
        st.caption(f":orange[This run was {plain(run['status'])}: only the finished pictures are here.]")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."

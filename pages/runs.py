"""Which runs are there, what are they called, and what do they take of the disk? Name, note, export, import, delete."""

from __future__ import annotations

import json
from typing import Any, Final

import pandas as pd
import streamlit as st

from app import deletions, resources, run_exchange, run_labels, state, widgets
from app.table_height import fitting
from app.text import code, plain
from mmn.counts import counted
from mmn.store.disk_use import DiskUse

UNDO: Final = "It is removed when you go to another page. Until then you can bring it back."


def page() -> None:
    runs = resources.store().runs()
    for run_id in deletions.pending():
        offer_undo(runs, run_id)
    left = deletions.remaining(runs)
    if runs.empty:
        widgets.no_runs()
    elif left.empty:
        st.caption("No other run is left.")
    else:
        tags = sorted({tag for tags in left["tags"] for tag in tags})
        listing(tagged(left, tags))
        chosen = widgets.captioned_run()
        if chosen is not None:
            st.subheader(plain(chosen["name"] or state.run_label(chosen)))
            one_run(chosen, tags)
    run_exchange.bring_in(runs)


def offer_undo(runs: pd.DataFrame, run_id: str) -> None:
    """A run that goes when the page is left, and the way back."""
    rows = runs[runs["run_id"] == run_id].to_dict("records")
    if not rows:  # another session was faster
        return
    with st.container(border=True, horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(f":material/delete: **{plain(state.run_label(rows[0]))}** is deleted. {UNDO}", width="stretch")
        st.button(
            "Undo",
            key=f"undo-{run_id}",
            icon=":material/undo:",
            type="primary",
            on_click=deletions.undo,
            args=(run_id,),
        )


def tagged(runs: pd.DataFrame, tags: list[str]) -> pd.DataFrame:
    """The runs with one of the chosen tags; all while none is chosen."""
    if not tags:
        return runs
    chosen = set(st.multiselect("Only with a tag", tags, key="tag", bind="query-params", placeholder="All", width=320))
    return runs[[bool(chosen & set(own)) or not chosen for own in runs["tags"]]]


def listing(runs: pd.DataFrame) -> None:
    """The runs, newest first; a selected row is the run of all pages."""
    if runs.empty:
        st.info("No run has that tag.", icon=":material/filter_alt_off:")
        return
    sizes = disk_use(tuple(runs["run_id"]), tuple(runs["n_scores"]))
    shown = runs.assign(
        run=[row["name"] or state.run_label(row) for row in runs.to_dict("records")],
        model=runs["model"].map(state.short),
        images=runs["images"].map(state.short),
        size=[sizes[run_id] / 1e6 for run_id in runs["run_id"]],
    )
    labels = [state.run_label(row) for row in runs.to_dict("records")]
    number = st.column_config.NumberColumn
    st.dataframe(
        shown,
        key="runs-table",
        hide_index=True,
        height=fitting(len(shown), 400),
        on_select=lambda: choose(labels),
        selection_mode="single-row",
        column_order=["run", "tags", "status", "created_at", "n_images", "n_concepts", "size", "model", "images"],
        column_config={
            "run": st.column_config.TextColumn("Run", width=230, pinned=True),
            "tags": st.column_config.ListColumn("Tags"),
            "status": "Status",
            "created_at": st.column_config.DatetimeColumn("Begun, UTC", format="DD MMM YYYY, HH:mm"),
            "n_images": number("Pictures", format="localized"),
            "n_concepts": number("Nouns", format="localized"),
            "size": number("Disk, MB", format="%.1f", help="Shards, and deltas of edits, in this cache folder"),
            "model": "Model",
            "images": "Of",
        },
    )
    database = resources.store().ask(DiskUse).of_database()
    st.caption(f"Select a row to use that run on all pages. The database of all runs: {database / 1e6:,.0f} MB.")


def choose(labels: list[str]) -> None:
    """Makes the selected row the run of the sidebar; called before the script runs again."""
    rows = st.session_state["runs-table"]["selection"]["rows"]
    if rows and rows[0] < len(labels):
        st.session_state["run"] = labels[rows[0]]


@st.cache_data(ttl=60, max_entries=8, show_spinner="Looking at the disk")
def disk_use(run_ids: tuple[str, ...], n_scores: tuple[int, ...]) -> dict[str, int]:  # noqa: ARG001 - more rows, more bytes
    ask = resources.store().ask(DiskUse)
    return {run_id: ask.of_run(run_id) for run_id in run_ids}


def one_run(run: dict[str, Any], tags: list[str]) -> None:
    """What it is called, what can be done with it, and how it was made."""
    run_labels.form(run, tags)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.page_link(
            resources.ROOT / "pages" / "layers.py",
            label="Layers of this run",
            icon=":material/stacked_bar_chart:",
            width="content",
        )
        run_exchange.export(run)
        offer_deletion(run)
    run_id = run["run_id"][:8]
    st.caption(
        f"As one file: {code(f'python -m mmn report {run_id} --out run.html')} to be read by anyone, "
        f"{code(f'python -m mmn bundle {run_id} --out run.zip')} for another installation. "
        "**Beside it** in the sidebar compares it with another run."
    )
    failures = resources.store().table(run["run_id"], "failure") if run["n_failed"] else pd.DataFrame()
    if len(failures):
        with st.expander(f"{counted(len(failures), 'picture')} could not be used"):
            st.dataframe(failures[["source", "stage", "message"]], hide_index=True)
    with st.expander("How it was made", icon=":material/settings:"):
        st.code(made(run), language="json", wrap_lines=True)


def offer_deletion(run: dict[str, Any]) -> None:
    """The button that deletes; not while a job is at work on the run."""
    is_busy = deletions.is_worked_on(run["run_id"])
    st.button(
        "Delete",
        icon=":material/delete:",
        key="delete-run",
        disabled=is_busy,
        on_click=deletions.delete,
        args=(run["run_id"],),
        help="A job is running on it: cancel that first." if is_busy else UNDO,
    )


def made(run: dict[str, Any]) -> str:
    """Every input of a run, as JSON."""
    names = ("run_id", "model", "model_fingerprint", "family", "n_layers", "d_mlp", "images", "prompt", "device")
    told = {name: run[name] for name in (*names, "dtype", "seed", "settings", "versions", "proof")}
    return json.dumps(told, indent=1, ensure_ascii=False, default=str)


page()

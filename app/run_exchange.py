"""The Runs page's way out and in: a table as a file, a folder of shards from elsewhere."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

import pandas as pd
import streamlit as st

from app import resources
from app.text import code, file_name, sentence
from mmn.counts import counted
from mmn.errors import MmnError
from mmn.safety.roots import require_inside
from mmn.store.importing import load_folder
from mmn.store.table_files import csv_text, parquet_bytes
from mmn.studies.tables import DECLARED

FORMS: Final = {"CSV": ("csv", "text/csv"), "Parquet": ("parquet", "application/vnd.apache.parquet")}


def export(run: dict[str, Any]) -> None:
    """Any table of the run as a file, which is made when its button is pressed."""
    with st.popover("Export a table", icon=":material/download:"):
        table = st.selectbox("Table", ["run", *DECLARED], key="export-table")
        with st.container(horizontal=True):
            for form, (ending, mime) in FORMS.items():
                st.download_button(
                    form,
                    data=partial(_file, run["run_id"], table, ending),
                    file_name=file_name(f"{run['run_id'][:8]}-{table}.{ending}"),
                    mime=mime,
                    key=f"export-{ending}",
                    on_click="ignore",
                )
        words = f"python -m mmn export {run['run_id'][:8]} --table {table} --out {table}.parquet"
        st.caption(f"Its columns: `docs/schema.md`. From a terminal: {code(words)}")


def _file(run_id: str, table: str, ending: str) -> bytes:
    rows = resources.store().table(run_id, table)
    return parquet_bytes(rows) if ending == "parquet" else csv_text(rows).encode()


def bring_in(runs: pd.DataFrame) -> None:
    """A folder of shards that was written elsewhere, and the bundled run where it was deleted."""
    with st.expander("Import runs", icon=":material/upload:"):
        with st.form("import", border=False):
            folder = st.text_input(
                "Folder of one run or of several", placeholder="/data/cluster/runs", key="import-folder"
            )
            if st.form_submit_button("Load", icon=":material/folder_open:"):
                _load(folder)
        st.caption(
            "The folder stays where it is and is loaded into the database. All of it is checked, and broken files "
            f"are set aside. From a terminal: {code('python -m mmn load DIR')}"
        )
        there = set(runs["run_id"])
        missing = [path for path in resources.BUNDLED_RUNS if path.is_dir() and resources.run_id_of(path) not in there]
        if missing and st.button("Restore the bundled runs", icon=":material/undo:"):
            for path in missing:
                _load(str(path), is_ours=True)


def _load(folder: str, *, is_ours: bool = False) -> None:
    if not folder.strip():
        st.caption("Enter a folder first.")
        return
    bar = st.progress(0.0, text="Looking at the folder")
    try:
        path = Path(folder.strip()).expanduser()
        if not is_ours:
            require_inside(path)
        loaded = load_folder(resources.store(), path, partial(_progress, bar))
    except MmnError as error:
        bar.empty()
        st.error(sentence(error), icon=":material/error:")
        return
    st.toast(f"{counted(len(loaded.run_ids), 'run')}, {counted(loaded.n_shards, 'new shard')}")
    st.rerun()


def _progress(bar: Any, done: int, n: int) -> None:
    bar.progress(done / max(n, 1), text=f"Loading: {done} of {counted(n, 'shard')}")

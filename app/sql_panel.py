"""The SQL page's parts: the statement and its answer, examples, and the columns of all tables."""

from __future__ import annotations

from typing import Final

import streamlit as st

from app import resources
from app.boundary import error_boundary
from app.text import plain, sentence
from mmn.counts import counted
from mmn.errors import MmnError
from mmn.store.sql import EXAMPLES, MOST_ROWS, MOST_SECONDS, Answer, Asking, SqlQueries
from mmn.store.table_files import csv_text

INTRODUCTION: Final = (
    "One `SELECT` over the tables, in DuckDB's SQL. It cannot change anything or open files; at most "
    f"{MOST_SECONDS:.0f} s and {MOST_ROWS:,} rows. For more: `mmn export`."
)
_TEXT, _ASKING = "sql", "sql-asking"


def examples() -> None:
    """Statements to begin with."""
    chosen = st.pills("Examples", list(EXAMPLES), key="sql-example", on_change=_take)
    if chosen is None and _TEXT not in st.session_state:
        st.session_state[_TEXT] = EXAMPLES["Frequent nouns"]


def _take() -> None:
    chosen = st.session_state.get("sql-example")
    if chosen:
        st.session_state[_TEXT] = EXAMPLES[chosen]


def form(run_id: str, *, without_folders: bool) -> None:
    """The statement; while it is answered how long it has taken, and a button that ends it; then the rows."""
    with st.form("sql-form", border=False):
        text = st.text_area("Statement", key=_TEXT, height=190, help="Ctrl + Enter runs it.")
        is_asked = st.form_submit_button("Answer", type="primary", icon=":material/play_arrow:")
    if is_asked:
        _begin(text, run_id, without_folders=without_folders)
    asking: Asking | None = st.session_state.get(_ASKING)
    if asking is None:
        return
    if asking.is_done or asking.wait(0.3):
        _show(asking)
    else:
        st.fragment(_watch, run_every=0.5)(asking)


def _begin(text: str, run_id: str, *, without_folders: bool) -> None:
    before: Asking | None = st.session_state.pop(_ASKING, None)
    if before is not None:
        before.cancel()
    try:
        asking = resources.store().ask(SqlQueries).begin(text, run_id, without_folders=without_folders)
    except MmnError as error:
        st.error(sentence(error), icon=":material/error:")
        return
    st.session_state[_ASKING] = asking


def _watch(asking: Asking) -> None:
    with error_boundary():
        if asking.is_done:
            st.rerun()
        with st.container(horizontal=True, vertical_alignment="center"):
            share = min(asking.seconds / MOST_SECONDS, 1.0)
            st.progress(share, text=f"{asking.seconds:.0f} s of at most {MOST_SECONDS:.0f} s", width="stretch")
            if st.button("Cancel", icon=":material/stop_circle:", key="sql-cancel"):
                asking.cancel()


def _show(asking: Asking) -> None:
    if asking.error is not None:
        st.error(sentence(asking.error), icon=":material/error:")
    elif asking.answer is not None:
        _rows(asking.answer)


def _rows(answer: Answer) -> None:
    if answer.rows.empty:
        st.info("No rows.", icon=":material/inbox:")
        return
    more = f"The first {MOST_ROWS:,} rows, there are more" if answer.has_more else counted(len(answer.rows), "row")
    st.caption(f"{more}, in {answer.seconds:.1f} s.")
    st.dataframe(answer.rows, hide_index=True)
    with st.container(horizontal=True, horizontal_alignment="right"):
        st.download_button(
            "CSV",
            data=lambda: csv_text(answer.rows).encode(),
            file_name="answer.csv",
            mime="text/csv",
            icon=":material/download:",
            on_click="ignore",
        )


def schema() -> None:
    """Every table, its columns and their types, folded away one by one."""
    st.markdown("**Tables**")
    wanted = st.text_input(
        "Column or table", key="sql-schema", placeholder="noun", label_visibility="collapsed"
    ).strip()
    with st.container(height=560, border=False, key="sql-tables", gap="small"):
        _tables(wanted.lower())
    st.caption("Their meaning: `docs/schema.md`.")


def _tables(wanted: str) -> None:
    for table, columns in resources.store().ask(SqlQueries).columns().items():
        fits = [name for name, _ in columns if wanted in name]
        if wanted and not fits and wanted not in table:
            continue
        with st.expander(plain(table), expanded=bool(wanted and fits)):
            st.code("\n".join(f"{name.ljust(18)} {kind}" for name, kind in columns), language=None)

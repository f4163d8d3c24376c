"""What else do the tables know? One statement at a time, with the tables' columns beside it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import access, sql_panel, widgets

SCOPES = {"This run": False, "All runs": True}


def page() -> None:
    run = widgets.captioned_run()
    st.markdown(sql_panel.INTRODUCTION)
    if run is None:
        widgets.no_runs()
        return
    row = st.container(horizontal=True, gap="large")  # in a narrow window one below the other
    with row.container(width="stretch"):
        ask(run)
    with row.container(width=300):
        sql_panel.schema()


def ask(run: dict[str, Any]) -> None:
    """The statement, its scope, and its answer."""
    scope = st.segmented_control(
        "Rows of", list(SCOPES), default="This run", required=True, key="scope", bind="query-params"
    )
    sql_panel.examples()
    sql_panel.form("" if SCOPES[scope] else run["run_id"], without_folders=access.must_confine())


page()

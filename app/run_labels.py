"""A run's name, note and tags: the form of the Runs page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from app import resources, state
from app.text import sentence
from mmn.errors import MmnError
from mmn.store.labels import MOST_NAME, MOST_NOTE, MOST_TAGS, Label, cleaned


def form(run: dict[str, Any], known_tags: Sequence[str]) -> None:
    """Shows what a run is called, to be changed; saved as one."""
    run_id = run["run_id"]
    with st.form(f"label-{run_id}", border=False):
        left, right = st.columns(2)
        name = left.text_input("Name", run["name"], max_chars=MOST_NAME, placeholder=state.short(run["model"]))
        tags = right.multiselect(
            "Tags",
            sorted({*known_tags, *run["tags"]}),
            default=run["tags"],
            accept_new_options=True,
            max_selections=MOST_TAGS,
            placeholder="Choose, or type a new one",
            wrap=True,
        )
        note = st.text_area("Note", run["note"], max_chars=MOST_NOTE, height=90, placeholder="What to remember of it")
        if st.form_submit_button("Save", icon=":material/save:"):
            _save(run, name, note, tags)


def _save(run: dict[str, Any], name: str, note: str, tags: Sequence[str]) -> None:
    try:
        label = cleaned(name, note, tags)
        resources.store().set_label(run["run_id"], label)
    except MmnError as error:
        st.error(sentence(error), icon=":material/error:")
        return
    if label != Label(run["name"], run["note"], tuple(run["tags"])):
        st.toast("Saved", icon=":material/check:")
        st.rerun()  # the list and the sidebar call it so, too

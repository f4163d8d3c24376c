"""Which edits of the model are there, did each do what it should and nothing else, and how is one made or undone?"""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import edit_inputs, edit_view, filter_bar, resources, state, study_page
from mmn.studies.editing.queries import EditQueries
from mmn.studies.editing.shares import edit_label

PROMISE = (
    "An edit is a small file of changes to the weights of some units. It is added to a private copy of the model "
    "while it is measured, and removed again: **the model on disk never changes, and no other session sees an "
    "edited model.** Below are the measured edits."
)


def page() -> None:
    run = study_page.chosen_run()
    st.markdown(PROMISE)
    filter_bar.none()
    edits = resources.store().ask(EditQueries).edits(run["run_id"])
    if edits.empty:
        st.info("No edit of this model has been made from this run yet.", icon=":material/edit_off:")
        edit_inputs.show(run)
        return
    with st.expander("Make another edit", icon=":material/add:"):
        edit_inputs.show(run)
    edits = edits.assign(pair=[f"{row.noun} → {row.target}" for row in edits.itertuples()])
    chosen = choose(edits)
    of_pair = edits[edits["pair"] == chosen["pair"]]
    edit_view.overview(edits, chosen["edit_id"])
    edit_view.show(run, chosen, of_pair)


def choose(edits: pd.DataFrame) -> dict[str, Any]:
    """The edit to look at: first what is edited into what, then how; the address names it (`?edit=`)."""
    labels = {
        row["edit_id"]: f"{row['pair']}: {edit_label(row)} · {row['edit_id'][:8]}" for row in edits.to_dict("records")
    }
    if st.session_state.get("edit", next(iter(labels.values()))) not in labels.values():
        del st.session_state["edit"]  # undone, or of another run
    state.tidy_address({"edit": lambda text: find(list(labels.values()), text)})
    label = st.selectbox("Edit", list(labels.values()), key="edit", bind="query-params")
    rows = edits.set_index("edit_id", drop=False)
    return dict(rows.loc[next(edit_id for edit_id, one in labels.items() if one == label)])


def find(labels: list[str], text: str) -> str | None:
    """The label that `text` is, or whose id it begins."""
    if text in labels:
        return text
    found = [label for label in labels if text and label.rpartition(" · ")[2] == text[:8]]
    return found[0] if len(found) == 1 else None


page()

"""The Edit page's gallery: captions before and after an edit, beside their pictures."""

from __future__ import annotations

import base64
from typing import Any, Final

import pandas as pd
import streamlit as st

from app import pictures, resources
from app.table_height import fitting
from mmn.counts import counted
from mmn.errors import ImageError
from mmn.studies.editing.queries import EditQueries

ROLES: Final = {"edited": "edited on", "other": "same noun", "unrelated": "unrelated"}
CHANGES: Final = {"all": None, "changed": True, "unchanged": False}
PER_PAGE: Final = 24
_ROW: Final = 64  # pixels: a small picture


def show(run: dict[str, Any], edit: dict[str, Any]) -> None:
    """The captions of one edit, by role and by whether they changed."""
    st.subheader("Captions before and after")
    rows = resources.store().ask(EditQueries).captions(run["run_id"], edit["edit_id"])
    if rows.empty:
        st.caption("No captions were written with this edit.")
        return
    rows = _filtered(rows)
    if rows.empty:
        st.info("No caption fits these filters.", icon=":material/filter_alt_off:")
        return
    n_pages = -(-len(rows) // PER_PAGE)
    number = 1
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(
            f"{counted(len(rows), 'picture')}, {int(rows['is_changed'].sum()):,} with another caption, "
            f"{int(rows['is_as_wished'].sum()):,} as wished",
            width="content",
        )
        if n_pages > 1:
            number = st.pagination(n_pages, key=f"captions-{edit['edit_id'][:8]}-{n_pages}")
    _table(rows.iloc[(number - 1) * PER_PAGE : number * PER_PAGE])


def _filtered(rows: pd.DataFrame) -> pd.DataFrame:
    there = [role for role in ROLES if (rows["role"] == role).any()]
    labels = {f"{ROLES[role]} ({int((rows['role'] == role).sum()):,})": role for role in there}
    with st.container(horizontal=True, gap="large"):
        role = st.segmented_control(
            "Pictures",
            list(labels),
            default=next(iter(labels)),
            required=True,
            key=f"role-{'-'.join(labels)}",
            help=(
                "Edited on: the edit was fitted to them. Same noun: others that say it. Unrelated: captions without it."
            ),
        )
        change = st.segmented_control(
            "Captions", list(CHANGES), default="all", required=True, key="changed", bind="query-params"
        )
    kept = rows[rows["role"] == labels[role]]
    return kept if CHANGES[change] is None else kept[kept["is_changed"] == CHANGES[change]]


def _table(rows: pd.DataFrame) -> None:
    number = st.column_config.NumberColumn
    shown = rows.assign(picture=[_thumbnail(row["source"], row["image_id"]) for row in rows.to_dict("records")])
    order = ["picture", "text_before", "text_after", "is_as_wished", "prob_before", "prob_after"]
    st.dataframe(
        shown,
        hide_index=True,
        row_height=_ROW,
        height=fitting(len(shown), 560, _ROW),
        placeholder="–",
        column_order=[name for name in order if shown[name].notna().any()],
        column_config={
            "picture": st.column_config.ImageColumn("Picture", width=75),
            "text_before": st.column_config.TextColumn("Before", width=245),
            "text_after": st.column_config.TextColumn("After", width=245),
            "is_as_wished": st.column_config.CheckboxColumn(
                "As wished", width=80, help="It says the new word, or, if unrelated, it did not change"
            ),
            "prob_before": number(
                "p before", format="%.3f", width=75, help="Probability of the new word where the noun was said"
            ),
            "prob_after": number("p after", format="%.3f", width=75, help="The same with the edit"),
        },
    )


def _thumbnail(source: object, image_id: str) -> str | None:
    if not isinstance(source, str):
        return None
    try:
        small = pictures.thumbnail_of(source, image_id)
    except ImageError:
        return None
    return "data:image/webp;base64," + base64.b64encode(small).decode()

"""The Image page's last part: what a noun's logit is made of, beside another noun's or its own over a grey picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st

from app import charts, filters, links, resources, state
from app.text import sentence
from mmn.errors import UsageError
from mmn.names import CONTRIBUTION_FOLDED
from mmn.view import View


def show(run: dict[str, Any], picture: dict[str, Any], concepts: pd.DataFrame, noun: str) -> None:
    """Charts of one concept's logit, each with its export; says plainly what was not stored."""
    st.subheader("What the logit is made of")
    rows = concepts.set_index("noun")
    view = View(run["run_id"], image=picture["image_id"][: links.ID_LENGTH], noun=noun)
    view = _compared(view, rows)
    try:
        figure = charts.drawn("budget", view)
    except UsageError as error:
        st.caption(sentence(error))
        return
    parts = [part for _label, part in figure.parts()]
    columns = st.columns(2, gap="medium")
    for column, part in zip(columns, parts, strict=False):
        with column:
            charts.show_plain(part)
    with columns[len(parts) - 1], st.container(horizontal=True, horizontal_alignment="right"):
        charts.export_control(figure)
    with columns[1] if len(parts) == 1 else st.columns(2, gap="medium")[0]:
        _share(run, view, rows["logit"])


def _compared(view: View, rows: pd.DataFrame) -> View:
    """The view with its other side: nothing, another noun of the caption, or this noun over a grey picture."""
    found = {other: replace(view, rival=other) for other in rows.index if other != view.noun}
    if pd.notna(rows.loc[view.noun, "blank_logit"]):
        found[f"{view.noun}, grey picture"] = replace(view, grey=True)
    if not found:
        return view
    key = f"rival-{view.noun}"
    other = st.selectbox("Compare with", list(found), index=None, placeholder="Nothing", width=280, key=key)
    return found[other] if other else view


def _share(run: dict[str, Any], view: View, logits: pd.Series) -> None:
    """How much the top units alone make up: exact only for the score into which the final norm is folded."""
    if CONTRIBUTION_FOLDED not in resources.store().score_methods(run["run_id"]):
        st.caption(
            f"The share of the logit from top units needs the score `{CONTRIBUTION_FOLDED}`, whose terms add up to "
            "the logit; this run was scored without it."
        )
        return
    nouns = [noun for noun in (view.noun, view.rival) if noun and logits[noun] > 0]
    if not nouns:
        st.caption("The logit is not above zero, so a share of it has no meaning.")
        return
    ks = state.k_options(filters.n_units(run), filters.stored_k(run))
    charts.show("top-share", replace(view, ks=tuple(ks), noun=nouns[0], rival="".join(nouns[1:])))

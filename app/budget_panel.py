"""The Image page's last part: what a noun's logit is made of, beside another noun's or its own over a grey picture."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import resources, state, widgets
from mmn.names import BLANK, CONTRIBUTION_FOLDED, ORIGINAL
from mmn.store.pictures import PictureQueries
from mmn.studies.scoring.budget_figures import logit_budget, stacked_range, top_share


def show(run: dict[str, Any], picture: dict[str, Any], concepts: pd.DataFrame, noun: str) -> None:
    """Charts of one concept's logit, each with its export; says plainly what was not stored."""
    st.subheader("What the logit is made of")
    logit_of = concepts.set_index("noun")
    sides = {noun: (noun, ORIGINAL, float(logit_of.loc[noun, "logit"]))} | _compared(logit_of, noun)
    data = pd.concat(
        [
            resources.store()
            .ask(PictureQueries)
            .logit_budget(run["run_id"], picture["image_id"], said, variant)
            .assign(noun=label)
            for label, (said, variant, _) in sides.items()
        ]
    )
    if data.empty:
        st.caption("This run kept no budgets; score it again to have them.")
        return
    of = f"picture {picture['image_id'][:8]}, “{state.clipped(picture['text'], 60)}”"
    logits = {label: logit for label, (_, _, logit) in sides.items() if label in set(data["noun"])}
    name = f"{run['run_id'][:8]}-{picture['image_id'][:8]}-{noun}"
    shown = [(data[data["noun"] == label], label) for label in logits]
    y_range = stacked_range(data)
    columns = st.columns(2, gap="medium")
    for column, (rows, label) in zip(columns, shown, strict=False):
        chart = logit_budget(rows, run, logits, of, y_range)
        with column:
            widgets.show_plain(chart, f"{name}-{label}")
    with columns[len(shown) - 1], st.container(horizontal=True, horizontal_alignment="right"):
        widgets.export_control(logit_budget(data, run, logits, of), data, f"{name}-budget")
    with columns[1] if len(shown) == 1 else st.columns(2, gap="medium")[0]:
        _share(run, picture, sides, of, name)


def _compared(rows: pd.DataFrame, noun: str) -> dict[str, tuple[str, str, float]]:
    """The other side: nothing, another noun of the caption, or this noun over a grey picture."""
    found = {other: (other, ORIGINAL, float(rows.loc[other, "logit"])) for other in rows.index if other != noun}
    if pd.notna(rows.loc[noun, "blank_logit"]):
        found[f"{noun}, grey picture"] = (noun, BLANK, float(rows.loc[noun, "blank_logit"]))
    if not found:
        return {}
    other = st.selectbox("Compare with", list(found), index=None, placeholder="Nothing", width=280, key=f"rival-{noun}")
    return {other: found[other]} if other else {}


def _share(
    run: dict[str, Any], picture: dict[str, Any], sides: dict[str, tuple[str, str, float]], of: str, name: str
) -> None:
    """How much the top units alone make up: exact only for the score into which the final norm is folded."""
    store = resources.store()
    if CONTRIBUTION_FOLDED not in store.score_methods(run["run_id"]):
        st.caption(
            f"How much of the logit the top units make up is known with the score `{CONTRIBUTION_FOLDED}`, "
            "which adds up to it; this run was scored without."
        )
        return
    ks = state.k_options(widgets.n_units(run), widgets.stored_k(run))
    data = pd.concat(
        [
            store.ask(PictureQueries)
            .top_share(run["run_id"], picture["image_id"], said, CONTRIBUTION_FOLDED, ks)
            .assign(noun=label, share=lambda rows, logit=logit: rows["logit"] / logit)
            for label, (said, variant, logit) in sides.items()
            if variant == ORIGINAL and logit > 0
        ]
        or [pd.DataFrame(columns=["k", "logit", "noun", "share"])]
    )
    if data.empty:
        st.caption("The logit is not above zero, so a share of it means nothing.")
        return
    widgets.show_figure(top_share(data, run, of), data, f"{name}-top-share")

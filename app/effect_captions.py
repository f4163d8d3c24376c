"""The Degradation page's last part: what the model writes of one picture as more and more of a noun's units change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pandas as pd
import streamlit as st

from app import filters, links, pictures, resources
from app.table_height import fitting
from app.text import plain
from mmn.errors import ImageError
from mmn.figures.wording import k_text
from mmn.names import EVERYWHERE
from mmn.studies.degradation.curves import POSITION_WORDS, SELECTION_WORDS
from mmn.studies.degradation.queries import EffectFilter, EffectQueries
from mmn.view import View

_ROW: Final = 30  # pixels


def show(run: dict[str, Any], view: View, kind: str, found: pd.DataFrame) -> None:
    """A picture and a noun of it to choose, and its captions side by side: by k, one column for each selection.

    Args:
        run: its row.
        view: the scores, concepts, layers and nouns to look at.
        kind: of intervention.
        found: `EffectQueries.pictures` of these.
    """
    st.subheader("Captions side by side")
    picture = _chosen(run, found, kind)
    of_picture = found[found["image_id"] == picture["image_id"]]
    left, right = st.columns([1, 3], gap="medium")
    with left:
        _thumbnail(picture)
    with right:
        nouns = list(of_picture["noun"])
        key = f"of-{picture['image_id'][:12]}"
        noun = st.segmented_control("Noun", nouns, default=nouns[0], required=True, key=key, format_func=plain)
        methods = list(view.methods)
        method = methods[0] if len(methods) == 1 else st.selectbox("Units selected by", methods, key="captions-method")
        one = EffectFilter.of(replace(view, methods=(method,)), kind)
        rows = resources.store().ask(EffectQueries).captions(run["run_id"], one, picture["image_id"], noun)
        if st.button("All about this picture", icon=":material/image_search:", type="tertiary"):
            links.go_to_image(picture["image_id"], noun)
    _table(run, rows)


def _chosen(run: dict[str, Any], found: pd.DataFrame, kind: str) -> dict[str, Any]:
    """The picture that was clicked, or the first one."""
    shown = found.drop_duplicates("image_id")
    ids = list(shown["image_id"])
    chosen = st.session_state.get("degraded-picture", ids[0])
    chosen = chosen if chosen in ids else ids[0]
    page_key = f"degraded-page-{run['run_id'][:8]}-{kind}"
    clicked = pictures.pages_of_tiles(shown, "degraded", page_key, chosen)
    if clicked:
        st.session_state["degraded-picture"] = clicked
        st.rerun()
    return dict(shown.set_index("image_id", drop=False).loc[chosen])


def _thumbnail(picture: dict[str, Any]) -> None:
    try:
        st.image(pictures.thumbnail_of(picture["source"], picture["image_id"]), alt=picture["text"])
    except ImageError as error:
        st.caption(f"The picture cannot be shown: {plain(error)}")
    st.caption(f"Untouched: “{plain(picture['text'])}”")


def _table(run: dict[str, Any], rows: pd.DataFrame) -> None:
    """One row for each setting. Several draws of random units are rows of their own."""
    n_units = filters.n_units(run)
    shown = rows.assign(
        units=rows["selection"].map(SELECTION_WORDS),
        at=rows["positions"].map(POSITION_WORDS).where(rows["positions"] != EVERYWHERE),
        size=[k_text(int(k), n_units) if k else "0" for k in rows["k"]],
    )
    is_untouched = shown["k"] == 0  # measured again for every selection, and every sigma; with a caption comes first
    first = shown[is_untouched].head(1).assign(units="untouched", sigma=float("nan"), factor=float("nan"), draw=None)
    others = shown[~is_untouched].drop_duplicates(["selection", "positions", "k", "sigma", "factor", "draw"])
    shown = pd.concat([first, others]) if len(first) else others
    if not shown["draw"].fillna(0).any():
        shown = shown.assign(draw=None)
    order = ["size", "sigma", "factor", "units", "other_noun", "at", "draw", "caption", "prob", "noun_share"]
    order += ["is_lost", "similarity"]
    metric = next(iter(rows["metric"].dropna()), "")
    number = st.column_config.NumberColumn
    st.dataframe(
        shown,
        hide_index=True,
        height=fitting(len(shown), 420, _ROW),
        row_height=_ROW,
        placeholder="–",
        column_order=[name for name in order if shown[name].notna().any()],
        column_config={
            "size": st.column_config.TextColumn("k", width=95),
            "sigma": number("σ", format="%g", width=50),
            "factor": number("×", format="%g", width=50),
            "units": st.column_config.TextColumn("Units", width=110),
            "other_noun": st.column_config.TextColumn("Of", width=70, help="The other picture's noun"),
            "at": st.column_config.TextColumn("At", width=110, help="Empty: at every position"),
            "draw": number("Draw", width=50),
            "noun_share": number("Share", format="%.3f", width=65, help="The noun's share among all nouns of the run"),
            "prob": number(
                "Probability", format="%.3f", width=85, help="Probability of the noun, under the original caption"
            ),
            "caption": st.column_config.TextColumn("New caption", width=300),
            "is_lost": st.column_config.CheckboxColumn("Lost", width=50, help="The new caption does not say the noun"),
            "similarity": number(
                "Similarity", format="%.2f", width=75, help=f"To the caption of the unchanged model: {plain(metric)}"
            ),
        },
    )

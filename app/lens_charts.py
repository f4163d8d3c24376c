"""The Lens page's charts over all pictures that were read, and the table of one picture's words."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import resources, widgets
from mmn.statistics.interval_words import percent
from mmn.studies.lens.figures import nearest_cosines, noun_shares
from mmn.studies.lens.queries import LensQueries
from mmn.studies.lens.results import layer_shares, nearest_result


def show(run: dict[str, Any]) -> None:
    """Nearest words against random vectors, and the layers after which image tokens say a noun of the caption."""
    st.subheader("Over all pictures that were read")
    store, name = resources.store(), run["run_id"][:8]
    tokens = store.ask(LensQueries).nearest_tokens(run["run_id"])
    found = nearest_result(tokens)
    if found is None:
        st.caption("This model adds something to its input embeddings, so its image tokens have no nearest words.")
    else:
        widgets.show_figure(nearest_cosines(tokens, run), tokens, f"{name}-lens")
        random = percent(found.word_share_random)
        st.caption(
            f"English words among the nearest: {percent(found.word_share)}; {random} for random "
            "vectors. P1 (Table 2) finds no difference between image tokens and random vectors: D = .037, p > .5."
        )
    shares = _shares(run["run_id"], len(store.ask(LensQueries).pictures(run["run_id"])))
    if len(shares):
        widgets.show_figure(noun_shares(shares, run), shares, f"{name}-lens-layers", 400)
        st.caption("An image token says the noun whose token is its most probable one after that layer.")


def says_most(run: dict[str, Any]) -> str:
    """The layer after which most image tokens say a noun of their caption, the mean over the pictures; else none."""
    shares = resources.store().ask(LensQueries).noun_shares(run["run_id"]).groupby("layer")["share"].mean()
    return str(shares.idxmax()) if len(shares) and shares.max() > 0 else ""


@st.cache_data(max_entries=8, show_spinner="Comparing image tokens with objects")
def _shares(run_id: str, n_images: int) -> pd.DataFrame:  # noqa: ARG001 - more pictures, other shares
    return layer_shares(resources.store(), run_id)


def word_table(rows: pd.DataFrame, *, is_cosine: bool) -> None:
    """Draws `image_words.frequent`."""
    st.dataframe(
        rows,
        hide_index=True,
        height=330,
        column_config={
            "word": st.column_config.TextColumn("Word"),
            "n_tokens": st.column_config.ProgressColumn(
                "Image tokens", format="%d", min_value=0, max_value=int(rows["n_tokens"].max()), color="#E69F00",
                help="Of this picture, for which it is the first word",
            ),
            "mean_score": st.column_config.NumberColumn(
                "Mean cosine" if is_cosine else "Mean probability", format="%.3f", help="At those image tokens"
            ),
        },
    )  # fmt: skip

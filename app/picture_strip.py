"""Which picture of a run? A page of thumbnails to click on, and the address (`?image=`); the Image and Lens pages'."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
import streamlit as st

from app import links, pictures, resources, state
from mmn.errors import UsageError

PER_PAGE: Final = 16


def chosen_picture(run: dict[str, Any], found: pd.DataFrame) -> dict[str, Any] | None:
    """The picture of the address, or the first of `found` (`Store.pictures`); None where there is none."""
    asked = st.query_params.get("image", "")
    if asked:
        try:
            return resources.store().picture(run["run_id"], asked)
        except UsageError:
            st.caption(f":orange[No picture of this run has an id that begins with “{asked}”.]")
            del st.query_params["image"]
    return resources.store().picture(run["run_id"], found.iloc[0]["image_id"]) if len(found) else None


def show(run: dict[str, Any], found: pd.DataFrame, picture: dict[str, Any] | None) -> None:
    """A page of thumbnails; a click opens that picture."""
    if found.empty:
        st.info("No picture fits these filters.", icon=":material/filter_alt_off:")
        return
    chosen = picture["image_id"] if picture else ""
    ids = list(found["image_id"])
    first = (ids.index(chosen) if chosen in ids else 0) // PER_PAGE + 1
    n_pages = -(-len(found) // PER_PAGE)
    key = f"page-{run['run_id'][:8]}-{n_pages}"
    number = st.session_state.get(key, first)
    shown = found.iloc[(number - 1) * PER_PAGE : number * PER_PAGE]
    clicked = pictures.tiles(shown, "strip", chosen)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(state.count(len(found), "picture"), width="content")
        if n_pages > 1:
            st.pagination(n_pages, default=first, key=key)
    if clicked:
        for name in ("noun", "word"):  # of the picture before
            st.session_state.pop(name, None)
            st.query_params.pop(name, None)
        st.query_params["image"] = clicked[: links.ID_LENGTH]
        st.rerun()

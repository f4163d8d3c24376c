"""Which picture of a run? A page of thumbnails to click on, and the address (`?image=`); the Image and Lens pages'."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import links, pictures, resources
from app.picture import mount
from app.text import plain
from mmn.errors import UsageError
from mmn.store.pictures import PictureQueries


def chosen_picture(run: dict[str, Any], found: pd.DataFrame) -> dict[str, Any] | None:
    """The picture of the address, or the first of `found` (`PictureQueries.pictures`); None where there is none."""
    asked = st.query_params.get("image", "")
    if asked:
        try:
            return resources.store().ask(PictureQueries).picture(run["run_id"], asked)
        except UsageError:
            st.caption(f":orange[No picture of this run has an id that begins with “{plain(asked, 60)}”.]")
            del st.query_params["image"]
    return (
        resources.store().ask(PictureQueries).picture(run["run_id"], found.iloc[0]["image_id"]) if len(found) else None
    )


def show(run: dict[str, Any], found: pd.DataFrame, picture: dict[str, Any] | None) -> None:
    """A page of thumbnails; a click opens that picture."""
    if found.empty:
        st.info("No picture fits these filters.", icon=":material/filter_alt_off:")
        return
    chosen = picture["image_id"] if picture else ""
    clicked = pictures.pages_of_tiles(found, "strip", f"page-{run['run_id'][:8]}", chosen)
    if clicked:
        for name in ("noun", "word"):  # of the picture before
            st.session_state.pop(name, None)
            st.query_params.pop(name, None)
        mount.forget()
        st.query_params["image"] = clicked[: links.ID_LENGTH]
        st.rerun()

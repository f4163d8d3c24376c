"""Which units write each noun of one picture's caption, and where in the picture do they look?"""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import budget_panel, links, looks, nouns, pictures, resources, state, unit_tables, widgets
from mmn.errors import UsageError

PER_PAGE = 16
SIGNS = {"Top": "top", "Suppressors": "bottom"}


def page() -> None:
    st.title("Image")
    run = widgets.chosen_run()
    if run is None:
        widgets.no_runs()
        return
    found = filtered(run)
    picture = chosen_picture(run, found)
    strip(run, found, picture)
    if picture is None:
        return
    concepts = resources.store().picture_concepts(run["run_id"], picture["image_id"])
    left, right = st.columns([4, 7], gap="large")
    with right:
        nouns.caption(picture)
        if concepts.empty:
            st.info("The caption has no noun, so there is nothing that units could have written.")
            with left:
                looks.show(run, picture, "", pd.DataFrame(columns=["layer", "unit", "iou"]), None)
            return
        row = nouns.pick(concepts)
        ranked, unit = ranking(run, picture, row["noun"])
    with left:
        looks.show(run, picture, row["noun"], ranked, unit)
    budget_panel.show(run, picture, concepts, row["noun"])


def filtered(run: dict[str, Any]) -> pd.DataFrame:
    """The pictures that the filters leave, which are also the address."""
    concepts = resources.store().concepts(run["run_id"])
    widgets.tidy_filters(run, resources.store().score_methods(run["run_id"]), concepts)
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        lemmas = widgets.concept_picker(concepts)
    has_references = bool(concepts["n_with_reference"].sum())
    only = has_references and right.toggle(
        "Only possible hallucinations", key="unsaid", bind="query-params", help=nouns.HALLUCINATION
    )
    return resources.store().pictures(run["run_id"], lemmas, only_unreferenced=only)


def chosen_picture(run: dict[str, Any], found: pd.DataFrame) -> dict[str, Any] | None:
    """The picture of the address, or the first that the filters leave."""
    asked = st.query_params.get("image", "")
    if asked:
        try:
            return resources.store().picture(run["run_id"], asked)
        except UsageError:
            st.caption(f":orange[No picture of this run has an id that begins with “{asked}”.]")
            del st.query_params["image"]
    return resources.store().picture(run["run_id"], found.iloc[0]["image_id"]) if len(found) else None


def strip(run: dict[str, Any], found: pd.DataFrame, picture: dict[str, Any] | None) -> None:
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
        st.session_state.pop("noun", None)
        st.query_params.pop("noun", None)
        st.query_params["image"] = clicked[: links.ID_LENGTH]
        st.rerun()


def ranking(run: dict[str, Any], picture: dict[str, Any], noun: str) -> tuple[pd.DataFrame, Any]:
    """The noun's units by the chosen score, and the one whose row is selected."""
    store = resources.store()
    method = widgets.ranking_picker(store.score_methods(run["run_id"]))
    has_bottom = run["settings"].get("bottom_k", 0) > 0
    sign = "Top"
    if has_bottom:
        sign = st.segmented_control("Units", list(SIGNS), default="Top", required=True, key="sign")
    rows = store.ranked_units(run["run_id"], picture["image_id"], noun, method, sign=SIGNS[sign])
    if rows.empty:
        st.caption(f"This run kept no {sign.lower()} of “{noun}” by {method}.")
        return rows, None
    unit = unit_tables.ranked_table(rows, run, f"units-{picture['image_id'][:8]}-{noun}-{method}-{sign}")
    missing = "" if rows["tokens"].notna().any() else " What they write is known after " + widgets.annotate(run) + "."
    bottom = "" if has_bottom else " Suppressors were not kept (`--bottom-k`)."
    st.caption(f"Select a row to see where that unit looks.{missing}{bottom}")
    return rows, unit


page()

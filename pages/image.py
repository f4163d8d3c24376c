"""Which units write each noun of one picture's caption, and where in the picture do they look?"""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import budget_panel, filters, links, looks, nouns, picture_strip, resources, unit_tables, widgets
from app.picture import mount, multiples, second, written_by
from app.text import plain
from mmn.store.pictures import PictureQueries

SIGNS = {"Top": "top", "Suppressors": "bottom"}


def page() -> None:
    run = widgets.captioned_run()
    if run is None:
        widgets.no_runs()
        return
    found = filtered(run)
    picture = picture_strip.chosen_picture(run, found)
    picture_strip.show(run, found, picture)
    if picture is None:
        return
    concepts = resources.store().ask(PictureQueries).concepts(run["run_id"], picture["image_id"])
    row = st.container(horizontal=True, gap="large")  # in a narrow window one below the other
    left, right = row.container(width=280), row.container(width="stretch")
    with right:
        nouns.caption(picture)
        if concepts.empty:
            st.info(nouns.why_none(picture))
            with left:
                looks.show(run, picture, "", pd.DataFrame(columns=["layer", "unit", "iou"]), None)
            return
        said = nouns.pick(concepts)
        ranked, unit, method = ranking(run, picture, said["noun"])
    with left:
        looks.show(run, picture, said["noun"], ranked, unit)
        links.lens_link(run, picture["image_id"])
    token = mount.token_of_address()
    if token is not None:
        written_by.show(run, picture, token)
    multiples.show(run, picture, said["noun"], method, second.of_view(run))
    budget_panel.show(run, picture, concepts, said["noun"])


def filtered(run: dict[str, Any]) -> pd.DataFrame:
    """The pictures that the filters leave, which are also the address."""
    concepts = resources.store().concepts(run["run_id"])
    filters.tidy_filters(run, resources.store().score_methods(run["run_id"]), concepts)
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    with row.container(width=420):
        lemmas = filters.concept_picker(concepts)
    has_references = bool(concepts["n_with_reference"].sum())
    only = has_references and row.toggle(
        "Only possible hallucinations", key="unsaid", bind="query-params", help=nouns.HALLUCINATION
    )
    return resources.store().ask(PictureQueries).pictures(run["run_id"], lemmas, only_unreferenced=only)


def ranking(run: dict[str, Any], picture: dict[str, Any], noun: str) -> tuple[pd.DataFrame, Any, str]:
    """The noun's units by the chosen score, the one whose row is selected, and that score."""
    store = resources.store()
    method = filters.ranking_picker(store.score_methods(run["run_id"]))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        with st.container(width=215):
            most_general = filters.generality_picker()
        words_by = filters.words_picker()
    has_bottom = run["settings"].get("bottom_k", 0) > 0
    sign = "Top"
    if has_bottom:
        sign = st.segmented_control("Units", list(SIGNS), default="Top", required=True, key="sign")
    rows = store.ask(PictureQueries).ranked_units(
        run["run_id"],
        picture["image_id"],
        noun,
        method,
        sign=SIGNS[sign],
        words_by=words_by,
        most_general=most_general,
    )
    if rows.empty:
        hidden = "" if most_general is None else " that the filter of general units leaves"
        st.caption(f"This run kept no {plain(sign.lower())} of “{plain(noun)}” by {plain(method)}{hidden}.")
        return rows, None, method
    unit = unit_tables.ranked_table(rows, run, f"units-{picture['image_id'][:8]}-{noun}-{method}-{sign}")
    missing = "" if rows["tokens"].notna().any() else " What they write is known after " + widgets.annotate(run) + "."
    bottom = "" if has_bottom else " Suppressors were not kept (`--bottom-k`)."
    general = filters.told_generality(run, method)
    st.caption(f"Select a row to see where that unit looks. {general}{missing}{bottom}")
    return rows, unit, method


page()

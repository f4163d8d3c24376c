"""Which units write each noun of one picture's caption, and where in the picture do they look?"""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import (
    budget_panel,
    compared,
    filter_bar,
    filters,
    links,
    looks,
    nouns,
    picture_strip,
    resources,
    state,
    unit_sets,
    unit_tables,
    widgets,
)
from app.picture import mount, multiples, second, written_by
from app.text import plain
from mmn.store.pictures import PictureQueries
from mmn.view import View

SIGNS = {"Top": "top", "Suppressors": "bottom"}


def page() -> None:
    run = widgets.captioned_run()
    if run is None:
        widgets.no_runs()
        return
    found, asked = filtered(run)
    picture = picture_strip.chosen_picture(run, found)
    picture_strip.show(run, found, picture)
    if picture is None:
        return
    concepts = resources.store().ask(PictureQueries).concepts(run["run_id"], picture["image_id"])
    row = st.container(horizontal=True, gap="large")  # in a narrow window one below the other
    left, right = row.container(width=280), row.container(width="stretch")
    with right:
        nouns.caption(picture)
        compared.caption(picture)
        if concepts.empty:
            st.info(nouns.why_none(picture))
            with left:
                looks.show(run, picture, "", pd.DataFrame(columns=["layer", "unit", "iou"]), None)
            return
        said = nouns.pick(concepts)
        nouns.doubts(run["run_id"], picture["image_id"])
        ranked, unit, method = ranking(run, picture, said["noun"], asked)
    with left:
        looks.show(run, picture, said["noun"], ranked, unit)
        links.lens_link(run, picture["image_id"])
    token = mount.token_of_address()
    if token is not None:
        written_by.show(run, picture, token)
    multiples.show(run, picture, said["noun"], method, second.of_view(run))
    budget_panel.show(run, picture, concepts, said["noun"])


def filtered(run: dict[str, Any]) -> tuple[pd.DataFrame, View]:
    """The pictures that the filters leave, which are also the address, and how units are ranked."""
    concepts = resources.store().concepts(run["run_id"])
    methods = resources.store().score_methods(run["run_id"])
    filters.tidy_filters(run, methods, concepts)
    has_references = bool(concepts["n_with_reference"].sum())
    with filter_bar.bar():
        method = filters.ranking_picker(methods) if methods else ""
        lemmas = filters.concept_picker(concepts)
        most_general = filters.generality_picker()
        words_by = filters.words_picker()
        only = has_references and st.toggle(
            "Only possible hallucinations",
            value=state.usual("unsaid", False),
            key="unsaid",
            bind="query-params",
            help=nouns.HALLUCINATION,
        )
    found = resources.store().ask(PictureQueries).pictures(run["run_id"], lemmas, only_unreferenced=only)
    return found, View(run["run_id"], (method,), generality=most_general, words_by=words_by)


def ranking(run: dict[str, Any], picture: dict[str, Any], noun: str, asked: View) -> tuple[pd.DataFrame, Any, str]:
    """The noun's units by the chosen score, the one whose row is selected, and that score."""
    store = resources.store()
    (method,), most_general, words_by = asked.methods, asked.generality, asked.words_by
    filters.define(method)
    filters.tell_conserved(run, picture["image_id"], noun, method)
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
    unit_sets.save(run, rows, {"method": method, "noun": noun, "image": str(picture["image_id"])}, f"image-{sign}")
    missing = "" if rows["tokens"].notna().any() else " What they write is known after " + widgets.annotate(run) + "."
    bottom = "" if has_bottom else " Suppressors were not kept (`--bottom-k`)."
    general = filters.told_generality(run, method)
    st.caption(f"Select a row to see where that unit looks. {general}{missing}{bottom}")
    return rows, unit, method


page()

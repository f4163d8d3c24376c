"""The Neuron page: what a unit writes, how every score ranks it, its strongest pictures, the nouns that it serves."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
import streamlit as st

from app import charts, filters, links, looks, pictures, resources, state, unit_tables, widgets
from app.picture import mount
from app.text import plain
from mmn.core import Neuron, unit_name
from mmn.counts import counted
from mmn.figures.wording import clipped
from mmn.names import RAW
from mmn.statistics.interval_words import percent
from mmn.store.neurons import NeuronQueries, words_of
from mmn.store.rankings import d_experts
from mmn.view import View

N_PICTURES: Final = 12
HOW: Final = (
    "Point at an image token; click it to list the units that are active there. Ctrl and wheel zoom, Escape shows all."
)


def words(run: dict[str, Any], neuron: Neuron, known: dict[str, Any], rows: str) -> None:
    """Its ten tokens by these rows of W_U, and whether they pass P1's filter."""
    name = unit_name(neuron, d_experts(run))
    st.subheader(f"{plain(name)}: layer {neuron.layer} of 0–{int(run['n_layers']) - 1:d}")
    if known["tokens"] is None:
        st.info(f"It is not decoded yet. In a terminal: {widgets.annotate(run)}", icon=":material/translate:")
        return
    words = words_of(known, rows)
    if words is None:
        st.info(
            f"An earlier version decoded it by raw rows only. In a terminal: {widgets.annotate(run)}",
            icon=":material/translate:",
        )
        return
    said = "Interpretable" if words.is_interpretable else "Not interpretable"
    st.badge(
        f"{said} by {plain(rows)} rows",
        icon=":material/check:" if words.is_interpretable else ":material/question_mark:",
        color="green" if words.is_interpretable else "gray",
        help="Interpretable: at least 7 of its 10 tokens are English words of 3 letters or more (P1). Raw and centred "
        "rows name the same tokens.",
    )
    charts.show("tokens", View(run["run_id"], neuron=neuron, words_by="" if rows == RAW else rows))


def ranks(run: dict[str, Any], neuron: Neuron, methods: list[str]) -> None:
    """Its place under every score, and how general it is."""
    st.subheader("Rank under every score")
    found = resources.store().ask(NeuronQueries).ranks(run["run_id"], neuron)
    if found.empty:
        st.info(f"No score has {neuron} among the top {counted(filters.stored_k(run), 'unit')} of any noun.")
        return
    unit_tables.rank_table(found.set_index("method").reindex(methods).reset_index())
    st.caption(
        f"Kept: among a noun's top {filters.stored_k(run):,} of {counted(filters.n_units(run), 'unit')}; "
        f"{counted(run['n_concepts'], 'noun')} in all. {_by_chance(found)}"
    )
    leading = max(methods, key=lambda one: found.set_index("method")["generality"].get(one, 0.0))
    st.caption(filters.told_generality(run, leading, f", here by {plain(leading)}"))


def _by_chance(found: pd.DataFrame) -> str:
    """For how many nouns a unit is kept by chance, by the methods that it is for."""
    by_chance = {told: list(rows["method"]) for told, rows in found.groupby(found["chance"].dropna().map(_tenths))}
    if not by_chance:
        return "The number by chance is not known: different experts are awake at each noun."
    usual = max(by_chance, key=lambda told: len(by_chance[told]))
    others = [f", by {' and '.join(some)} for {told}" for told, some in by_chance.items() if told != usual]
    return f"By chance a unit is kept for {plain(usual)} of them{plain(''.join(others))}."


def _tenths(share: float) -> str:
    return percent(share, 1)


def strongest(run: dict[str, Any], neuron: Neuron, method: str) -> None:
    """The pictures for whose nouns it scores highest, under the map of where it looks."""
    st.subheader("Strongest pictures")
    found = resources.store().ask(NeuronQueries).pictures(run["run_id"], neuron, method, 3 * N_PICTURES)
    found = found.drop_duplicates("image_id").head(N_PICTURES)
    if found.empty:
        st.caption(f"{plain(method)} keeps it for no noun.")
        return
    notes = [f"{clipped(row.noun, 40)}, rank {row.rank:,}" for row in found.itertuples()]
    found = found.assign(note=notes)
    panels, n_known = looks.small_panels(run, neuron, found.to_dict("records"))
    clicked, token = mount.show(panels, "strongest", HOW) if n_known else (pictures.tiles(found, "strongest"), None)
    maps = (
        f"Bright: where {neuron} is most active, with a separate scale for each picture."
        if n_known
        else f"Its activations at image tokens are not stored ({widgets.annotate(run)})."
    )
    some = (
        " Pictures without a map: the unit is not among the noun's first units, so its activations were not stored."
        if 0 < n_known < len(found)
        else ""
    )
    what = "a title" if n_known else "one"
    st.caption(f"{counted(len(found), 'picture')}, by {plain(method)}; click {what} for its units. {maps}{some}")
    if clicked:
        links.go_to_image(clicked, str(found.set_index("image_id").loc[clicked, "noun"]), token)


def concepts(run: dict[str, Any], neuron: Neuron, method: str) -> None:
    """The nouns it serves, each with its pictures."""
    st.subheader("Nouns it serves")
    ks = state.k_options(filters.n_units(run), filters.stored_k(run))
    k = st.select_slider("Among the top k of a noun", ks, value=min(ks, key=lambda one: abs(one - 100)), key="among")
    found = resources.store().ask(NeuronQueries).concepts(run["run_id"], neuron, method, k)
    if found.empty:
        st.caption(f"It is among the top {k:,} of no noun by {plain(method)}.")
        return
    unit_tables.concept_table(found, run)

"""What does one unit write, for which pictures and nouns, and how does every score rank it?"""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import filter_bar, filters, resources, study_page, unit_panels, unit_sets
from app.text import sentence
from mmn.core import Neuron, named_unit
from mmn.errors import UsageError
from mmn.names import default_method
from mmn.store.neurons import NeuronQueries
from mmn.store.rankings import d_experts
from mmn.studies.scoring.layer_queries import LayerQueries


def page() -> None:
    run = study_page.chosen_run()
    filters.tidy_words()
    methods = resources.store().score_methods(run["run_id"])
    neuron = asked(run, methods)
    if neuron is None:
        return
    with filter_bar.bar():
        method = filters.ranking_picker(methods)
        words_by = filters.words_picker()
    filters.define(method)
    try:
        known = resources.store().ask(NeuronQueries).neuron(run["run_id"], neuron)
    except UsageError as error:
        st.info(sentence(error), icon=":material/search_off:")
        return
    row = st.container(horizontal=True, gap="large")  # in a narrow window one below the other
    with row.container(width=300):
        unit_panels.words(run, neuron, known, words_by)
        unit_sets.of_unit(run, neuron)
    with row.container(width="stretch"):
        unit_panels.ranks(run, neuron, methods)
    unit_panels.strongest(run, neuron, method)
    unit_panels.concepts(run, neuron, method)


def asked(run: dict[str, Any], methods: list[str]) -> Neuron | None:
    """The unit that was typed or linked to; at first the one that leads the rankings of most pictures."""
    text = st.text_input(
        "Unit",
        key="neuron",
        bind="query-params",
        placeholder="L5.u217",
        help="Layer and unit, both from 0; with experts L5.e3.u21, too",
        width=filters.WIDE,
    )
    if not text:
        best = resources.store().ask(LayerQueries).unit_rows(run["run_id"], default_method(methods), 1).iloc[0]
        st.caption("Suggested: first in the rankings of most pictures. Type any other.")
        return Neuron(int(best["layer"]), int(best["unit"]))
    try:
        return named_unit(text, d_experts(run))
    except UsageError as error:
        st.info(sentence(error), icon=":material/search_off:")
        return None


page()

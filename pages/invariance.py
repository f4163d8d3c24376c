"""Do the same units write a noun when the picture's places are shuffled, and in other pictures of it?"""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import experiments, invariance_charts, resources, widgets
from app.text import plain
from mmn.errors import UsageError
from mmn.studies.invariance.queries import CROSS_IMAGE, REGION, InvarianceQueries

VIEWS = {"Shuffled": REGION, "Across pictures": CROSS_IMAGE}
TOLD = {
    REGION: "The picture's image tokens are put in another order and it is captioned again. Here: which share of a "
    "noun's top units is among its top units then, too. The floor is what another noun of the same picture shares.",
    CROSS_IMAGE: "Several pictures whose captions share a noun, drawn at random. Here: which share of the noun's top "
    "units all of them have in common, beside random units in the same layers.",
}
NOTES = {
    REGION: "Captions and scores every picture again under each of five permutations of its image tokens: about five "
    "times as long as scoring the run.",
    CROSS_IMAGE: "Compares the rankings that the run has; no model is needed. Only nouns that the captions of at least "
    "five pictures say enter: a run of few pictures may have none.",
}


def page() -> None:
    run = widgets.chosen_run()
    if run is None:
        widgets.no_runs()
        return
    view = st.segmented_control(
        "What changes", list(VIEWS), default="Shuffled", required=True, key="view", bind="query-params"
    )
    kind = VIEWS[view]
    st.markdown(TOLD[kind])
    words = ["invariance", run["run_id"][:8], "--kind", kind]
    measured = resources.store().ask(InvarianceQueries).measured(run["run_id"])
    measured = measured[measured["kind"] == kind]
    if measured.empty:
        experiments.nothing_yet(run, words, "Measure", NOTES[kind])
        return
    concepts = resources.store().concepts(run["run_id"])
    widgets.tidy_filters(run, list(dict.fromkeys(measured["method"])), concepts)
    lemmas = widgets.concept_picker(concepts)
    show(run, kind, measured, lemmas)
    experiments.measure_again(run, words, NOTES[kind])


def show(run: dict[str, Any], kind: str, measured: Any, lemmas: list[str]) -> None:
    """The charts, or what the filters leave nothing of."""
    try:
        (invariance_charts.region if kind == REGION else invariance_charts.across)(run, measured, lemmas)
    except UsageError as error:
        st.info(f"{plain(error)}.", icon=":material/filter_alt_off:")


page()

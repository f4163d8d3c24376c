"""Does a noun's top unit write that noun alone? Its score for the picture's other nouns, and for other classes."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import experiments, resources, specificity_charts, widgets
from app.text import plain
from mmn.errors import UsageError
from mmn.studies.specificity.queries import SpecificityQueries

ALL, ONE, CLASSES = "All pictures", "One picture", "Classes"
TOLD = {
    ALL: "A noun's top unit is found on one picture and scored for every noun of another one that says it, too. A unit "
    "that is specific scores highest for its own noun there, and near 0 for the others. Chosen on the picture itself "
    "(P2), that holds by selection: see the null beside it.",
    ONE: "Rows: the unit of each noun of one caption. Columns: the nouns that it is scored for. A dark diagonal on a "
    "pale map means that each noun has a unit of its own, if it was found on another picture.",
    CLASSES: "Units found in most pictures of a class, and how active they are in held-out pictures of every class. "
    "A dark diagonal means units that know their class; random units show what is common to all pictures.",
}
NOTE = (
    "Reads each caption again and scores every noun's top unit of another picture, and the controls, for all nouns of "
    "the picture; then the activation of classes' units in held-out pictures. Less time than scoring the run."
)


def page() -> None:
    run = widgets.chosen_run()
    if run is None:
        widgets.no_runs()
        return
    words = ["specificity", run["run_id"][:8]]
    methods = resources.store().ask(SpecificityQueries).methods(run["run_id"])
    if not methods:
        st.markdown(TOLD[ALL])
        experiments.nothing_yet(run, words, "Measure", NOTE)
        return
    concepts = resources.store().concepts(run["run_id"])
    widgets.tidy_filters(run, methods, concepts)
    view = st.segmented_control(
        "Look at", [ALL, ONE, CLASSES], default=ALL, required=True, key="map", bind="query-params"
    )
    st.markdown(TOLD[view])
    lemmas = widgets.concept_picker(concepts)
    try:
        show(run, view, methods, lemmas)
    except UsageError as error:
        st.info(f"{plain(error)}.", icon=":material/filter_alt_off:")
    experiments.measure_again(run, words, NOTE)


def show(run: dict[str, Any], view: str, methods: list[str], lemmas: list[str]) -> None:
    """One of the three views."""
    if view == CLASSES:
        specificity_charts.classes(run, lemmas)
    elif view == ONE:
        specificity_charts.one_picture(run, methods, lemmas)
    else:
        specificity_charts.whole(run, methods, lemmas)


page()

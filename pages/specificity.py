"""Does a noun's top unit write only that noun? Its score for the picture's other nouns, and for other classes."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import filters, resources, specificity_charts, state, study_page
from mmn.studies.selectivity.queries import SelectivityQueries
from mmn.studies.specificity.queries import SpecificityQueries

ALL, ONE, CLASSES = "All pictures", "One picture", "Classes"
MAPS = {ALL: specificity_charts.whole, ONE: specificity_charts.one_picture, CLASSES: specificity_charts.classes}
INTRODUCTION = {
    ALL: "A noun's top unit is found on one picture and scored on another picture of the noun, for each noun "
    "there. A specific unit scores highest for its own noun and near 0 for the others. If the unit is chosen "
    "on the picture itself (P2), this holds by selection: compare it with the null beside it.",
    ONE: "Rows: the top unit of each noun of one caption. Columns: the nouns that it is scored for. A dark "
    "diagonal on a pale map means that each noun has a unit of its own, if the unit was found on another "
    "picture.",
    CLASSES: "Units found in most pictures of a class, and how active they are in held-out pictures of every "
    "class. A dark diagonal means that the units are specific to their class; random units show what all "
    "pictures have in common.",
}


def page() -> None:
    run = study_page.chosen_run()
    methods = resources.store().ask(SpecificityQueries).methods(run["run_id"])
    of_classes = resources.store().ask(SelectivityQueries).methods(run["run_id"])
    is_measured = bool(methods or of_classes)
    chosen = chosen_map(run, methods, of_classes) if is_measured else ALL
    st.markdown(INTRODUCTION[chosen])
    job = study_page.measurement("specificity")
    if is_measured or study_page.is_measured(run, job):
        study_page.guarded(lambda: MAPS[chosen](run, methods))
        study_page.measure_again(run, job)


def chosen_map(run: dict[str, Any], methods: list[str], of_classes: list[str]) -> str:
    """Classes alone where only a saved set was measured."""
    filters.tidy_filters(run, methods or of_classes, resources.store().concepts(run["run_id"]))
    views = list(MAPS) if methods else [CLASSES]
    state.tidy_address({"map": lambda text: text if text in views else None})
    if st.session_state.get("map", views[0]) not in views:  # chosen in another run
        del st.session_state["map"]
    return st.segmented_control("Look at", views, default=views[0], required=True, key="map", bind="query-params")


page()

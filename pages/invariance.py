"""Do the same units write a noun when the picture's places are shuffled, and in other pictures of it?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st

from app import charts, filter_bar, filters, invariance_tables, resources, state, study_page
from app.text import sentence
from mmn.errors import UsageError
from mmn.names import CROSS_IMAGE, REGION
from mmn.studies.invariance.queries import InvarianceQueries
from mmn.view import View

VIEWS = {"Shuffled": REGION, "Across pictures": CROSS_IMAGE}
INTRODUCTION = {
    REGION: "The picture's image tokens are put in another order and it is captioned again. Here: the share of a "
    "noun's top units that stay among its top units. The floor is the overlap with another noun of the "
    "same picture.",
    CROSS_IMAGE: "Several pictures whose captions share a noun are drawn at random. Here: the share of the noun's "
    "top units that all of them have in common, compared with random units in the same layers.",
}


def page() -> None:
    run = study_page.chosen_run()
    view = st.segmented_control(
        "What changes", list(VIEWS), default="Shuffled", required=True, key="view", bind="query-params"
    )
    kind = VIEWS[view]
    st.markdown(INTRODUCTION[kind])
    job = study_page.measurement("invariance", kind)
    if not study_page.is_measured(run, job):
        return
    measured = resources.store().ask(InvarianceQueries).measured(run["run_id"], kind)
    concepts = resources.store().concepts(run["run_id"])
    filters.tidy_filters(run, list(dict.fromkeys(measured["method"])), concepts)
    show = shuffled if kind == REGION else across
    study_page.guarded(lambda: show(run, measured, concepts))
    study_page.measure_again(run, job)


def shuffled(run: dict[str, Any], measured: pd.DataFrame, concepts: pd.DataFrame) -> None:
    """Curves against k, and at one k layers and concepts."""
    with filter_bar.bar(later=("ranking",)):
        methods = filters.methods_picker(list(dict.fromkeys(measured["method"])))
        lemmas = filters.concept_picker(concepts)
        layers = filters.leading_layers(run)
    view = View(run["run_id"], tuple(methods), concepts=tuple(lemmas), layers=layers)
    if not methods:
        st.info("Choose at least one score above.", icon=":material/tune:")
        return
    if view.layers is None:
        invariance_tables.survival(view)
    else:
        invariance_tables.survival_by_score(view)
    charts.show("invariance", view)
    st.subheader("At one k")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        method = filters.ranking_picker(methods)
        k = filters.one_k_picker(run, sorted(set(measured["k"].tolist())))
    filters.define(method)
    view = replace(view, methods=(method,), ks=(k,))
    charts.show("invariance-layers", view)
    figure = charts.show("invariance-concepts", view)
    invariance_tables.by_concept(run, figure.rows.data)


def across(run: dict[str, Any], measured: pd.DataFrame, concepts: pd.DataFrame) -> None:
    """The layers of the units that several pictures of a concept share, and the concepts one by one."""
    with filter_bar.bar():
        method = filters.ranking_picker(list(dict.fromkeys(measured["method"])))
        lemmas = filters.concept_picker(concepts)
        layers = filters.chosen_layers(run)
        rows = measured[measured["method"] == method]
        sizes = sorted(set(rows["n"].tolist()))
        state.usual("pictures", sizes[0])
        n = st.selectbox("Pictures of each concept", sizes, key="pictures", bind="query-params", width=filters.NARROW)
        k = filters.one_k_picker(run, sorted(set(rows.loc[rows["n"] == n, "k"].tolist())))
    filters.define(method)
    view = View(run["run_id"], (method,), (k,), concepts=tuple(lemmas), pictures=n, layers=layers)
    try:
        charts.show("cross-image-layers", view)
    except UsageError as error:  # an older version counted shared units without their layers
        st.info(sentence(error), icon=":material/update:")
    figure = charts.show("cross-image", view)
    invariance_tables.by_concept(run, figure.rows.data)


page()

"""Do the same units write a noun when the picture's places are shuffled, and in other pictures of it?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st

from app import charts, filters, invariance_tables, resources, study_page
from app.text import plain
from mmn.errors import UsageError
from mmn.names import CROSS_IMAGE, REGION
from mmn.studies.invariance.queries import InvarianceQueries
from mmn.view import View

VIEWS = {"Shuffled": REGION, "Across pictures": CROSS_IMAGE}
INTRODUCTION = {
    REGION: "The picture's image tokens are put in another order and it is captioned again. Here: which share of a "
    "noun's top units is among its top units then, too. The floor is what another noun of the same picture shares.",
    CROSS_IMAGE: "Several pictures whose captions share a noun, drawn at random. Here: which share of the noun's top "
    "units all of them have in common, beside random units in the same layers.",
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
    lemmas = tuple(filters.concept_picker(concepts))
    show = shuffled if kind == REGION else across
    study_page.guarded(lambda: show(run, measured, View(run["run_id"], concepts=lemmas)))
    study_page.measure_again(run, job)


def shuffled(run: dict[str, Any], measured: pd.DataFrame, view: View) -> None:
    """Curves against k, and at one k layers and concepts."""
    methods = filters.methods_picker(list(dict.fromkeys(measured["method"])))
    view = replace(view, methods=tuple(methods), layers=filters.leading_layers(run))
    if not methods:
        st.info("Choose at least one score above.", icon=":material/tune:")
        return
    if view.layers is None:
        invariance_tables.survival(view)
    else:
        invariance_tables.survival_by_score(view)
    charts.show("invariance", view)
    st.subheader("At one k")
    left, right = st.columns([3, 2])
    with left:
        method = filters.ranking_picker(methods)
    with right:
        k = filters.one_k_picker(run, sorted(set(measured["k"].tolist())))
    view = replace(view, methods=(method,), ks=(k,))
    charts.show("invariance-layers", view)
    figure = charts.show("invariance-concepts", view)
    invariance_tables.by_concept(run, figure.rows.data)


def across(run: dict[str, Any], measured: pd.DataFrame, view: View) -> None:
    """The layers of the units that several pictures of a concept share, and the concepts one by one."""
    left, middle, right = st.columns([3, 2, 2])
    with left:
        method = filters.ranking_picker(list(dict.fromkeys(measured["method"])))
    rows = measured[measured["method"] == method]
    sizes = sorted(set(rows["n"].tolist()))
    n = right.selectbox("Pictures of each concept", sizes, key="pictures", bind="query-params")
    with middle:
        k = filters.one_k_picker(run, sorted(set(rows.loc[rows["n"] == n, "k"].tolist())))
    view = replace(view, methods=(method,), ks=(k,), pictures=n, layers=filters.chosen_layers(run))
    try:
        charts.show("cross-image-layers", view)
    except UsageError as error:  # an older version counted shared units without their layers
        st.info(f"{plain(error)}.", icon=":material/update:")
    figure = charts.show("cross-image", view)
    invariance_tables.by_concept(run, figure.rows.data)


page()

"""Do a noun's top units write words that fit the picture? Every score and measure beside the shuffled pairing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from app import charts, filter_bar, filters, resources, state, study_page
from mmn.figures.wording import metric_words
from mmn.statistics.interval_words import TOO_FEW
from mmn.studies.sensitivity.queries import SensitivityQueries
from mmn.view import View

MOST_METHODS = 10  # each has a line of its own
INTRODUCTION = (
    "Each top unit writes some words. Here: how well they fit, by several measures, compared with the words of "
    "another picture's units (P1, table 1). Only the difference counts, because pictures of one collection have "
    "much in common."
)


def page() -> None:
    run = study_page.chosen_run()
    st.markdown(INTRODUCTION)
    job = study_page.measurement("sensitivity")
    if study_page.is_measured(run, job):
        view = chosen_view(run)
        if not view.methods or not view.metric:
            st.info(f"Choose at least one {'measure' if view.methods else 'score'} above.", icon=":material/tune:")
            return
        study_page.guarded(lambda: show(view))
        study_page.measure_again(run, job)


def chosen_view(run: dict[str, Any]) -> View:
    """The scores, measures, concepts and layers to look at, which are also the address."""
    methods, metrics = resources.store().ask(SensitivityQueries).measured(run["run_id"])
    concepts = resources.store().concepts(run["run_id"])
    filters.tidy_filters(run, methods, concepts)
    with filter_bar.bar():
        chosen = filters.methods_picker(methods, MOST_METHODS)
        lemmas = filters.concept_picker(concepts)
        layers = filters.leading_layers(run)
        by = measures_picker(metrics)
    return View(run["run_id"], tuple(chosen), metric=tuple(by), concepts=tuple(lemmas), layers=layers)


def measures_picker(metrics: Sequence[str]) -> list[str]:
    """The measures to show, at first all (`?metric=`), in words; an address may also name them as the tables do."""
    labels = {metric_words(metric): metric for metric in metrics}
    state.tidy_address({"metric": lambda text: next((one for one in labels if text in (one, labels[one])), None)})
    if any(label not in labels for label in st.session_state.get("metric", [])):
        del st.session_state["metric"]  # of another run
    usual = state.usual("metric", list(labels))
    chosen = st.multiselect(
        "Measures", list(labels), default=usual, key="metric", bind="query-params", wrap=True, width=2 * filters.WIDE
    )
    return [labels[label] for label in chosen]


def show(view: View) -> None:
    """A chart per measure, side by side where there is room, and the table."""
    figure = charts.drawn("sensitivity", view)
    charts.show_parts(figure, "measures")
    table(figure.rows.data)


def table(data: pd.DataFrame) -> None:
    """P1's table 1: score × measure, with intervals."""
    number = st.column_config.NumberColumn
    columns: dict[str, Any] = {
        "metric": st.column_config.TextColumn("Measure", width=190),
        "method": "Score",
        "value": number("Top units", format="%.4f"),
        "control": number("Another picture's", format="%.4f", help="Shuffled pairing of pictures and units"),
        "control_blank": number("Over grey", format="%.4f", help="The noun's top units over a grey picture"),
        "difference": number("Difference", format="%+.4f", help="The difference, pair by pair"),
        "difference_low": number("95 % from", format="%+.4f", help=f"95 % interval by picture. {TOO_FEW}"),
        "difference_high": number("to", format="%+.4f"),
        "is_discovery": st.column_config.CheckboxColumn("Survives", help="Benjamini–Hochberg, q = .05, of all rows"),
        "n_images": number("Pictures"),
        "n": number("Concepts"),
    }
    data = data.assign(metric=[metric_words(one) for one in data["metric"]]).sort_values("metric", kind="stable")
    shown = [name for name in columns if name != "control_blank" or data[name].notna().any()]
    st.dataframe(data, hide_index=True, placeholder="–", column_order=shown, column_config=columns)


page()

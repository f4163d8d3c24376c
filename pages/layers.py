"""In which layers do the neurons lie that write the caption's nouns? Distinct top units per layer, for several k."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import resources, state, widgets
from mmn.figures.layers import layer_distribution
from mmn.figures.wording import k_text
from mmn.names import RANDOM

QUANTITIES = {"count": "n_units", "share": "share"}


def page() -> None:
    st.title("Layers")
    run = widgets.chosen_run()
    if run is None:
        no_runs()
        return
    st.markdown(
        "Each picture ranks all units by how much they push its caption's nouns. "
        "Here: how many different units of each layer are in the top k of at least one picture."
    )
    methods, ks, lemmas, layers, quantity, is_control_shown = filters(run)
    if not methods or not ks:
        st.info(f"Choose at least one {'method' if not methods else 'k'} above.", icon=":material/tune:")
        return
    asked = [*methods, *([RANDOM] if is_control_shown and RANDOM not in methods else [])]
    data = resources.store().layer_distribution(run["run_id"], asked, ks, lemmas, layers)
    y_max = float(data[QUANTITIES[quantity]].max())
    for method in methods:
        rows = data[data["method"].isin([method, RANDOM] if is_control_shown else [method])]
        panel(run, method, rows, lemmas, QUANTITIES[quantity], y_max)


def no_runs() -> None:
    st.info(
        "Nothing has been scored yet. The Score page scores the bundled gallery with the bundled model in a few "
        "minutes, or your own pictures with your own model.",
        icon=":material/inbox:",
    )
    st.page_link(resources.ROOT / "pages" / "score.py", label="Score pictures", icon=":material/play_circle:")
    st.caption("From a terminal: `python -m mmn score --model specimen --images gallery`")


def filters(run: dict[str, Any]) -> tuple[list[str], list[int], list[str], tuple[int, int], str, bool]:
    """The filters, which are also the address."""
    stored = resources.store().score_methods(run["run_id"])
    scores = [method for method in stored if method != RANDOM] or stored
    concepts = resources.store().concepts(run["run_id"])
    widgets.tidy_filters(run, scores, concepts)
    top = st.columns([2, 3, 3])
    with top[0]:
        methods = widgets.method_picker(scores)
    with top[1]:
        ks = widgets.k_picker(run)
    with top[2]:
        lemmas = widgets.concept_picker(concepts)
    below = st.columns([3, 2, 3], vertical_alignment="bottom")
    with below[0]:
        layers = widgets.layer_picker(run["n_layers"])
    quantity = below[1].segmented_control(
        "Show", list(QUANTITIES), default="count", required=True, key="show", bind="query-params"
    )
    has_control = RANDOM in stored and scores != [RANDOM]
    is_shown = has_control and below[2].toggle("Random control", value=True, key="control", bind="query-params")
    return methods, ks, lemmas, layers, quantity, is_shown


def panel(run: dict[str, Any], method: str, rows: pd.DataFrame, lemmas: list[str], quantity: str, y_max: float) -> None:
    """One method's chart, its export, and the units behind the bar that was clicked."""
    subset = f"concepts: {', '.join(lemmas)}" if lemmas else "all concepts"
    ranked = resources.store().layer_counts_per_image(run["run_id"], method, int(rows["k"].max()), lemmas)
    counted = run | {"n_images": ranked["image_id"].nunique()}  # the pictures that enter, not all that were scored
    chart = layer_distribution(rows, counted, subset, quantity, y_max)
    points = widgets.show_chart(chart, f"chart-{method}", "layer")
    clicked = [point for point in points if is_drawn(point, rows)]
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption("" if clicked else "Click a bar to list that layer's units.", width="content")
        widgets.export_control(chart, rows, f"{run['run_id'][:8]}-layers-{method}")
    for point in clicked:
        units(run, method, int(point["k"]), int(point["layer"]), lemmas)


def is_drawn(point: dict[str, Any], rows: pd.DataFrame) -> bool:
    """Whether a clicked bar is still among the rows: the filters may have changed since."""
    return bool(((rows["k"] == point["k"]) & (rows["layer"] == point["layer"])).any())


def units(run: dict[str, Any], method: str, k: int, layer: int, lemmas: list[str]) -> None:
    rows = resources.store().unit_rows(run["run_id"], method, k, layer, lemmas)
    cap = ", the first 500 by rank" if len(rows) == 500 else ""
    st.subheader(f"Layer {layer}: {state.count(len(rows), 'unit')}{cap}")
    st.caption(f"{method}, k = {k_text(k, widgets.n_units(run))}, {', '.join(lemmas) or 'all concepts'}")
    st.dataframe(
        rows.assign(neuron=[f"L{row.layer}.u{row.unit}" for row in rows.itertuples()]),
        hide_index=True,
        column_order=["neuron", "best_rank", "n_images", "n_concepts", "mean_score", "max_score"],
        column_config={
            "neuron": st.column_config.TextColumn("Unit", help="Layer and unit, both from 0"),
            "best_rank": st.column_config.NumberColumn("Best rank", help="Its highest place in any picture's ranking"),
            "n_images": st.column_config.NumberColumn("Pictures", help="Pictures that have it in their top k"),
            "n_concepts": st.column_config.NumberColumn("Concepts", help="Nouns whose own top k has it"),
            "mean_score": st.column_config.NumberColumn("Mean score", format="%.3g"),
            "max_score": st.column_config.NumberColumn("Highest score", format="%.3g"),
        },
    )


page()

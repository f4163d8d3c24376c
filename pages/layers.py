"""In which layers do the units lie that write the captions' nouns? A chart per score, for several k."""

from __future__ import annotations

from typing import Any, Final

import streamlit as st

from app import charts, comparison, filter_bar, filters, overlaps, resources, state, study_page, unit_tables
from mmn.figures.figure import Drawn
from mmn.names import RANDOM, RAW
from mmn.view import QUANTITIES, SPELLINGS, UNITS, View

INTRODUCTION: Final = (
    "For each picture, all units are ranked by how much they push its caption's nouns. Here: how many of its top k "
    "units each layer holds, or how many distinct units over all pictures."
)
SHOW_HELP: Final = (
    "Per picture: units of the top k in each layer, mean over pictures. Distinct: units in the top k of at least "
    "one picture (P1, P2); a unit that is a top unit of many pictures counts once, so layers with few, common "
    "units look small. Share: of the distinct units of all layers."
)


def page() -> None:
    run = study_page.chosen_run()
    st.markdown(INTRODUCTION)
    view = chosen_view(run)
    if not view.methods or not view.ks:
        st.info(f"Choose at least one {'method' if not view.methods else 'k'} above.", icon=":material/tune:")
        return
    for method, part in charts.drawn("layers", view).parts(RANDOM):
        panel(run, method, part)
    overlaps.show(run, view)
    comparison.show(run, resources.store().score_methods(run["run_id"]), view)


def chosen_view(run: dict[str, Any]) -> View:
    """What is counted and how it is shown, which is also the address."""
    stored = resources.store().score_methods(run["run_id"])
    scores = [method for method in stored if method != RANDOM] or stored
    concepts = resources.store().concepts(run["run_id"])
    state.tidy_address({"show": _quantity})
    filters.tidy_filters(run, scores, concepts)
    has_control = RANDOM in stored and scores != [RANDOM]
    with filter_bar.bar():
        methods = filters.method_picker(scores)
        lemmas = filters.concept_picker(concepts)
        layers = filters.chosen_layers(run, "Layers to show. Shares remain shares of all layers.")
        most_general = filters.generality_picker()
        ks = filters.k_picker(run)
        quantity = shown_picker()
        words_by = filters.words_picker()
        kind = filters.kind_picker(run, [one.replace("-", " ") for one in UNITS])
        is_shown = not has_control or st.toggle(
            "Random control", value=state.usual("control", True), key="control", bind="query-params"
        )
    return View(
        run["run_id"],
        tuple(methods),
        tuple(ks),
        concepts=tuple(lemmas),
        layers=layers,
        quantity=SPELLINGS["quantity"].kind.read(quantity),
        units=SPELLINGS["units"].kind.read(kind),
        generality=most_general,
        words_by="" if words_by == RAW else words_by,
        control=is_shown,
    )


def shown_picker() -> str:
    """What of the top units is counted (`?show=`)."""
    quantities = [one.replace("-", " ") for one in QUANTITIES]
    usual = state.usual("show", quantities[0])
    return st.segmented_control(
        "Show", quantities, default=usual, required=True, key="show", bind="query-params", help=SHOW_HELP
    )


def _quantity(text: str) -> str | None:
    """What a written `show` means; `count`, as it was called, is `distinct`."""
    return View.from_address({"show": [text]}).quantity.replace("-", " ") or None


def panel(run: dict[str, Any], method: str, figure: Drawn) -> None:
    """One method's chart, its export, and the units behind the bar that was clicked."""
    clicked = charts.show_clickable(figure, f"chart-{method}")
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption("" if clicked else "Click a bar to list that layer's units.", width="content")
        charts.export_control(figure)
    for bar in clicked:
        unit_tables.layer_table(run, bar)


page()

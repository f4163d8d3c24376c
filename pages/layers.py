"""In which layers do the neurons lie that write the caption's nouns? Distinct top units per layer, for several k."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from app import comparison, overlaps, resources, state, unit_tables, widgets
from mmn.names import RANDOM
from mmn.studies.scoring.layer_figures import QUANTITIES, highest, layer_distribution
from mmn.studies.scoring.layer_queries import LayerQueries

TOLD = (
    "Each picture ranks all units by how much they push its caption's nouns. Here: how many of its top k each layer "
    "holds, or how many different ones all pictures together."
)
SHOW_HELP = (
    "Per picture: of a picture's top k, the mean over pictures. Distinct: units in the top k of at least one picture "
    "(P1, P2); a unit that is on top for many counts once, so layers of few, common units look small. Share: of the "
    "distinct units of all layers."
)
KINDS = {"all": None, "interpretable": True, "not interpretable": False}


@dataclass(frozen=True)
class Filters:
    """What is counted, and how it is shown."""

    methods: list[str]
    ks: list[int]
    lemmas: list[str]
    layers: tuple[int, int]
    quantity: str
    is_control_shown: bool
    kind: str

    @property
    def subset(self) -> str:
        """The counted concepts and units in words."""
        said = f"concepts: {', '.join(self.lemmas)}" if self.lemmas else "all concepts"
        return said if KINDS[self.kind] is None else f"{said}, {self.kind} units only"


def page() -> None:
    run = widgets.chosen_run()
    if run is None:
        widgets.no_runs()
        return
    st.markdown(TOLD)
    chosen = filters(run)
    if not chosen.methods or not chosen.ks:
        st.info(f"Choose at least one {'method' if not chosen.methods else 'k'} above.", icon=":material/tune:")
        return
    methods = chosen.methods
    asked = [*methods, *([RANDOM] if chosen.is_control_shown and RANDOM not in methods else [])]
    data = (
        resources.store()
        .ask(LayerQueries)
        .distribution(run["run_id"], asked, chosen.ks, chosen.lemmas, chosen.layers, interpretable=KINDS[chosen.kind])
    )
    y_max = highest(data, run["d_mlp"], chosen.quantity)
    for method in methods:
        panel(
            run,
            method,
            data[data["method"].isin([method, RANDOM] if chosen.is_control_shown else [method])],
            chosen,
            y_max,
        )
    overlaps.show(run)
    comparison.show(run, resources.store().score_methods(run["run_id"]), chosen.lemmas)


def filters(run: dict[str, Any]) -> Filters:
    """The filters, which are also the address."""
    stored = resources.store().score_methods(run["run_id"])
    scores = [method for method in stored if method != RANDOM] or stored
    concepts = resources.store().concepts(run["run_id"])
    state.tidy_address({"show": _quantity})
    widgets.tidy_filters(run, scores, concepts)
    top = st.container(horizontal=True)  # wraps where columns would cut off
    with top.container(width=260):
        methods = widgets.method_picker(scores)
    with top.container(width=310):
        ks = widgets.k_picker(run)
    with top.container(width=215):
        lemmas = widgets.concept_picker(concepts)
    has_control = RANDOM in stored and scores != [RANDOM]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        with st.container(width=300):
            layers = widgets.layer_picker(run["n_layers"], "Layers to show. Shares stay shares of all layers.")
        quantity = st.segmented_control(
            "Show",
            list(QUANTITIES),
            default=next(iter(QUANTITIES)),
            required=True,
            key="show",
            bind="query-params",
            help=SHOW_HELP,
        )
        kind = widgets.kind_picker(run, list(KINDS))
        is_shown = has_control and st.toggle("Random control", value=True, key="control", bind="query-params")
    return Filters(methods, ks, lemmas, layers, QUANTITIES[quantity], is_shown, kind)


def _quantity(text: str) -> str | None:
    """What a written `show` means; `count`, as it was called, is `distinct`."""
    name = {"count": "distinct"}.get(text, text)
    return name if name in QUANTITIES else None


def panel(run: dict[str, Any], method: str, rows: pd.DataFrame, chosen: Filters, y_max: float) -> None:
    """One method's chart, its export, and the units behind the bar that was clicked."""
    chart = layer_distribution(rows, run, chosen.subset, chosen.quantity, y_max)
    points = widgets.show_chart(chart, f"chart-{method}", "layer")
    clicked = [point for point in points if is_drawn(point, rows)]
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption("" if clicked else "Click a bar to list that layer's units.", width="content")
        widgets.export_control(chart, rows, f"{run['run_id'][:8]}-layers-{method}")
    for point in clicked:
        place = (int(point["k"]), int(point["layer"]))
        unit_tables.layer_table(run, method, *place, chosen.lemmas, KINDS[chosen.kind])


def is_drawn(point: dict[str, Any], rows: pd.DataFrame) -> bool:
    """Whether a clicked bar is still among the rows: the filters may have changed since."""
    return bool(((rows["k"] == point["k"]) & (rows["layer"] == point["layer"])).any())


page()

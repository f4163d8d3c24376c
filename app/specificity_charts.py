"""The Specificity page's three views: all pictures, one picture, classes of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pandas as pd
import streamlit as st

from app import charts, filter_bar, filters, links, pictures, resources, state, unit_tables
from app.text import plain
from mmn.errors import UsageError
from mmn.figures.figure import Drawn
from mmn.names import HELD_OUT, default_method
from mmn.store.pictures import PictureQueries
from mmn.studies.selectivity.queries import SelectivityQueries
from mmn.studies.specificity.queries import SpecificityQueries
from mmn.studies.specificity.rows import MOST, SELECTIONS
from mmn.view import View

SIZES: Final = (6, 8, 10, 12, 16, 20, 30)  # concepts of the large heat map
FOUND: Final = {"Found on another picture": "another", "Chosen on this picture (P2)": "same"}


def whole(run: dict[str, Any], methods: Sequence[str]) -> None:
    """Means over pictures: every score's summary, and the heat map of one score's concepts."""
    with filter_bar.bar():
        method = filters.ranking_picker(methods)
        view = _of_all(run)
        view = replace(view, layers=filters.chosen_layers(run))
        found_on = _found_picker(run["run_id"])
        most = _most_picker()
        is_control = _control_toggle()
    highest, shares = charts.drawn("specificity-highest", view), charts.drawn("specificity-summary", view)
    st.markdown(_headline(highest.rows.data, methods))
    with charts.grid("specificity"):
        for figure in (highest, shares):
            with st.container():
                charts.show_drawn(figure)
    filters.define(method)
    figure = charts.drawn("specificity", replace(view, methods=(method,), most=most, found_on=found_on))
    charts.show_drawn(_side(figure, is_control))


def one_picture(run: dict[str, Any], methods: Sequence[str]) -> None:
    """The heat map of P2's figure 5, and the way to its units."""
    with filter_bar.bar():
        method = filters.ranking_picker(methods)
        view = _of_all(run)
        layers = filters.chosen_layers(run)
        found_on = _found_picker(run["run_id"])
        is_control = _control_toggle()
    filters.define(method)
    image_id = _picture_picker(view, method, found_on)
    chosen = View(view.run, (method,), layers=layers, image=image_id, found_on=found_on)
    figure = charts.drawn("specificity", chosen)
    picture = resources.store().ask(PictureQueries).picture(view.run, image_id)
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.container(width=120):
            clicked = pictures.tiles(pd.DataFrame([picture]), "specific")
        st.markdown(f"“{plain(picture['text'])}”  \nClick the picture for all its units.")
    if clicked:
        links.go_to_image(clicked, str(figure.rows.data["noun"].iloc[0]))
    _picture_map(run, _side(figure, is_control))


def classes(run: dict[str, Any], _methods: Sequence[str]) -> None:
    """P1's figure S.2: whose units are active in whose pictures, beside random units."""
    methods = resources.store().ask(SelectivityQueries).methods(run["run_id"])
    if not methods:
        st.info(
            "No class was measured: a class needs enough pictures whose captions say its noun, and a complete run.",
            icon=":material/inbox:",
        )
        return
    with filter_bar.bar():
        method = filters.ranking_picker(methods)
        view = _of_all(run)
        most = _most_picker()
    filters.define(method)
    figure = charts.drawn("selectivity", replace(view, methods=(method,), most=most))
    with charts.grid("classes"):
        for is_control, part in figure.parts():
            with st.container():
                st.markdown(f"**{'Random units of the same layers' if is_control else 'Units of the classes'}**")
                charts.show_plain(part)
    with st.container(horizontal=True, horizontal_alignment="right"):
        charts.export_control(figure)


def _of_all(run: dict[str, Any]) -> View:
    """The concepts to look at."""
    concepts = filters.concept_picker(resources.store().concepts(run["run_id"]))
    return View(run["run_id"], concepts=tuple(concepts))


def _picture_map(run: dict[str, Any], figure: Drawn) -> None:
    """The map, the way from a clicked cell to its unit, and a table of the units."""
    clicked = charts.show_clickable(figure)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption("" if clicked else "Click a cell to open its unit.", width="content")
        charts.export_control(figure)
    if clicked and clicked[0].neuron:
        links.neuron_link(run, clicked[0].neuron)
    data = figure.rows.data
    units = data[data["unit_noun"] == data["noun"]]
    shown = unit_tables.with_links(units, run).assign(writes=[unit_tables.tokens_text(t) for t in units["tokens"]])
    columns = {
        "neuron": unit_tables.unit_column(),
        "unit_noun": "Noun",
        "score": st.column_config.NumberColumn("Score for it", format="%.3g"),
        "writes": st.column_config.TextColumn("Writes", help="The ten tokens that it raises most"),
    }
    order = [name for name in columns if name != "writes" or (shown["writes"] != "").any()]
    st.dataframe(shown, hide_index=True, placeholder="–", column_order=order, column_config=columns)


def _side(figure: Drawn, is_control: bool) -> Drawn:
    """The figure of the units alone, or of their control.

    Raises:
        UsageError: the filters leave nothing of that side.
    """
    side = figure.where("is_control", is_control)
    if side.rows.data.empty:
        raise UsageError(f"there are no {'control' if is_control else 'units'} under these filters: choose others")
    return side


def _headline(data: pd.DataFrame, methods: Sequence[str]) -> str:
    """How often held-out units score highest for their noun; what to do where none were measured."""
    method = default_method(methods)
    of = data[(data["selection"] == HELD_OUT) & (data["method"] == method)].set_index("is_control")
    if not {False, True} <= set(of.index):
        return (
            "**Only units chosen on the picture itself were measured**: they score highest for their own noun by "
            "selection. Measure again below to find units on other pictures of the noun."
        )
    found, random = (f"{100 * of.loc[is_control, 'share']:.1f} %" for is_control in (False, True))
    return (
        f"Found on another picture of the noun, **{found}** of the top units by {plain(method)} score highest for "
        f"that noun here, too; random units of their layers: {random}."
    )


def _picture_picker(view: View, method: str, found_on: str) -> str:
    """One of the pictures that say the chosen concepts (`?picture=`); returns its id.

    Raises:
        UsageError: there is none.
    """
    queries = resources.store().ask(SpecificityQueries)
    found = queries.pictures(view.run, method, view.concepts, SELECTIONS[found_on])
    if found.empty:
        raise UsageError("No picture fits these filters")
    labels = {f"{row.text} · {row.image_id[: links.ID_LENGTH]}": row.image_id for row in found.itertuples()}
    if st.session_state.get("picture") not in (None, *labels):
        del st.session_state["picture"]  # the filters have changed
    state.tidy_address({"picture": lambda text: next((one for one in labels if text[-12:] in one), None)})
    return labels[
        st.selectbox("Picture, those of the most nouns first", list(labels), key="picture", bind="query-params")
    ]


def _found_picker(run_id: str) -> str:
    """The picture that the map's units were found on; none to choose where one kind alone was measured."""
    there = resources.store().ask(SpecificityQueries).selections(run_id)
    shown = {label: found for label, found in FOUND.items() if SELECTIONS[found] in there}
    if len(shown) == 1:
        return next(iter(shown.values()))
    usual = next(iter(shown))
    return shown[
        st.segmented_control(
            "Units", list(shown), default=state.usual("found", usual), required=True, key="found", bind="query-params"
        )
    ]


def _most_picker() -> int:
    usual = state.usual("concepts", MOST)
    told = "Concepts, the most frequent"
    return st.select_slider(told, SIZES, value=usual, key="concepts", bind="query-params", width=filters.NARROW)


def _control_toggle() -> bool:
    """Whether the control is to be shown in place of the units."""
    told = (
        "For units found on another picture: random units of their layers. For units chosen on this picture: the "
        "same choice after unit identities are shuffled within layers"
    )
    return st.toggle("Control", value=state.usual("chance", False), key="chance", bind="query-params", help=told)

"""The Specificity page's three views: all pictures, one picture, classes of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pandas as pd
import streamlit as st

from app import experiments, links, pictures, resources, state, unit_tables, widgets
from app.text import plain
from mmn.core import Neuron
from mmn.figures.wording import in_layers
from mmn.names import HELD_OUT, SAME_PICTURE, default_method
from mmn.store.pictures import PictureQueries
from mmn.studies.specificity.figures import (
    highest_for_own_noun,
    selectivity,
    specificity_by_concept,
    specificity_of_picture,
    specificity_summary,
)
from mmn.studies.specificity.queries import SpecificityQueries

SIZES: Final = (6, 8, 10, 12, 16, 20, 30)  # nouns of the large heat map
ANOTHER, THIS = "Found on another picture", "Chosen on this picture (P2)"
PICKED: Final = {ANOTHER: HELD_OUT, THIS: SAME_PICTURE}
PANEL: Final = 380  # pixels that a chart beside another has at least; in a narrow window they go below each other


def whole(run: dict[str, Any], methods: Sequence[str], lemmas: Sequence[str]) -> None:
    """Means over pictures: every score's summary, and the heat map of one score's concepts."""
    store, run_id = resources.store(), run["run_id"]
    with st.columns([2, 1])[0]:
        layers = experiments.chosen_layers(run)
    said = experiments.subset(lemmas, layers)
    counted = run | {"n_of_one_picture": store.ask(SpecificityQueries).nouns_of_one_picture(run_id, lemmas)}
    highest = store.ask(SpecificityQueries).highest_for_own_noun(run_id, methods, lemmas, layers)
    shares = store.ask(SpecificityQueries).summary(run_id, methods, lemmas, layers)
    st.markdown(_headline(highest, methods))
    charts = {
        "highest": (highest, highest_for_own_noun(highest, counted, said)),
        "specificity-summary": (shares, specificity_summary(shares, counted, said)),
    }
    with widgets.grid("specificity"):
        for name, (data, chart) in charts.items():
            with st.container():
                widgets.show_figure(chart, data, f"{run_id[:8]}-{name}", _tall(shares), PANEL)
    selection = _selection_picker(run_id)
    left, middle, right = st.columns([4, 3, 3])
    with left:
        method = widgets.ranking_picker(methods)
    with middle:
        most = _most_picker()
    with right:
        is_control = _control_toggle()
    data = store.ask(SpecificityQueries).by_concept(run_id, method, most, lemmas, layers, selection)
    data = data[data["is_control"] == is_control]
    enter = store.ask(SpecificityQueries).summary(run_id, [method], lemmas, layers).set_index("selection")["n_images"]
    chart = specificity_by_concept(data, run | {"n_images": enter.loc[[selection]].max()}, method, said, selection)
    name = f"{run_id[:8]}-specificity-{selection}-{method}" + ("-control" if is_control else "")
    widgets.show_figure(chart, data, name, 230 + (34 if most <= 12 else 22) * data["unit_lemma"].nunique())


def one_picture(run: dict[str, Any], methods: Sequence[str], lemmas: Sequence[str]) -> None:
    """The heat map of P2's figure 5, and the way to its units."""
    left, right = st.columns([5, 3], vertical_alignment="center")
    with left:
        method = widgets.ranking_picker(methods)
    with right:
        is_control = _control_toggle()
    layers = experiments.chosen_layers(run)
    selection = _selection_picker(run["run_id"])
    found = resources.store().ask(SpecificityQueries).pictures(run["run_id"], method, lemmas, selection)
    if found.empty:
        st.info("No picture fits these filters.", icon=":material/filter_alt_off:")
        return
    labels = {f"{row.text} · {row.image_id[: links.ID_LENGTH]}": row.image_id for row in found.itertuples()}
    if st.session_state.get("picture") not in (None, *labels):
        del st.session_state["picture"]  # the filters have changed
    state.tidy_address({"picture": lambda text: next((one for one in labels if text[-12:] in one), None)})
    chosen = st.selectbox("Picture, those of the most nouns first", list(labels), key="picture", bind="query-params")
    picture = resources.store().ask(PictureQueries).picture(run["run_id"], labels[chosen])
    data = (
        resources.store()
        .ask(SpecificityQueries)
        .of_picture(run["run_id"], picture["image_id"], method, layers, selection)
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.container(width=120):
            clicked = pictures.tiles(pd.DataFrame([picture]), "specific")
        st.markdown(f"“{plain(picture['text'])}”  \nClick the picture for all its units.")
    if clicked:
        links.go_to_image(clicked, str(data["noun"].iloc[0]))
    _picture_map(run, method, picture, data[data["is_control"] == is_control], layers)


def _picture_map(
    run: dict[str, Any], method: str, picture: dict[str, Any], data: pd.DataFrame, layers: tuple[int, int] | None
) -> None:
    of = f"picture {picture['image_id'][:8]}, “{state.clipped(picture['text'], 60)}”{in_layers(layers)}"
    chart = specificity_of_picture(data, run, method, of)
    name = f"{run['run_id'][:8]}-{picture['image_id'][:8]}-specificity-{method}"
    points = widgets.show_chart(chart, f"map-{name}", "unit", 230 + 34 * data["unit_noun"].nunique())
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption("" if points else "Click a cell to open its unit.", width="content")
        widgets.export_control(chart, data, name)
    for point in list(points)[:1]:
        links.neuron_link(run, Neuron(int(point["layer"]), int(point["unit"])))
    units = data[data["unit_noun"] == data["noun"]]
    shown = unit_tables.with_links(units, run).assign(writes=[unit_tables.tokens_text(t) for t in units["tokens"]])
    columns = {
        "neuron": unit_tables.unit_column(),
        "unit_noun": "Noun",
        "score": st.column_config.NumberColumn("Score for it", format="%.3g"),
        "writes": st.column_config.TextColumn("Writes", help="The ten tokens that it raises most"),
    }
    order = [name for name in columns if name != "writes" or (shown["writes"] != "").any()]
    st.dataframe(shown, hide_index=True, column_order=order, column_config=columns)


def classes(run: dict[str, Any], lemmas: Sequence[str]) -> None:
    """P1's figure S.2: whose units are active in whose pictures, beside random units."""
    methods = resources.store().ask(SpecificityQueries).selectivity_methods(run["run_id"])
    if not methods:
        st.info(
            "No class was measured: a class needs enough pictures whose captions say its noun, and the run must be "
            "complete.",
            icon=":material/inbox:",
        )
        return
    left, right = st.columns(2)
    with left:
        method = widgets.ranking_picker(methods)
    with right:
        most = _most_picker()
    data = resources.store().ask(SpecificityQueries).selectivity(run["run_id"], method, most, lemmas)
    sides = [data[data["is_control"] == is_control] for is_control in (False, True)]
    name = f"{run['run_id'][:8]}-selectivity-{method}"
    with widgets.grid("classes"):
        for rows, words in zip(sides, ("Units of the classes", "Random units of the same layers"), strict=True):
            with st.container():
                st.markdown(f"**{words}**")
                height = 280 + (30 if most <= 12 else 20) * rows["unit_noun"].nunique()
                widgets.show_plain(selectivity(rows, run, method), f"{name}-{words[:1]}", height, PANEL)
    with st.container(horizontal=True, horizontal_alignment="right"):
        widgets.export_control(selectivity(data, run, method), data, name)


def _headline(data: pd.DataFrame, methods: Sequence[str]) -> str:
    """What the held-out units say, in a sentence; what to do where none were measured."""
    method = default_method(methods)
    of = data[(data["selection"] == HELD_OUT) & (data["method"] == method)].set_index("is_control")
    if not {False, True} <= set(of.index):
        return (
            "**Only units chosen on the picture itself were measured**: that their own noun is their highest holds by "
            "selection. Measure again below to find them on other pictures of the noun."
        )
    found, random = (f"{100 * of.loc[is_control, 'share']:.1f} %" for is_control in (False, True))
    return (
        f"Found on another picture of the noun, **{found}** of the top units by {plain(method)} score highest for "
        f"that noun here, too; random units of their layers: {random}."
    )


def _selection_picker(run_id: str) -> str:
    """The picture that the map's units were found on; none to choose where one kind alone was measured."""
    there = resources.store().ask(SpecificityQueries).selections(run_id)
    shown = {label: selection for label, selection in PICKED.items() if selection in there}
    if len(shown) == 1:
        return next(iter(shown.values()))
    return shown[
        st.segmented_control("Units", list(shown), default=ANOTHER, required=True, key="found", bind="query-params")
    ]


def _most_picker() -> int:
    return st.select_slider("Concepts, the most frequent", SIZES, value=12, key="concepts", bind="query-params")


def _control_toggle() -> bool:
    """Whether the control is to be shown in place of the units."""
    told = (
        "In place of units found on another picture: random units of their layers. In place of those chosen on this "
        "one: what the same choice gives once unit identities are shuffled within layers"
    )
    return st.toggle("Control", key="chance", bind="query-params", help=told)


def _tall(data: pd.DataFrame) -> int:
    """Pixels of a chart with lines for each score."""
    return 300 + 14 * len(data)

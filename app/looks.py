"""The Image page's picture: plain, or under the map of where the chosen unit, or the top units together, look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import streamlit as st

from app import links, pictures, resources, state, widgets
from app.picture import mount, said
from app.picture.panels import Panel, Places
from app.text import plain
from mmn.core import Neuron
from mmn.counts import counted
from mmn.errors import ImageError
from mmn.models.geometry import Grids
from mmn.store.neurons import NeuronQueries, UnitLook
from mmn.store.pictures import PictureQueries
from mmn.units.heat_maps import OPACITY, PERCENTILE

MOST_AVERAGED: Final = 10
SMALL_SIDE: Final = 152  # pixels, five in a row of a window of 1280
_OVERLAPS: Final = {"iou": "with “NOUN”", "iou_other": "with other objects", "iou_random": "random units"}


def show(run: dict[str, Any], picture: dict[str, Any], noun: str, ranked: pd.DataFrame, chosen: Neuron | None) -> None:
    """Draws the picture of `PictureQueries.picture`, and the controls of its overlay.

    Args:
        run: its row.
        picture: its row.
        noun: whose units are ranked.
        ranked: `PictureQueries.ranked_units`, best first.
        chosen: the unit selected in their table; without one the top units are averaged.
    """
    place = st.container()
    try:
        image = pictures.displayed(picture["source"], picture["image_id"])
    except ImageError as error:
        place.info(f"The picture cannot be shown: {plain(error)}", icon=":material/broken_image:")
        return
    units = [Neuron(int(row.layer), int(row.unit)) for row in ranked.itertuples()]
    found = resources.store().ask(PictureQueries).looks(run["run_id"], picture["image_id"], units)
    grids = resources.store().ask(PictureQueries).grid(run["run_id"], picture["image_id"])
    size = (picture["width"], picture["height"])
    places = None if grids is None else Places(grids, size, said.of_tokens(run["run_id"], picture["image_id"]))
    plain_panel = Panel(image, picture["text"] or "the picture", places=places)
    if grids is None or found.empty:
        _mount(place, plain_panel)
        st.caption(_why_not(run, len(ranked)))
        return
    rows = _shown_rows(found, units, chosen)
    if rows.empty:
        _mount(place, plain_panel)
        st.caption(
            f"The activations of {plain(chosen or units[0])} were not stored here: `mmn annotate` stores the first "
            "units of each noun only."
        )
        return
    opacity, is_outlined = _controls()
    look = pictures.look_at(image, grids, size, list(rows["activations"]))
    whose = str(chosen) if chosen else _of_top(len(rows))
    drawn = look.shown(opacity, is_outlined) if opacity or is_outlined else image
    means = tuple(np.mean(np.stack(list(rows["activations"])), axis=0))
    _mount(place, Panel(drawn, f"Where {whose} looks", "", places, f"activation of {whose}", means))
    pictures.legend(*look.range, f"activation of {whose}")
    _ious(run, picture, noun, ranked, rows, grids)
    if chosen:
        links.neuron_link(run, chosen)


def _mount(place: Any, panel: Panel) -> None:
    with place:
        mount.show([panel], "one")


def _shown_rows(found: pd.DataFrame, units: Sequence[Neuron], chosen: Neuron | None) -> pd.DataFrame:
    """The looks of the chosen unit, or of as many top ones as the slider says; of `found`, some of `units` by rank."""
    if chosen:
        return found[(found["layer"] == chosen.layer) & (found["unit"] == chosen.unit)]
    known = list(zip(found["layer"], found["unit"], strict=True))
    in_order = [a == (b.layer, b.unit) for a, b in zip(known, units, strict=False)]
    most = min(MOST_AVERAGED, (*in_order, False).index(False))  # without gaps: the top units are meant
    if most < 2:
        return found.head(most)
    state.tidy_address({"averaged": lambda text: text if text in map(str, range(1, most + 1)) else None})
    help_ = "Or select a unit's row."
    n = st.slider("Top units, averaged", 1, most, 1, key="averaged", bind="query-params", help=help_)
    return found.head(n)


def _controls() -> tuple[float, bool]:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        percent = st.slider("Opacity of the map, %", 0, 100, round(100 * OPACITY), step=5, key="opacity", width=180)
        is_outlined = st.toggle(
            "Outline",
            value=True,
            key="outline",
            help=f"Outlines what is above the {PERCENTILE:.0f}th percentile of the map",
        )
    return percent / 100, is_outlined


def _ious(
    run: dict[str, Any], picture: dict[str, Any], noun: str, ranked: pd.DataFrame, rows: pd.DataFrame, grids: Grids
) -> None:
    """The overlap of what is shown with objects: of one unit as it is stored, of several that of their average map."""
    first = ranked.merge(rows[["layer", "unit"]], on=["layer", "unit"]).iloc[0]
    if pd.isna(first["iou"]):
        why = "was compared for the first units only" if ranked["iou"].notna().any() else "has no outline here"
        st.caption(f"No overlap is known: “{plain(noun)}” {why}.")
        return
    found = {name: first[name] for name in _OVERLAPS}
    if len(rows) > 1:
        from app.outlines import average_overlaps  # its dictionary is slow to load, and one unit does without

        found = average_overlaps(run, picture, noun, grids, list(rows["activations"]))
        if not found:
            st.caption("The overlap of the average map is not known: the objects' outlines cannot be read.")
            return
    overlaps = [f"{words} **{found[name]:.2f}**" for name, words in _OVERLAPS.items() if pd.notna(found.get(name))]
    of = " of the average map" if len(rows) > 1 else ""
    st.markdown(f"IoU of the brightest 5 %{of}: " + " · ".join(overlaps).replace("NOUN", plain(noun)))


def _of_top(n: int) -> str:
    return "the top unit" if n == 1 else f"the top {counted(n, 'unit')}"


def _why_not(run: dict[str, Any], n_ranked: int) -> str:
    if not n_ranked:
        return "No units are kept in this ranking."
    return (
        f"Activations at image tokens are not stored yet. In a terminal: {widgets.annotate(run)} (not for models "
        "whose image tokens have no place in the picture)."
    )


def small_panels(run: dict[str, Any], neuron: Neuron, rows: Sequence[dict[str, Any]]) -> tuple[list[Panel], int]:
    """A small picture for each of `rows` (image_id, source, text, note) under the unit's map, plain where that is not
    known; and for how many it is. Their keys are the image_ids, their titles the notes.
    """
    known = resources.store().ask(NeuronQueries).looks(run["run_id"], neuron, [row["image_id"] for row in rows])
    return [_small_panel(run, neuron, row, known.get(row["image_id"])) for row in rows], len(known)


def _small_panel(run: dict[str, Any], neuron: Neuron, row: dict[str, Any], known: UnitLook | None) -> Panel:
    told = {"alt": row["text"] or "the picture", "title": row["note"], "key": row["image_id"]}
    try:
        image = pictures.opened_tile(row["source"], row["image_id"], SMALL_SIDE)
    except ImageError:
        return Panel(pictures.missing_tile(), **told)
    if known is None:
        return Panel(image, **told)
    look = pictures.look_at(image, known.grids, known.size, [known.activations])
    places = Places(known.grids, known.size, said.of_tokens(run["run_id"], row["image_id"]))
    drawn = look.shown(OPACITY, is_outlined=False)
    values = tuple(known.activations)
    return Panel(drawn, places=places, measure=f"activation of {neuron}", values=values, quality=80, **told)

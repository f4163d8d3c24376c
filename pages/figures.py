"""Which figures go into the paper? What was pinned on any page: order, letters, captions, a grid, a zip."""

from __future__ import annotations

import streamlit as st

from app import pinned, pins, resources
from app.text import plain
from mmn.errors import BrokenFileError


def page() -> None:
    st.markdown(
        "**Pin** beside **Export** on any page keeps a figure with its filters here. Figures are drawn from what "
        "their run has now."
    )
    try:
        found = pins.pins().read()
    except BrokenFileError as error:
        st.error(f"The pins cannot be read: {plain(error)}.", icon=":material/error:")
        return
    pinned.undo()
    if not found:
        nothing_pinned()
        return
    grid = pinned.chosen_grid()
    every = pinned.shown(found)
    left, right = st.columns([1, 1], gap="large")
    with left:
        pinned.cards(every, grid)
    with right:
        pinned.together(every, grid)


def nothing_pinned() -> None:
    st.info("No figure is pinned yet.", icon=":material/keep:")
    st.page_link(
        resources.ROOT / "pages" / "layers.py", label="Start with the Layers page", icon=":material/stacked_bar_chart:"
    )
    st.caption("From a terminal: `mmn pins --add FILE` pins a figure from a file that `mmn figure` wrote.")


page()

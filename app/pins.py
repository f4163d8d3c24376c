"""The pin of a figure: a button beside its export, which keeps the figure for the page Figures, in whichever tab."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import streamlit as st

from app import resources
from app.text import plain
from mmn.errors import BrokenFileError, MmnError
from mmn.figures.figure import Drawn
from mmn.figures.pins import Pin, Pins, identity_of
from mmn.figures.saving import rows_recipe

_HELP: Final = {
    False: "Keeps this figure with its filters for the page Figures: a grid with letters, or a zip of all.",
    True: "Removes this figure from the page Figures.",
}


def pins() -> Pins:
    """What is pinned in this cache."""
    return Pins(resources.cache_path())


def button(figure: Drawn, name: str) -> None:
    """Pins a figure, or takes it away; `name` tells it from others of the page."""
    try:
        is_pinned = pins().find(identity_of(figure)) is not None
    except BrokenFileError:
        st.button("Pin", icon=":material/keep:", key=f"pin-{name}", disabled=True, help="The page Figures says why.")
        return
    st.button(
        "Pinned" if is_pinned else "Pin",
        icon=":material/keep_off:" if is_pinned else ":material/keep:",
        key=f"pin-{name}",
        help=_HELP[is_pinned],
        on_click=told,
        args=(_toggle, figure),
    )


def told(action: Callable[..., str], *given: Any) -> None:
    """Does what a button is for, before the page is drawn again, and says what came of it.

    What a button calls is outside the error boundary.
    """
    try:
        said = action(*given)
    except MmnError as error:
        st.toast(plain(f"Nothing was changed: {error}"), icon=":material/error:", duration="long")
        return
    if said:
        st.toast(plain(said))


def _toggle(figure: Drawn) -> str:
    pin_id = identity_of(figure)
    if pins().find(pin_id) is None:
        pins().add(Pin(rows_recipe(figure)))
        return "Pinned: it is on the page Figures"
    pins().remove(pin_id)
    return "No longer pinned"

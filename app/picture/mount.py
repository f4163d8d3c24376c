"""Shows panels, and keeps in the address what is looked at: `zoom`, and `token`, the image token that was asked about.

Zooming runs nothing but the picture again; a click on a token or a title runs the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import streamlit as st

from app.picture.panels import Panel, payload
from mmn.view import View

HERE: Final = Path(__file__).parent
KEPT: Final = ("zoom", "token")  # parameters of an address that are of one picture
_COMPONENT: Final = st.components.v2.component(
    "mmn_picture",
    html='<div class="picture"></div>',
    css=(HERE / "style.css").read_text(encoding="utf-8"),
    js=(HERE / "component.js").read_text(encoding="utf-8"),
)


def show(panels: Sequence[Panel], key: str, note: str = "") -> tuple[str, int | None]:
    """Draws the panels; returns the key of the panel whose title, or token, was just clicked, and the token.

    ("", None) where nothing was. A clicked token of a panel without a key is in the address from then on (`token`).
    """
    _mounted(payload(panels, note), f"picture-{key}")
    clicked: tuple[str, int | None] = st.session_state.pop(f"clicked-picture-{key}", ("", None))
    return clicked


def token_of_address() -> int | None:
    """The image token that the address asks about."""
    return looked_at().token


def looked_at() -> View:
    """The view that the page's address means."""
    return View.from_address({name: st.query_params.get_all(name) for name in st.query_params})


def forget() -> None:
    """Takes zoom and token out of the address: another picture is opened."""
    for name in KEPT:
        st.query_params.pop(name, None)


@st.fragment
def _mounted(sent: dict[str, Any], key: str) -> None:
    view = looked_at()
    (zoom,) = view.to_address().get("zoom", [""])
    found = _COMPONENT(
        key=key,
        data=sent | {"zoom": zoom, "token": view.token},
        on_zoom_change=lambda: _keep_zoom(key),
        on_token_change=lambda: _keep_token(key),
        on_open_change=lambda: _keep_opened(key),
    )
    if found.get("token") is not None or found.get("open") is not None:
        st.rerun()


def _keep_zoom(key: str) -> None:
    text = str(st.session_state[key].get("zoom") or "")
    view = View.from_address({"zoom": [text]})  # of the browser, so read like an address
    if view.zoom is None:
        st.query_params.pop("zoom", None)
    else:
        st.query_params["zoom"] = view.to_address()["zoom"]


def _keep_token(key: str) -> None:
    asked = st.session_state[key].get("token")
    if not isinstance(asked, dict):
        return
    token = View.from_address({"token": [str(asked.get("token"))]}).token
    if token is None:
        return
    if asked.get("panel"):
        st.session_state[f"clicked-{key}"] = (str(asked["panel"]), token)
    elif token == token_of_address():
        del st.query_params["token"]  # a second click closes the answer
    else:
        st.query_params["token"] = str(token)


def _keep_opened(key: str) -> None:
    opened = st.session_state[key].get("open")
    if opened:
        st.session_state[f"clicked-{key}"] = (str(opened), None)

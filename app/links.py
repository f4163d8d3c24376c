"""Everything leads to everything: a unit to its page, a picture to its units, a noun to its pictures.

Tables link by address, which the browser opens in a new tab; buttons go there in the same session.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn
from urllib.parse import urlencode

import streamlit as st

from app import resources, state
from mmn.core import Neuron, UnitOfExpert
from mmn.view import View

NEURON: Final = resources.ROOT / "pages" / "neuron.py"
IMAGE: Final = resources.ROOT / "pages" / "image.py"
LENS: Final = resources.ROOT / "pages" / "lens.py"
ID_LENGTH: Final = 12  # signs of a picture's id in an address
NEURON_IN_URL: Final = r"neuron=([^&]+)"  # what a link column shows
CONCEPT_IN_URL: Final = r"concept=([^&]+)"


def neuron_url(run: dict[str, Any], neuron: Neuron) -> str:
    return _url("neuron", View(run["run_id"][:8], neuron=neuron))


def concept_url(run: dict[str, Any], lemma: str) -> str:
    """The pictures whose caption says `lemma`."""
    return _url("image", View(run["run_id"][:8], concepts=(lemma,)))


def neuron_link(run: dict[str, Any], neuron: Neuron | UnitOfExpert) -> None:
    view = View(state.run_label(run), neuron=neuron)
    st.page_link(NEURON, label=f"All about {neuron}", icon=":material/hub:", query_params=view.to_address())


def image_link(run: dict[str, Any], image_id: str) -> None:
    address = _of_picture(run, image_id)
    st.page_link(IMAGE, label="Its units", icon=":material/image_search:", query_params=address)


def lens_link(run: dict[str, Any], image_id: str) -> None:
    address = _of_picture(run, image_id)
    st.page_link(LENS, label="What its image tokens say", icon=":material/search:", query_params=address)


def go_to_image(image_id: str, noun: str, token: int | None = None) -> NoReturn:
    """Opens a picture of the run that is chosen already, from another page; asked about one of its image tokens."""
    st.session_state.pop("noun", None)  # else the noun chosen last would win over the address
    st.switch_page(IMAGE, query_params=View(image=image_id[:ID_LENGTH], noun=noun, token=token).to_address())


def _url(page: str, view: View) -> str:
    return f"{page}?{urlencode(view.to_address(), doseq=True)}"


def _of_picture(run: dict[str, Any], image_id: str) -> dict[str, list[str]]:
    return View(state.run_label(run), image=image_id[:ID_LENGTH]).to_address()


def concept_column() -> Any:
    return st.column_config.LinkColumn(
        "Concept",
        display_text=CONCEPT_IN_URL,
        help="Opens the pictures whose caption says it in a new tab.",
    )

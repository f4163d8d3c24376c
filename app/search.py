"""One box that leads to a noun, a unit, a picture or a page: what is typed is looked for once Enter is pressed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import streamlit as st

from app import links, resources
from app.text import plain
from mmn.core import named_unit
from mmn.counts import counted
from mmn.errors import UsageError
from mmn.store.rankings import d_experts
from mmn.store.search import SearchQueries
from mmn.view import View

MOST: Final = 6  # of each kind
_BOX, _ASKED, _CLEAR = "search", "search-asked", "search-clear"
NOTHING: Final = View()
OF_A_PICTURE: Final = ("noun", "word", "image")  # of the page that a result opens, kept by its widgets


@dataclass(frozen=True)
class Found:
    """A result: what it is called, and where it leads."""

    label: str
    icon: str
    page: Any
    view: View = NOTHING


def box(run: dict[str, Any] | None, pages: Sequence[Any]) -> None:
    """The box, and below it what was found; a single result is opened at once.

    Args:
        run: whose nouns, units and pictures are looked for; None while there is none.
        pages: the page table.
    """
    if st.session_state.pop(_CLEAR, False):
        st.session_state[_BOX] = ""
    text = st.text_input(
        "Search",
        key=_BOX,
        type="search",
        icon=":material/search:",
        placeholder="dog, L5.u217, a page …",
        on_change=_ask,
        help="A noun, a unit, a picture (words of its caption, its file's name, the beginning of its id) or a page.",
    ).strip()
    if not text:
        return
    results = look(run, pages, text)
    if len(results) == 1 and st.session_state.pop(_ASKED, False):
        go(results[0])
    if not results:
        st.caption(f"Nothing in this run and no page is called “{plain(text, 40)}”.")
    for number, one in enumerate(results):
        if st.button(plain(one.label, 80), icon=one.icon, type="tertiary", key=f"found-{number}"):
            go(one)


def _ask() -> None:
    st.session_state[_ASKED] = True


def look(run: dict[str, Any] | None, pages: Sequence[Any], text: str) -> list[Found]:
    """All that is meant by a text: a unit alone where it names one, else pages, nouns and pictures."""
    unit = _unit(run, text)
    if unit:
        return unit
    found = [Found(page.title, page.icon, page) for page in pages if text.lower() in page.title.lower()]
    if run is None:
        return found
    queries = resources.store().ask(SearchQueries)
    for row in queries.nouns(run["run_id"], text, MOST).itertuples():
        label = f"{row.lemma}, {counted(int(row.n_images), 'picture')}"
        found.append(Found(label, ":material/label:", links.IMAGE, View(concepts=(row.lemma,))))
    for row in queries.pictures(run["run_id"], text, MOST).itertuples():
        label = row.text or row.image_id[: links.ID_LENGTH]
        view = View(image=row.image_id[: links.ID_LENGTH])
        found.append(Found(label, ":material/image:", links.IMAGE, view))
    return found


def _unit(run: dict[str, Any] | None, text: str) -> list[Found]:
    if run is None:
        return []
    try:
        unit = named_unit(text, d_experts(run))
    except UsageError:
        return []
    return [Found(str(unit), ":material/hub:", links.NEURON, View(neuron=unit))]


def go(one: Found) -> None:
    """Opens a result; what the page's widgets hold of before would win over the address."""
    address = one.view.to_address()
    for key in (*OF_A_PICTURE, *address):
        st.session_state.pop(key, None)
    st.session_state[_CLEAR] = True
    st.switch_page(one.page, query_params=address)

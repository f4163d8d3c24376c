"""The one bar of filters: a page's filters in one row below its first words, alike everywhere, and reset at once.

What is chosen is in the address and goes along from page to page (`app.state`). A filter that is set, and that this
page does not read, is said to be without effect here rather than dropped in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import streamlit as st

from app import state
from app.text import plain

NAMES: Final = {
    "method": "Scores",
    "ranking": "Ranked by",
    "concept": "Concepts",
    "layers": "Layers",
    "general": "Hide general units over",
    "words": "Words by rows of W_U",
}  # the filters of several pages, as their widgets are called
_STYLE: Final = """<style>
.st-key-filter-bar [data-testid="stButtonGroup"] > div {flex-wrap: wrap; overflow: visible;}
</style>"""  # choices that are wider than a telephone break, as they do outside the bar


@contextmanager
def bar(later: Sequence[str] = ()) -> Iterator[None]:
    """The place of a page's filters, which are drawn inside, and what is around them.

    Args:
        later: keys of filters of several pages that this page shows further down.
    """
    st.html(_STYLE)
    with st.container(border=True, key="filter-bar", gap="small"):
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            yield
            st.button(
                "Reset",
                key="reset-filters",
                type="tertiary",
                icon=":material/filter_alt_off:",
                on_click=state.reset_filters,
                help="Resets every filter on all pages. The run and the selected picture, noun and unit stay.",
            )
        _without_effect(state.not_shown(later))


def none() -> None:
    """In place of the bar on a page that no filter changes: says so where one is set."""
    _without_effect(state.not_shown(()))


def _without_effect(unread: dict[str, list[str]]) -> None:
    """Names the filters that are set and that this page does not read."""
    told = [f"{NAMES[key]} {plain(', '.join(values), 80)}" for key, values in unread.items()]
    if told:
        st.caption(f":orange[Without effect on this page:] {'; '.join(told)}. It is kept for pages that use it.")

"""What a first visit has to know, in less than a minute: above the first page's results, in nobody's way."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import streamlit as st

TOLD: Final = (
    "A vision-language model reads a picture and writes a caption. Inside, **units** (neurons) promote single words: a "
    "run lists, for every noun of every caption, the units that promote it most.\n\n"
    "1. **Look.** Open **Image**, click a picture, choose a noun, select a unit: the map shows where it is active.\n"
    "2. **Doubt.** Every result has a control: random units, or another picture's. It counts only if it exceeds the "
    "control. **Degradation** zeroes units and shows whether the noun disappears.\n"
    "3. **Go on.** **Score** takes your own pictures and your own model.\n\n"
    "Choose the run on the left; **Search** there finds any noun, unit or picture. Filters stay from page to page. The "
    "address holds them all: send it, and others see the same. Question marks explain the terms."
)
_SEEN: Final = "welcome-seen"


def card(cache_path: Path) -> None:
    """Open on a first visit, and folded for those who have read it."""
    is_seen = st.session_state.get(_SEEN, False) or (cache_path / _SEEN).exists()
    with st.expander("New here? One minute", expanded=not is_seen, icon=":material/waving_hand:", key=f"new-{is_seen}"):
        st.markdown(TOLD)
        if not is_seen:
            st.button("Got it", icon=":material/check:", on_click=_remember, args=(cache_path,))


def _remember(cache_path: Path) -> None:
    """For this session; for later ones, too, where the cache can be written."""
    st.session_state[_SEEN] = True
    try:
        cache_path.mkdir(parents=True, exist_ok=True)
        (cache_path / _SEEN).touch()
    except OSError:  # it is only asked again
        return

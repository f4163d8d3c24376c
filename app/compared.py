"""The second run that every figure is shown beside (`?compare=`): chosen in the sidebar, read by `app.charts`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import pandas as pd
import streamlit as st

from app import resources, state
from app.text import plain
from mmn.errors import UsageError
from mmn.names import ORIGINAL
from mmn.store.pictures import PictureQueries

NONE: Final = "no other run"
_TOLD: Final = "compare-told"  # what the figures of this page have said so far
HELP: Final = (
    "Shows every figure of this run (A) beside the same figure of another run (B), on the same scales. For "
    "pictures that both runs have, it adds the paired difference."
)


def picker(runs: pd.DataFrame) -> None:
    """The choice of a second run, for all pages; nothing where there is but one."""
    st.session_state[_TOLD] = set()
    chosen = st.session_state.get("run")
    labels = [label for row in runs.to_dict("records") if (label := state.run_label(row)) != chosen]
    if chosen is None or not labels:
        st.session_state.pop("compare", None)
        return
    if st.session_state.get("compare", NONE) not in (NONE, *labels):
        del st.session_state["compare"]  # it was deleted, or is the first one now
    state.tidy_address({"compare": lambda text: state.find_label(labels, text)})
    st.selectbox("Beside it", [NONE, *labels], key="compare", bind="query-params", help=HELP)


def run_id() -> str:
    """The second run's id as its label says it, "" for none."""
    label = st.session_state.get("compare", NONE)
    return "" if label == NONE else str(label).split()[-1]


def not_told(of: str, lines: Iterable[str]) -> list[str]:
    """Those of `lines` that nothing on this page has said of the same before; from now on they are said.

    Args:
        of: a figure; "" for what holds of the two runs.
        lines: sentences.
    """
    told: set[tuple[str, str]] = st.session_state.setdefault(_TOLD, set())
    new = [line for line in lines if (of, line) not in told]
    told.update((of, line) for line in new)
    return new


def caption(picture: dict[str, Any]) -> None:
    """What the second run's model says of the same picture."""
    other = run_id()
    if not other:
        return
    try:
        said = resources.store().ask(PictureQueries).picture(other, picture["image_id"])
    except UsageError:
        st.caption(f"Run {plain(other)} (B) does not have this picture.")
        return
    concepts = resources.store().ask(PictureQueries).concepts(other, said["image_id"])
    own = concepts[(concepts["variant"] == ORIGINAL) & concepts["target_at"].isna()]
    nouns = ", ".join(f"{plain(row['noun'])} {row['prob']:.2f}" for row in own.to_dict("records"))
    st.markdown(f"B, run {plain(other)}: “{plain(said['text'] or 'no caption')}”")
    st.caption(f"Its nouns, with their probability: {nouns or 'none'}")

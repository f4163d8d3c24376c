"""What the pages of experiments share: their filters, and what they say while a run has not been measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import streamlit as st

from app import launcher, links, state, widgets
from mmn.figures.wording import in_layers, k_text, led_concepts

MOST_METHODS: Final = 6  # curves that can be told apart


def methods_picker(methods: Sequence[str], most: int = MOST_METHODS) -> list[str]:
    """Scores that were measured, at first all of them up to the `most` that a chart can hold (`?method=`)."""
    return st.multiselect(
        "Scores",
        methods,
        default=state.usual("method", list(methods[:most])),
        max_selections=most,
        key="method",
        bind="query-params",
        wrap=True,
    )


def one_k_picker(run: dict[str, Any], ks: Sequence[int]) -> int:
    """One of the measured k (`?size=`), at first the one next to 1.4 % of all units."""
    n = widgets.n_units(run)
    labels = {k_text(k, n): k for k in ks}
    if st.session_state.get("size") not in (None, *labels):
        del st.session_state["size"]  # of another run
    state.tidy_address({"size": lambda text: next((s for s, k in labels.items() if text in (s, str(k))), None)})
    usual = min(range(len(ks)), key=lambda place: abs(ks[place] - 0.014 * n))
    told = "Units compared, and their share of all units"
    return labels[st.selectbox("k", list(labels), index=usual, key="size", bind="query-params", help=told)]


def subset(lemmas: Sequence[str], layers: tuple[int, int] | None = None) -> str:
    """The chosen concepts and layers in words."""
    return led_concepts(lemmas) + in_layers(layers)


def chosen_layers(run: dict[str, Any], told: str | None = None) -> tuple[int, int] | None:
    """The layers chosen with the slider, None for all; `told` says what the page keeps by them."""
    layers = widgets.layer_picker(run["n_layers"], told or "Keeps the units that lie in these layers.")
    return None if layers == (0, run["n_layers"] - 1) else layers


def leading_layers(run: dict[str, Any]) -> tuple[int, int] | None:
    """First and last layer in which a noun's first unit may lie; None for all."""
    return chosen_layers(
        run,
        "Keeps the nouns whose highest-ranked unit, by the score, lies in these layers. Their other units may lie "
        "anywhere.",
    )


def concept_column() -> Any:
    return st.column_config.LinkColumn(
        "Concept",
        display_text=links.CONCEPT_IN_URL,
        help="Opens the pictures whose caption says it in a new tab.",
    )


def nothing_yet(run: dict[str, Any], words: Sequence[str], label: str, note: str) -> None:
    """What a page shows in a run that was not measured: that it was not, and the way to it."""
    if not launcher.watch(words):
        st.info("This run has not been measured yet.", icon=":material/science:")
        launcher.offer(run, words, label, note)


def measure_again(run: dict[str, Any], words: Sequence[str], note: str) -> None:
    """The same offer on a page that has something to show: a running job openly, else folded away."""
    if not launcher.watch(words):
        with st.expander("Measure again, or what a cancelled job left out"):
            launcher.offer(run, words, "Measure", note)

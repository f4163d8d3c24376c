"""The Layers page's last part: do two scores of a run name the same units?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import streamlit as st

from app import charts, filters, resources, state
from app.text import plain
from mmn.counts import counted
from mmn.names import MINUS_BLANK, RANDOM
from mmn.store.rankings import RankingQueries
from mmn.view import View


def show(run: dict[str, Any], methods: Sequence[str], view: View) -> None:
    """Two scores to choose, their overlap against k over chance, and how far they agree on the order.

    Of `view`, what the page is filtered by, it reads the concepts alone, and says so.

    Only when asked for: in a run of millions of rows it takes longer than all the rest of the page.
    """
    if len(methods) < 2:
        return
    if not st.toggle("Do two scores name the same units?", key="agreement", bind="query-params"):
        return
    lemmas = view.concepts
    if view.layers or view.generality is not None:
        st.caption(
            ":orange[Without effect on this part:] the filters of layers and of general units. Whole "
            "rankings are compared."
        )
    left, right, beside = st.columns([2, 2, 4], vertical_alignment="bottom")
    first = left.selectbox("One score", methods, key="one")
    others = [method for method in methods if method != first]
    usual = [method for method in others if not method.startswith((first, RANDOM)) and not method.endswith(MINUS_BLANK)]
    other = right.selectbox("The other", others, index=others.index((usual or others)[-1]), key=f"other-{first}")
    ks = state.k_options(filters.n_units(run), filters.stored_k(run))
    with beside:
        _correlation(run, first, other, lemmas)
    charts.show("comparison", View(run["run_id"], (first, other), tuple(ks), concepts=tuple(lemmas)))
    _controls(run, lemmas)


def _correlation(run: dict[str, Any], first: str, other: str, lemmas: Sequence[str]) -> None:
    found = resources.store().ask(RankingQueries).correlation(run["run_id"], first, other, lemmas)
    if not found["n"]:
        st.caption("No concept has two units to rank.")
        return
    st.markdown(
        f"Order of the {counted(found['n_units'], 'unit')} that either keeps: Spearman's ρ = "
        f"**{found['spearman']:.2f}** "
        f"(mean over {counted(found['n_images'], 'picture')}, {counted(found['n'], 'concept')})"
    )
    st.caption("1: the same list; about −.86: two lists without a common unit.")


def _controls(run: dict[str, Any], lemmas: Sequence[str]) -> None:
    """How much of their reference's top units the random controls hold: they are not excluded from the draw."""
    found = resources.store().ask(RankingQueries).control_overlap(run["run_id"], lemmas=lemmas)
    shares = [
        f"{plain(row.control)} shares {row.overlap:.1%} of its top {counted(row.k, 'unit')} with "
        f"{plain(row.reference)} "
        f"(chance {'not known' if math.isnan(row.chance) else f'{row.chance:.1%}'})"
        for row in found.itertuples()
    ]
    if shares:
        st.caption(f"Random controls are drawn from all units, top ones included: {'; '.join(shares)}.")

"""The Edit page's form: what to edit into what, and how."""

from __future__ import annotations

from typing import Any, Final

import streamlit as st

from app import filters, launcher, resources, study_page, unit_sets
from app.text import plain
from mmn.names import METHODS, RANDOM, default_method

ALGORITHMS: Final = {"selected units (p2)": "p2", "one layer (rank-one)": "rank-one"}
UNTIL: Final = {"more likely than the noun": "likelier", "the most likely of all words": "likeliest"}


def show(run: dict[str, Any]) -> None:
    """The inputs, and the button that starts the job once they say what is wanted."""
    labels = filters.concept_labels(resources.store().concepts(run["run_id"]))
    if not labels:
        st.caption("No caption of this run says a noun, so there is nothing to edit.")
        return
    left, middle, right = st.columns(3)
    lemma = left.selectbox("Noun (pictures)", list(labels), format_func=labels.__getitem__, key="edit-noun")
    target = middle.text_input("Word to say instead", key="edit-target", placeholder="boat").strip()
    with right:
        how = _how()
    job = study_page.measurement("editing")
    words = [*job.of(run["run_id"]), "--noun", lemma, "--to", target, *how, *_solver(run)]
    if not target:
        st.caption("Type the new word to go on.")
    elif len(target.split()) > 1 or target == lemma:
        st.info(
            f"“{plain(target)}” is not a single different word: an edit writes one word.", icon=":material/edit_off:"
        )
    else:
        launcher.offer(run, words, job.button, job.note)


def _how() -> list[str]:
    asked = st.selectbox(
        "Change",
        list(ALGORITHMS),
        key="edit-algorithm",
        help="p2 changes only the columns of W_out of the noun's top units; rank-one adds one outer product to the "
        "whole W_out of one layer.",
    )
    return ["--algorithm", ALGORITHMS[asked]]


def _solver(run: dict[str, Any]) -> list[str]:
    """Options of how units are selected, and how far they may be changed."""
    chosen = unit_sets.picker(run, "edit-set")
    stored = resources.store().score_methods(run["run_id"])
    methods = [method for method in stored if method in METHODS and not method.startswith(RANDOM)]
    usual = methods.index(default_method(methods)) if methods else 0
    columns = st.columns([3, 2, 3, 2, 2], vertical_alignment="bottom")
    method = columns[0].selectbox("Units selected by", methods, index=usual, key="edit-method", disabled=bool(chosen))
    n = columns[1].number_input(
        "How many", 1, filters.n_units(run), min(20, filters.n_units(run)), key="edit-units", disabled=bool(chosen)
    )
    until = columns[2].selectbox("Until the new word is", list(UNTIL), key="edit-until")
    cap = columns[3].number_input(
        "Largest ‖Δ‖/‖w‖",
        0.05,
        10.0,
        2.0,
        0.05,
        key="edit-norm",
        help="The largest change allowed, successful or not",
    )
    has_controls = columns[4].toggle(
        "Controls",
        value=True,
        key="edit-controls",
        help="The same edit on another noun's units, on random ones, and rank-one",
    )
    of_units = ["--units", chosen] if chosen else ["--method", method, "--units", str(n)]
    words = [*of_units, "--until", UNTIL[until], "--max-norm", f"{cap:g}"]
    return words if has_controls else [*words, "--no-controls"]

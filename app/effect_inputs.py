"""The Degradation page's inputs: which effects to look at, and a job that measures more."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
import streamlit as st

from app import filter_bar, filters, launcher, resources, state, unit_sets
from app.text import plain
from mmn.names import ABLATE, METHODS, POSITIONS, RANDOM, SCALE, default_method
from mmn.store.cells import in_order
from mmn.studies.study import Measurement
from mmn.view import View

FACTORS: Final = ("0", "0.25", "0.5", "2", "4", "8")
FACTORS_USUAL: Final = ("0.5", "2", "4")
MOST_FACTOR: Final = 1000.0
NOUNS: Final = {"all": "", "the first one": "first"}


def nouns_picker() -> str:
    """`first` where only the first noun of each caption counts (P1), or "" for all of them (P2)."""
    usual = state.usual("nouns", next(iter(NOUNS)))
    nouns = st.segmented_control(
        "Nouns of a caption", list(NOUNS), default=usual, required=True, key="nouns", bind="query-params"
    )
    return NOUNS[nouns]


def chosen_view(run: dict[str, Any], settings: pd.DataFrame, concepts: pd.DataFrame, kind: str) -> View:
    """The scores, concepts and layers to look at, which are also the address.

    Args:
        run: its row.
        settings: rows of `EffectQueries.settings` of this kind.
        concepts: `Store.concepts`.
        kind: of intervention; noise is shown by one score.
    """
    measured = in_order(settings["method"])
    with filter_bar.bar():
        methods = filters.method_picker(measured) if kind == ABLATE else [filters.ranking_picker(measured)]
        lemmas = filters.concept_picker(concepts)
        layers = filters.leading_layers(run)
        nouns = nouns_picker()
        metric = _choice("Similarity of captions by", settings["metric"], "similarity")
        unit = _choice("σ in units of the", settings["sigma_unit"], "sigma-unit")
    if kind != ABLATE:
        filters.define(methods[0])
    return View(
        run["run_id"],
        tuple(methods),
        concepts=tuple(lemmas),
        layers=layers,
        nouns=nouns,
        metric=(metric,) if metric else (),
        sigma_unit=unit,
    )


def _choice(label: str, column: pd.Series, key: str) -> str:
    """One of several that were measured, which is also the address; "" where there is no choice."""
    there = list(column.dropna().unique())
    if len(there) < 2:
        return ""
    if st.session_state.get(key) not in (None, *there):
        del st.session_state[key]  # of another run
    state.usual(key, there[0])
    return st.selectbox(plain(label), there, key=key, bind="query-params", width=filters.WIDE)


def offer(run: dict[str, Any], job: Measurement) -> None:
    """A job that measures, by a score or of a saved set of units, and on as many pictures as wanted."""
    chosen = unit_sets.picker(run, f"new-{job.kind}-set")
    left, right = st.columns(2)
    stored = resources.store().score_methods(run["run_id"])
    methods = [method for method in stored if method in METHODS and not method.startswith(RANDOM)]
    usual = methods.index(default_method(methods)) if methods else 0
    method = left.selectbox(
        "Units selected by", methods, index=usual, key=f"new-{job.kind}-method", disabled=bool(chosen)
    )
    n = int(run["n_images"])
    limit = right.number_input("Pictures, the first", 1, n, min(100, n), key=f"new-{job.kind}-limit")
    of_units = ["--units", chosen] if chosen else ["--method", method]
    words = [*job.of(run["run_id"]), *of_units, "--limit", str(limit), *_places(job), *_factors(job)]
    launcher.offer(run, words, job.button, job.note)


def _factors(job: Measurement) -> list[str]:
    """What units are multiplied by."""
    if job.kind != SCALE:
        return []
    told = "0 zeroes them, 1 leaves them unchanged; type another number to add it"
    chosen = st.multiselect(
        "Multiply them by", list(FACTORS), FACTORS_USUAL, key="new-factors", accept_new_options=True, help=told
    )
    known = {text: value for text in chosen if (value := _factor(text)) is not None}
    if ignored := [text for text in chosen if text not in known]:
        st.caption(f":orange[Left out: {plain(', '.join(ignored), 200)}] (a factor is a number from 0 to 1,000)")
    return ["--factor", ",".join(f"{value:g}" for value in dict.fromkeys(known.values()))] if known else []


def _factor(text: str) -> float | None:
    try:
        value = float(text.strip().removeprefix("×"))
    except ValueError:
        return None
    return value if 0 <= value <= MOST_FACTOR else None


def _places(job: Measurement) -> list[str]:
    """Where units are zeroed; noise is on weights, so everywhere."""
    if job.kind != ABLATE:
        return []
    both = st.toggle("Also at image tokens only", key="new-image-tokens")
    return ["--at", ",".join(POSITIONS)] if both else []

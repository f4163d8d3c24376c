"""The Degradation page's inputs: which effects to look at, and a job that measures more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pandas as pd
import streamlit as st

from app import experiments, launcher, resources, widgets
from mmn.names import ABLATE, METHODS, PERTURB, RANDOM, default_method
from mmn.store.cells import in_order
from mmn.studies.degradation.queries import Which

NOUNS: Final = {"all": False, "the first one": True}
NOTE: Final = {
    ABLATE: "Sets each noun's top units to 0, more and more of them, beside random units of the same layers, and lets "
    "the model caption again. The bundled model takes about five seconds for each picture.",
    PERTURB: "Adds noise to the weights of each noun's top units, beside random units, and lets the model caption "
    "again. The bundled model takes about five seconds for each picture.",
}


def only_first() -> bool:
    """Whether only the first noun of each caption counts (P1), or all of them (P2)."""
    nouns = st.segmented_control(
        "Nouns of a caption", list(NOUNS), default=next(iter(NOUNS)), required=True, key="nouns", bind="query-params"
    )
    return NOUNS[nouns]


def filters(run: dict[str, Any], settings: pd.DataFrame, concepts: pd.DataFrame, which: Which) -> Which:
    """`which` with the scores, concepts and layers to look at, which are also the address.

    Args:
        run: its row.
        settings: rows of `Store.effect_settings` of this kind.
        concepts: `Store.concepts`.
        which: the kind, and which nouns of a caption count.
    """
    measured = in_order(settings["method"])
    left, right = st.columns(2, gap="medium")
    with left:
        methods = widgets.method_picker(measured) if which.kind == ABLATE else [widgets.ranking_picker(measured)]
    with right:
        lemmas = widgets.concept_picker(concepts)
    metrics = list(settings["metric"].dropna().unique())
    units = list(settings["sigma_unit"].dropna().unique())
    left, right = st.columns(2, gap="medium")
    with left:
        layers = experiments.leading_layers(run)
    with right:  # asked only where there is a choice
        metric = _one("Similarity of captions by", metrics, "similarity")
        unit = _one("σ in units of the", units, "sigma-unit")
    return replace(
        which,
        methods=tuple(methods),
        lemmas=tuple(lemmas),
        layers=layers,
        metric=metric,
        sigma_unit=unit,
    )


def _one(label: str, there: Sequence[str], key: str) -> str | None:
    """The one that was measured, or a choice of several, which is also the address; None for none."""
    if len(there) < 2:
        return next(iter(there), None)
    if st.session_state.get(key) not in (None, *there):
        del st.session_state[key]  # of another run
    return st.selectbox(label, there, key=key, bind="query-params")


def offer(run: dict[str, Any], kind: str) -> None:
    """A job that measures, by a score and on as many pictures as wanted."""
    left, right = st.columns(2)
    stored = resources.store().score_methods(run["run_id"])
    methods = [method for method in stored if method in METHODS and not method.startswith(RANDOM)]
    usual = methods.index(default_method(methods)) if methods else 0
    method = left.selectbox("Units selected by", methods, index=usual, key=f"new-{kind}-method")
    n = int(run["n_images"])
    limit = right.number_input("Pictures, the first", 1, n, min(100, n), key=f"new-{kind}-limit")
    words = ["degrade", run["run_id"][:8], "--kind", kind, "--method", method, "--limit", str(limit)]
    launcher.offer(run, words, "Measure", NOTE[kind])

"""The Degradation page's inputs: which effects to look at, and a job that measures more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pandas as pd
import streamlit as st

from app import experiments, launcher, resources, widgets
from mmn.names import ABLATE, CONTRIBUTION_FOLDED, METHODS, PERTURB, RANDOM
from mmn.store.cells import in_order
from mmn.store.effects import Which

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
        metric = st.selectbox("Similarity of captions by", metrics, key="metric") if len(metrics) > 1 else None
        unit = st.selectbox("σ in units of the", units, key="sigma-unit") if len(units) > 1 else None
    return replace(
        which,
        methods=tuple(methods),
        lemmas=tuple(lemmas),
        layers=layers,
        metric=metric or next(iter(metrics), None),
        sigma_unit=unit or next(iter(units), None),
    )


def offer(run: dict[str, Any], kind: str) -> None:
    """A job that measures, by a score and on as many pictures as wanted."""
    left, right = st.columns(2)
    stored = resources.store().score_methods(run["run_id"])
    methods = [method for method in stored if method in METHODS and not method.startswith(RANDOM)]
    usual = methods.index(CONTRIBUTION_FOLDED) if CONTRIBUTION_FOLDED in methods else 0
    method = left.selectbox("Units selected by", methods, index=usual, key=f"new-{kind}-method")
    n = int(run["n_images"])
    limit = right.number_input("Pictures, the first", 1, n, min(100, n), key=f"new-{kind}-limit")
    words = ["degrade", run["run_id"][:8], "--kind", kind, "--method", method, "--limit", str(limit)]
    launcher.offer(run, words, "Measure", NOTE[kind])

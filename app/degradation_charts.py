"""The Degradation page's charts: curves with bands, what they come to in a sentence, and each concept's numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pandas as pd
import streamlit as st

from app import charts, filters, links, resources
from app.text import plain
from mmn.figures.figure import Drawn
from mmn.figures.wording import k_text
from mmn.names import ABLATE, RANDOM, TOP
from mmn.studies.degradation.curves import describe_drop, half_at, probability_drop
from mmn.studies.degradation.queries import EffectFilter, EffectQueries
from mmn.view import View

ABLATED: Final = {"probability": "prob", "share of the untouched": "relative", "logit": "logit"}
NOISY: Final = {"captions that lose the noun": "lost", "probability": "prob", "similarity": "similarity"}
AXES: Final = {"σ": "sigma", "k": "k"}


def ablation(run: dict[str, Any], view: View, is_captioned: bool) -> None:
    """Curves against k: the probability, then the captions; the sentences that sum them up; concepts and layers at a k.

    Args:
        run: its row.
        view: the scores, concepts, layers and nouns to look at.
        is_captioned: whether the model was let write again.
    """
    relative = _drawn("degradation", view, "relative")
    _sentences(run, view, relative.rows.data)
    asked = st.segmented_control(
        "Show", list(ABLATED), default="probability", required=True, key="quantity", bind="query-params"
    )
    measure = ABLATED[asked]
    charts.show_drawn(relative if measure == "relative" else _drawn("degradation", view, measure))
    if is_captioned:
        for measure in ("lost", "similarity"):
            charts.show_drawn(_drawn("degradation", view, measure))
    else:
        st.caption("The model was not let write again (`--captions`), so what its captions lose is not known.")
    _at_one_k(run, view, relative.rows.data)


def perturbation(view: View, is_captioned: bool) -> None:
    """Curves against the size of the noise or the number of units.

    Args:
        view: one score, and the concepts, layers and nouns to look at.
        is_captioned: whether the model was let write again.
    """
    left, right = st.columns([3, 2])
    asked = left.segmented_control(
        "Show", list(NOISY), default=next(iter(NOISY)), required=True, key="noisy", bind="query-params"
    )
    axis = right.segmented_control("Against", list(AXES), default="σ", required=True, key="axis", bind="query-params")
    if NOISY[asked] != "prob" and not is_captioned:
        st.info("The model was not let write again under this noise (`--captions`): only the probability is known.")
        return
    charts.show_drawn(_drawn("perturbation", replace(view, against=AXES[axis]), NOISY[asked]))


def _drawn(figure: str, view: View, measure: str) -> Drawn:
    """The figure of one measure; only that of the similarity asks which one."""
    metric = view.metric if measure == "similarity" else ()
    return charts.drawn(figure, replace(view, measure=measure, metric=metric))


def _sentences(run: dict[str, Any], view: View, relative: pd.DataFrame) -> None:
    """How far the probability falls, by each score."""
    is_top = relative["selection"] == TOP
    for method in view.methods:
        if (is_top & (relative["method"] == method)).any():
            of = f"{plain(method)}: " if len(view.methods) > 1 else ""
            drop = probability_drop(relative, method)
            st.markdown(f"**{of}{describe_drop(drop, filters.n_units(run))}**")


def _at_one_k(run: dict[str, Any], view: View, curves: pd.DataFrame) -> None:
    """The concepts one by one, and where the zeroed units lie, for one method and k."""
    st.subheader("Concept by concept")
    right, left = st.columns([3, 2], gap="large")
    method = view.methods[0]
    if len(view.methods) > 1:
        method = left.selectbox("Units selected by", view.methods, key="one-method")
    ks = sorted({int(k) for k in curves.loc[(curves["method"] == method) & (curves["k"] > 0), "k"]})
    k = right.select_slider(
        "Units set to 0", ks, value=ks[-1], format_func=lambda k: k_text(k, filters.n_units(run)), key=f"at-{len(ks)}"
    )
    one = replace(view, methods=(method,), ks=(k,))
    _concepts(run, resources.store().ask(EffectQueries).by_concept(run["run_id"], EffectFilter.of(one, ABLATE)), k)
    if k > filters.stored_k(run):
        st.caption(f"In which layers they lie is known up to k = {filters.stored_k(run):,}: the run kept no more.")
        return
    charts.show("ablated-layers", one)


def _concepts(run: dict[str, Any], rows: pd.DataFrame, k: int) -> None:
    """A row for each lemma: its probability before, what top and random units take away, and the k that halves it."""
    per_lemma = rows.groupby(["lemma", "selection", "k"], as_index=False)[["prob", "baseline_prob", "n_nouns"]].mean()
    per_lemma["mean"] = per_lemma["prob"] / per_lemma["baseline_prob"]
    top, random = (per_lemma[per_lemma["selection"] == one].set_index("lemma") for one in (TOP, RANDOM))
    table = pd.DataFrame(
        {
            "n": top.groupby("lemma")["n_nouns"].max(),
            "baseline": top[top["k"] == k]["baseline_prob"],
            "drop": 100 * (1 - top[top["k"] == k]["mean"]),
            "random": 100 * (1 - random[random["k"] == k]["mean"]),
            "half": pd.Series({lemma: _half(curve) for lemma, curve in top.groupby("lemma")}, dtype=float),
        }
    )
    table = table.sort_values(["n", "drop"], ascending=False).reset_index(names="lemma")
    number = st.column_config.NumberColumn
    st.dataframe(
        table.assign(concept=[links.concept_url(run, lemma) for lemma in table["lemma"]]),
        hide_index=True,
        height=330,
        placeholder="–",
        column_order=["concept", "n", "baseline", "drop", "random", "half"],
        column_config={
            "concept": st.column_config.LinkColumn(
                "Concept", display_text=links.CONCEPT_IN_URL, alignment="left", help="Opens its pictures in a new tab"
            ),
            "n": number("Captions", format="%d", width=75),
            "baseline": number("Probability", format="%.2f", help="In the untouched model, mean"),
            "drop": number("Drop, %", format="%.0f", help="By the top units, as a share of that; negative: it rises"),
            "random": number("Random, %", format="%.0f", help="The same by random units, mean over draws"),
            "half": number(
                "Halved at k", format="%.0f", help="Top units that halve it, linear between the measured k; –: none"
            ),
        },
    )


def _half(curve: pd.DataFrame) -> float | None:
    ordered = curve.sort_values("k")
    return half_at(ordered["k"].tolist(), ordered["mean"].tolist())

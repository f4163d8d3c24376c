"""The Degradation page's charts: curves with bands, what they come to in a sentence, and each concept's numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pandas as pd
import streamlit as st

from app import links, resources, widgets
from app.text import plain
from mmn.figures.wording import k_text, led_concepts
from mmn.names import RANDOM, TOP
from mmn.studies.degradation import curves
from mmn.studies.degradation.curves import half_at
from mmn.studies.degradation.figures import ablated_layers, degradation
from mmn.studies.degradation.figures import perturbation as perturbation_chart
from mmn.studies.degradation.queries import EffectQueries, Which

SHOWN: Final = {"probability": "prob", "share of the untouched": "relative", "logit": "logit"}
NOISY: Final = {"captions that lose the noun": "lost", "probability": "prob", "similarity": "similarity"}
AXES: Final = {"σ": "sigma", "k": "k"}


def ablation(run: dict[str, Any], which: Which, means: pd.DataFrame) -> None:
    """Curves against k: the probability, then the captions; the sentences that sum them up; concepts and layers at a k.

    Args:
        run: its row.
        which: the effects that were asked for.
        means: `Store.effect_means` of them.
    """
    run = _counted(run, means)
    n_units = widgets.n_units(run)
    relative = curves.curves(means, "relative")
    for method in which.methods:
        if ((relative["method"] == method) & (relative["selection"] == TOP)).any():
            of = f"{plain(method)}: " if len(which.methods) > 1 else ""
            st.markdown(f"**{of}{curves.told(curves.fall(relative, method), n_units)}**")
    quantity = SHOWN[
        st.segmented_control(
            "Show", list(SHOWN), default="probability", required=True, key="quantity", bind="query-params"
        )
    ]
    data = relative if quantity == "relative" else curves.curves(means, quantity)
    name = f"{run['run_id'][:8]}-ablation"
    widgets.show_figure(degradation(data, run, quantity, subset(which)), data, f"{name}-{quantity}", 420)
    _captions(run, which, means, name)
    _at_one_k(run, which, means, name)


def perturbation(run: dict[str, Any], which: Which, means: pd.DataFrame) -> None:
    """Curves against the size of the noise or the number of units.

    Args:
        run: its row.
        which: the effects that were asked for, by one method.
        means: `Store.effect_means` of them.
    """
    run = _counted(run, means)
    left, right = st.columns([3, 2])
    asked = left.segmented_control(
        "Show", list(NOISY), default=next(iter(NOISY)), required=True, key="noisy", bind="query-params"
    )
    axis = right.segmented_control("Against", list(AXES), default="σ", required=True, key="axis", bind="query-params")
    quantity = NOISY[asked]
    if quantity != "prob" and not _is_captioned(means):
        st.info("The model was not let write again under this noise (`--captions`): only the probability is known.")
        return
    data = curves.curves(means, quantity)
    metric = which.metric or "" if quantity == "similarity" else ""
    chart = perturbation_chart(data, run, quantity, AXES[axis], which.sigma_unit or "", subset(which), metric)
    widgets.show_figure(chart, data, f"{run['run_id'][:8]}-perturbation-{quantity}-{AXES[axis]}", 440)


def subset(which: Which) -> str:
    """The nouns that are meant, in words."""
    return led_concepts(which.lemmas, which.layers) + (", first nouns only" if which.only_first else "")


def _counted(run: dict[str, Any], means: pd.DataFrame) -> dict[str, Any]:
    n_images, n_nouns = curves.counted(means)
    return run | {"n_images": n_images, "n_concepts": n_nouns}


def _captions(run: dict[str, Any], which: Which, means: pd.DataFrame, name: str) -> None:
    """What becomes of the whole caption, where it was written again."""
    if not _is_captioned(means):
        st.caption("The model was not let write again (`--captions`), so what its captions lose is not known.")
        return
    lost = curves.curves(means, "lost")
    widgets.show_figure(degradation(lost, run, "lost", subset(which)), lost, f"{name}-lost", 380)
    alike = curves.curves(means, "similarity")
    chart = degradation(alike, run, "similarity", subset(which), which.metric or "")
    widgets.show_figure(chart, alike, f"{name}-similarity", 380)


def _is_captioned(means: pd.DataFrame) -> bool:
    """Whether captions were written under the change (the untouched model's are the run's own)."""
    return bool(means.loc[(means["k"] > 0) & (means["sigma"] != 0), "lost"].notna().any())


def _at_one_k(run: dict[str, Any], which: Which, means: pd.DataFrame, name: str) -> None:
    """The concepts one by one, and where the zeroed units lie, for one method and k."""
    st.subheader("Concept by concept")
    right, left = st.columns([3, 2], gap="large")
    method = which.methods[0]
    if len(which.methods) > 1:
        method = left.selectbox("Units selected by", which.methods, key="one-method")
    one = replace(which, methods=(method,))
    ks = sorted({int(k) for k in means.loc[(means["method"] == method) & (means["k"] > 0), "k"]})
    k = right.select_slider(
        "Units set to 0", ks, value=ks[-1], format_func=lambda k: k_text(k, widgets.n_units(run)), key=f"at-{len(ks)}"
    )
    _concepts(run, resources.store().ask(EffectQueries).by_concept(run["run_id"], one), k)
    if k > widgets.stored_k(run):
        st.caption(f"In which layers they lie is known up to k = {widgets.stored_k(run):,}: the run kept no more.")
        return
    layers = resources.store().ask(EffectQueries).ablated_layers(run["run_id"], one, k)
    widgets.show_figure(ablated_layers(layers, run, k, method, subset(which)), layers, f"{name}-layers", 260)


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

"""The Degradation page's charts: curves with bands, what they come to in a sentence, and each concept's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import pandas as pd
import streamlit as st

from app import charts, filters, links, resources, study_page
from app.table_height import fitting
from app.text import code, plain
from mmn.figures.figure import Drawn
from mmn.figures.wording import k_text
from mmn.names import ABLATE, ANOTHER, EVERYWHERE, PERTURB, RANDOM, SCALE, SET, TOP
from mmn.studies.degradation.curves import describe_drop, half_at, probability_drop
from mmn.studies.degradation.own import controls_command, describe_own, own_parts
from mmn.studies.degradation.queries import EffectFilter, EffectQueries
from mmn.view import View

ABLATED: Final = {
    "probability": "prob",
    "share of the untouched": "relative",
    "logit": "logit",
    "share among nouns": "share",
}
NOISY: Final = {
    "captions that lose the noun": "lost",
    "probability": "prob",
    "similarity": "similarity",
    "share among nouns": "share",
}
OF_CAPTIONS: Final = ("lost", "similarity")
TEXTS: Final = ("perplexity-captions", "perplexity")
SCALED: Final = {"probability": "prob", "share of the untouched": "relative"} | NOISY  # the same, the first one first
AXES: Final = {"σ": "sigma", "k": "k"}


@dataclass(frozen=True)
class Sized:
    """How the page shows changes that have a size: the figure, what it shows, its axes, and the widgets' keys."""

    figure: str
    measures: Mapping[str, str]
    axes: Mapping[str, str]
    keys: tuple[str, str]


SIZED: Final = {
    PERTURB: Sized("perturbation", NOISY, AXES, ("noisy", "axis")),
    SCALE: Sized("scaling", SCALED, {"×": "factor", "k": "k"}, ("scaled", "factor-axis")),
}


def ablation(run: dict[str, Any], view: View, is_captioned: bool) -> None:
    """Curves against k: the probability, then the captions; the sentences that sum them up; concepts and layers at a k.

    Args:
        run: its row.
        view: the scores, concepts, layers and nouns to look at.
        is_captioned: whether the model was let write again.
    """
    relative = _drawn("degradation", view, "relative")
    means = resources.store().ask(EffectQueries).means(run["run_id"], EffectFilter.of(view, ABLATE))
    _sentences(run, view, relative.rows.data)
    _own(run, view, means, ABLATE)
    asked = st.segmented_control(
        "Show", list(ABLATED), default="probability", required=True, key="quantity", bind="query-params"
    )
    measure = ABLATED[asked]
    if measure == "relative":
        charts.show_drawn(relative)
    else:
        study_page.guarded(lambda: charts.show_drawn(_drawn("degradation", view, measure)))
    _texts(view, means, "degradation")
    if is_captioned:
        for of_caption in OF_CAPTIONS:
            charts.show_drawn(_drawn("degradation", view, of_caption))
    else:
        st.caption(
            "The model did not caption again (no `--captions`), so it is not known which captions lose the noun."
        )
    _at_one_k(run, view, relative.rows.data)


def sized(run: dict[str, Any], view: View, is_captioned: bool, kind: str) -> None:
    """Curves against the size of the noise, the factor or the number of units; whether a drop is the noun's own.

    Args:
        run: its row.
        view: one score, and the concepts, layers and nouns to look at.
        is_captioned: whether the model was let write again.
        kind: of intervention.
    """
    how = SIZED[kind]
    means = resources.store().ask(EffectQueries).means(run["run_id"], EffectFilter.of(view, kind))
    _own(run, view, means, kind)
    left, right = st.columns([3, 2])
    asked = left.segmented_control(
        "Show",
        list(how.measures),
        default=next(iter(how.measures)),
        required=True,
        key=how.keys[0],
        bind="query-params",
    )
    axis = right.segmented_control(
        "Against", list(how.axes), default=next(iter(how.axes)), required=True, key=how.keys[1], bind="query-params"
    )
    measure = how.measures[asked]
    if measure in OF_CAPTIONS and not is_captioned:
        st.info("The model did not caption again under this change (no `--captions`): only the probability is known.")
        return
    along = replace(view, against=how.axes[axis])
    study_page.guarded(lambda: charts.show_drawn(_drawn(how.figure, along, measure)))
    _texts(along, means, how.figure)


def _drawn(figure: str, view: View, measure: str) -> Drawn:
    """The figure of one measure; only that of the similarity asks which one."""
    metric = view.metric if measure == "similarity" else ()
    return charts.drawn(figure, replace(view, measure=measure, metric=metric))


def _sentences(run: dict[str, Any], view: View, relative: pd.DataFrame) -> None:
    """How far the probability falls, by each score."""
    is_top = (relative["selection"] == TOP) & (relative["positions"] == EVERYWHERE)
    for method in view.methods:
        if (is_top & (relative["method"] == method)).any():
            of = f"{plain(method)}: " if len(view.methods) > 1 else ""
            drop = probability_drop(relative, method)
            st.markdown(f"**{of}{describe_drop(drop, filters.n_units(run))}**")


def _own(run: dict[str, Any], view: View, means: pd.DataFrame, kind: str) -> None:
    """How much of each drop is the noun's own; where that was not measured, what measures it."""
    command = f"python -m mmn {controls_command(run['run_id'], kind)}"
    parts = own_parts(means, filters.n_units(run))
    if kind in SIZED:  # one for each size of the change
        parts = [one for one in parts if one.k == max(other.k for other in parts)]
    for part in parts:
        of = f"{plain(part.method)}: " if len(view.methods) > 1 else ""
        st.markdown(f"{of}{describe_own(part, filters.n_units(run), code(command))}")


def _texts(view: View, means: pd.DataFrame, figure: str) -> None:
    """What the same interventions do to text that has nothing to do with the picture."""
    st.subheader("Text without a picture")
    if means[["nats", "nats_captions"]].isna().all(axis=None):
        st.caption("The perplexity of text was not measured for these nouns (`--text-pictures`).")
        return
    st.caption(
        "Units that are specific to one noun should not affect other text. Captions of the run that say none of "
        "these nouns are text in the model's own style. Plain English is foreign to a model trained only on "
        "captions, as the bundled specimen was: its perplexity exceeds the vocabulary size even without any "
        "change, and says little."
    )
    with charts.grid("texts"):
        for measure in TEXTS:
            with st.container():
                study_page.guarded(partial(_small, figure, view, measure))


def _small(figure: str, view: View, measure: str) -> None:
    charts.show_drawn(_drawn(figure, view, measure))


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
    rows = resources.store().ask(EffectQueries).by_concept(run["run_id"], EffectFilter.of(one, ABLATE))
    _concepts(run, rows[rows["positions"] == rows["positions"].min()], k)  # everywhere, where that was measured
    if method.startswith(SET):
        st.caption("In which layers the units of a set lie: `mmn units show NAME`.")
        return
    if k > filters.stored_k(run):
        st.caption(f"Their layers are known up to k = {filters.stored_k(run):,}: the run stored no more units.")
        return
    charts.show("ablated-layers", one)


def _concepts(run: dict[str, Any], rows: pd.DataFrame, k: int) -> None:
    """A row for each lemma: its probability before, what its own units, another picture's and random ones take away,
    and the k that halves it.
    """
    per_lemma = rows.groupby(["lemma", "selection", "k"], as_index=False)[["prob", "baseline_prob", "n_nouns"]].mean()
    per_lemma["mean"] = per_lemma["prob"] / per_lemma["baseline_prob"]
    lines = (per_lemma[per_lemma["selection"] == one].set_index("lemma") for one in (TOP, ANOTHER, RANDOM))
    top, another, random = lines
    table = pd.DataFrame(
        {
            "n": top.groupby("lemma")["n_nouns"].max(),
            "baseline": top[top["k"] == k]["baseline_prob"],
            "drop": 100 * (1 - top[top["k"] == k]["mean"]),
            "another": 100 * (1 - another[another["k"] == k]["mean"]),
            "random": 100 * (1 - random[random["k"] == k]["mean"]),
            "half": pd.Series({lemma: _half(curve) for lemma, curve in top.groupby("lemma")}, dtype=float),
        }
    )
    table = table.sort_values(["n", "drop"], ascending=False).reset_index(names="lemma")
    shares = ["drop", "another", "random"]
    table[shares] = table[shares].round() + 0.0  # or a rise of less than half a percent reads -0
    number = st.column_config.NumberColumn
    st.dataframe(
        table.assign(concept=[links.concept_url(run, lemma) for lemma in table["lemma"]]),
        hide_index=True,
        height=fitting(len(table), 330),
        placeholder="–",
        column_order=["concept", "n", "baseline", "drop", "another", "random", "half"],
        column_config={
            "concept": st.column_config.LinkColumn(
                "Concept", display_text=links.CONCEPT_IN_URL, alignment="left", help="Opens its pictures in a new tab"
            ),
            "n": number("Captions", format="%d", width=75),
            "baseline": number("Probability", format="%.2f", help="In the unchanged model, mean"),
            "drop": number(
                "Drop, %", format="%.0f", help="The drop by the top units, as a share of that; negative: it rises"
            ),
            "another": number(
                "Another's, %", format="%.0f", help="The drop by the top units of another picture's noun"
            ),
            "random": number("Random, %", format="%.0f", help="The drop by random units, mean over draws"),
            "half": number(
                "Halved at k",
                format="%.0f",
                help="Number of top units that halve it, linear between the measured k; –: none",
            ),
        },
    )


def _half(curve: pd.DataFrame) -> float | None:
    ordered = curve.sort_values("k")
    return half_at(ordered["k"].tolist(), ordered["mean"].tolist())

"""The Invariance page's two halves: one picture shuffled, and several pictures of a concept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import streamlit as st

from app import experiments, links, resources, state, widgets
from app.text import plain
from mmn.errors import UsageError
from mmn.figures.wording import led_concepts
from mmn.statistics.interval_words import TOO_FEW, interval_words, percent
from mmn.studies.invariance.cross_image_figures import cross_image_invariance, shared_by_layer
from mmn.studies.invariance.cross_image_queries import CrossImageQueries
from mmn.studies.invariance.figures import invariance_by_concept, kept_by_layer, region_invariance
from mmn.studies.invariance.queries import InvarianceQueries

ROW: Final = 19  # pixels of a concept in a chart
SURVIVAL: Final = "Of the captions' nouns, those that the shuffled captions say, too"


def region(run: dict[str, Any], measured: pd.DataFrame, lemmas: Sequence[str]) -> None:
    """Curves against k, and at one k concepts and layers."""
    ks = sorted({int(k) for k in measured["k"]})
    methods = experiments.methods_picker(list(dict.fromkeys(measured["method"])))
    layers = experiments.leading_layers(run)
    if not methods:
        st.info("Choose at least one score above.", icon=":material/tune:")
        return
    if layers is None:
        survival(run, lemmas)
    else:
        survival_by_score(run, methods, lemmas, layers)
    data = resources.store().ask(InvarianceQueries).shuffled(run["run_id"], methods, ks, lemmas, layers)
    said = led_concepts(lemmas, layers)
    widgets.show_figure(region_invariance(data, run, said), data, f"{run['run_id'][:8]}-invariance", 480)
    st.subheader("At one k")
    left, right = st.columns([3, 2])
    with left:
        method = widgets.ranking_picker(methods)
    with right:
        k = experiments.one_k_picker(run, ks)
    name = f"{run['run_id'][:8]}-invariance-{method}-{k}"
    kept = resources.store().ask(InvarianceQueries).kept_by_layer(run["run_id"], method, k, lemmas, layers)
    widgets.show_figure(kept_by_layer(kept, run, method, k, said), kept, f"{name}-layers", 380)
    rows = resources.store().ask(InvarianceQueries).by_concept(run["run_id"], method, k, lemmas, layers)
    chart = invariance_by_concept(rows, run, method, k, said)
    widgets.show_figure(chart, rows, f"{name}-concepts", 220 + ROW * len(rows))
    table(run, rows.rename(columns={"lemma": "concept"}))


def survival(run: dict[str, Any], lemmas: Sequence[str]) -> None:
    """How many nouns the shuffled captions say at all."""
    found = resources.store().ask(InvarianceQueries).surviving_concepts(run["run_id"], lemmas)
    if not found["n_images"]:
        return
    left, right = st.columns([1, 3], vertical_alignment="center")
    left.metric("Survive", percent(found["share"]))
    interval = interval_words(found["low"], found["high"], found["n_images"], ".0%")
    right.caption(
        f"{SURVIVAL}: {'' if np.isnan(found['low']) else '95 % interval by picture '}{interval}; "
        f"{found['n_kept']:,} of {found['n_concepts']:,} nouns, over {state.count(found['n_images'], 'picture')} and "
        f"{state.count(found['n_draws'], 'permutation')}. The charts compare the nouns that are in both captions."
    )


def survival_by_score(
    run: dict[str, Any], methods: Sequence[str], lemmas: Sequence[str], layers: tuple[int, int]
) -> None:
    """The same of the nouns that the layers lead, which are others by each score."""
    store = resources.store()
    rows = pd.DataFrame(
        [store.ask(InvarianceQueries).surviving_concepts(run["run_id"], lemmas, method, layers) for method in methods]
    )
    rows = rows.assign(score=methods)[rows["n_images"] > 0]
    if rows.empty:
        return
    number = st.column_config.NumberColumn
    columns: dict[str, Any] = {"score": st.column_config.TextColumn("Led by", help="The score of the first unit")}
    shares = {"share": "Survive", "low": "from", "high": "to"}
    columns |= {name: number(title, format="%.0f %%") for name, title in shares.items()}
    rows = rows.assign(**{name: 100 * rows[name] for name in shares})
    columns |= {"n_kept": number("In both"), "n_concepts": number("Nouns"), "n_images": number("Pictures")}
    st.caption(f"{SURVIVAL}: means over pictures, then permutations, with their 95 % intervals by picture. {TOO_FEW}")
    st.dataframe(rows, hide_index=True, column_order=list(columns), column_config=columns)


def across(run: dict[str, Any], measured: pd.DataFrame, lemmas: Sequence[str]) -> None:
    """Concepts, each with the units that several of its pictures share."""
    left, middle, right = st.columns([3, 2, 2])
    with left:
        method = widgets.ranking_picker(list(dict.fromkeys(measured["method"])))
    rows = measured[measured["method"] == method]
    sizes = sorted({int(n) for n in rows["n"]})
    n = right.selectbox("Pictures of each concept", sizes, key="pictures", bind="query-params")
    with middle:
        k = experiments.one_k_picker(run, sorted({int(k) for k in rows.loc[rows["n"] == n, "k"]}))
    layers = experiments.chosen_layers(run)
    name = f"{run['run_id'][:8]}-cross-image-{method}-{k}-{n}"
    where_shared(run, method, k, n, lemmas, layers, f"{name}-layers")
    data = resources.store().ask(CrossImageQueries).across_pictures(run["run_id"], method, k, n, lemmas, layers)
    chart = cross_image_invariance(data, run, method, k, layers)
    widgets.show_figure(chart, data, name, 190 + ROW * len(data))
    table(run, data.rename(columns={"noun": "concept"}))


def where_shared(
    run: dict[str, Any],
    method: str,
    k: int,
    n: int,
    lemmas: Sequence[str],
    layers: tuple[int, int] | None,
    name: str,
) -> None:
    """The layers of the shared units, the chosen ones in full colour; or that they were counted without."""
    try:
        data = resources.store().ask(CrossImageQueries).shared_by_layer(run["run_id"], method, k, n, lemmas)
    except UsageError as error:
        st.info(f"{plain(error)}.", icon=":material/update:")
        return
    chart = shared_by_layer(data, run, method, k, n, led_concepts(lemmas), layers)
    widgets.show_figure(chart, data, name, 380)


def table(run: dict[str, Any], rows: pd.DataFrame) -> None:
    """The numbers of a chart by concept, each with the way to its pictures."""
    cross = "n_draws" in rows
    shares = {
        "ratio": ("In common", ""),
        "ratio_low": (
            "from",
            "The lowest draw; empty for a single one" if cross else f"95 % interval by picture. {TOO_FEW}",
        ),
        "ratio_high": ("to", "The highest draw" if cross else ""),
        "floor_other_noun": ("Another noun", "The floor; empty where no picture has another"),
        "difference": ("Above the floor", ""),
        "floor_random": ("Random units", "In the same layers") if cross else ("Chance", "k over the units ranked"),
    }
    number = st.column_config.NumberColumn
    columns: dict[str, Any] = {"concept": experiments.concept_column()}
    columns |= {name: number(title, format="%.1f %%", help=told or None) for name, (title, told) in shares.items()}
    columns |= {"n_images": number("Pictures", help="With the noun in both captions"), "n_draws": number("Draws")}
    survives = "Benjamini–Hochberg, q = .05, of all rows, against " + ("random units" if cross else "another noun")
    columns |= {"is_discovery": st.column_config.CheckboxColumn("Survives", help=survives)}
    percent = {name: 100 * rows[name] for name in shares if name in rows}
    shown = rows.assign(concept=[links.concept_url(run, lemma) for lemma in rows["concept"]], **percent)
    order = [name for name in columns if name in shown]
    st.dataframe(shown, hide_index=True, column_order=order, column_config=columns)

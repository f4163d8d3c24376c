"""The filters that pages share, which are also the address (`mmn.view`): each a widget whose key is the parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pandas as pd
import streamlit as st

from app import resources, state, widgets
from app.glossary import tip
from app.text import plain
from mmn.counts import counted
from mmn.figures.wording import k_text
from mmn.names import RANDOM, RAW, WORD_ROWS, default_method, meaning
from mmn.statistics.interval_words import percent
from mmn.store.generality import GeneralityQueries
from mmn.store.neurons import NeuronQueries
from mmn.store.pictures import PictureQueries
from mmn.view import View

MOST_METHODS: Final = 6  # curves that can be told apart
SCORES: Final = tip("How a unit's contribution to a noun is measured.", "score", "unit", "random units")
ANY: Final = "all"  # nouns: no unit is hidden
WIDE: Final = 240  # pixels of a filter in the bar
NARROW: Final = 155
GENERALITIES: Final = ("50 %", "20 %", "10 %", "5 %", "2 %")


def tidy_filters(run: dict[str, Any], methods: Sequence[str], concepts: pd.DataFrame) -> None:
    """Lets hand-written and foreign values of the filters below mean what they can (`state.tidy_address`)."""
    labels = concept_labels(concepts)
    state.rename_address({"led": "layers"})  # as it was called on three of the pages
    state.tidy_address(
        {
            "method": lambda text: text if text in methods else None,
            "k": lambda text: _k_label(run, text),
            "concept": lambda text: labels.get(text.partition(" (")[0]),
            "general": _general_label,
            "words": _rows_label,
        }
    )
    for key, known in (("concept", labels.values()), ("method", methods)):  # chosen in another run
        chosen = st.session_state.get(key, [])
        if any(text not in known for text in chosen):
            meant = [labels.get(text.partition(" (")[0], text) for text in chosen]
            st.session_state[key] = [text for text in meant if text in known]


def method_picker(methods: Sequence[str]) -> list[str]:
    """Scores of the run; at first the default one."""
    usual = state.usual("method", [default_method(methods)] if methods else [])
    return st.multiselect(
        "Scores", methods, default=usual, key="method", bind="query-params", wrap=True, width=WIDE, help=SCORES
    )


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
        width=2 * WIDE,
        help=SCORES,
    )


def ranking_picker(methods: Sequence[str]) -> str:
    """One score of the run (`?ranking=`), with every score's equation and source to look up."""
    if st.session_state.get("ranking") not in (None, *methods):
        del st.session_state["ranking"]  # of another run
    told = "\n".join(f"- **{plain(method)}**: {_defined(method)}" for method in methods)
    usual = methods.index(state.usual("ranking", default_method(methods)))
    return st.selectbox(
        "Ranked by", methods, index=usual, key="ranking", bind="query-params", help=f"{SCORES}\n\n{told}", width=WIDE
    )


def define(method: str) -> None:
    """The equation of the score that units are ranked by, and where it is from."""
    st.caption(f"{plain(method)}: {_defined(method)}")


def tell_conserved(run: dict[str, Any], image_id: str, noun: str, method: str) -> None:
    """How much of what a score's terms should add up to they miss, where they should add up to something."""
    found = resources.store().ask(PictureQueries).conserved(run["run_id"], image_id, noun, method)
    if found is not None:
        expected, total = found
        st.caption(f"Its terms add up to {total:.3f} of {expected:.3f} logits: {expected - total:.1e} are missing.")


def concept_picker(concepts: pd.DataFrame) -> list[str]:
    """Lemmas to filter by, each with the number of pictures whose caption says it; none means all."""
    labels = list(concept_labels(concepts).values())
    state.usual("concept", [])
    chosen = st.multiselect(
        "Concepts (pictures)",
        labels,
        key="concept",
        bind="query-params",
        placeholder="All",
        wrap=True,
        width=NARROW,
        help=tip("Only captions that say one of these nouns.", "concept"),
    )
    return [text.partition(" (")[0] for text in chosen]


def k_picker(run: dict[str, Any]) -> list[int]:
    """Several k, as numbers or shares of all units, at most what the run stored; sorted, without what means nothing."""
    n, top_k = n_units(run), stored_k(run)
    given = st.multiselect(
        "Units per picture, k (share of all units)",
        [k_text(k, n) for k in state.k_options(n, top_k)],
        default=state.usual("k", [k_text(k, n) for k in state.default_ks(n, top_k)]),
        key="k",
        bind="query-params",
        accept_new_options=True,
        wrap=True,
        width=280,
        help=tip(
            f"Choose, or type a number or a share such as 2 %. This run keeps the top {top_k:,} of "
            f"{counted(n, 'unit')}.",
            "k",
        ),
    )
    ks = {text: state.parse_k(text, n, top_k) for text in given}
    if ignored := [text for text, k in ks.items() if k is None]:
        st.caption(f":orange[Left out: {plain(', '.join(ignored), 200)}] (k is from 1 to {top_k:,} in this run)")
    return sorted({k for k in ks.values() if k is not None})


def one_k_picker(run: dict[str, Any], ks: Sequence[int]) -> int:
    """One of the measured k (`?size=`), at first the one next to 1.4 % of all units."""
    n = n_units(run)
    labels = {k_text(k, n): k for k in ks}
    if st.session_state.get("size") not in (None, *labels):
        del st.session_state["size"]  # of another run
    state.tidy_address({"size": lambda text: next((s for s, k in labels.items() if text in (s, str(k))), None)})
    usual = min(range(len(ks)), key=lambda place: abs(ks[place] - 0.014 * n))
    state.usual("size", list(labels)[usual])
    told = tip("Number of units compared, and their share of all units.", "k")
    return labels[
        st.selectbox("k", list(labels), index=usual, key="size", bind="query-params", help=told, width=NARROW)
    ]


def chosen_layers(
    run: dict[str, Any], told: str = "Keeps the units that lie in these layers."
) -> tuple[int, int] | None:
    """First and last layer (`?layers=`), kept from page to page; None for all. `told`: what the page keeps by them."""
    whole = (0, run["n_layers"] - 1)
    if whole == (0, 0):
        return None
    state.usual("layers", whole)
    if st.session_state.get("layers", whole)[1] > whole[1]:
        del st.session_state["layers"]  # of a deeper run
    told = tip(told, "layer")
    layers = st.slider("Layers", *whole, whole, key="layers", bind="query-params", help=told, width=NARROW)
    return None if layers == whole else layers


def leading_layers(run: dict[str, Any]) -> tuple[int, int] | None:
    """First and last layer in which a noun's first unit may lie; None for all."""
    return chosen_layers(
        run,
        "Keeps the nouns whose top unit, by the score, lies in these layers. Their other units may lie anywhere.",
    )


def kind_picker(run: dict[str, Any], kinds: list[str]) -> str:
    """All units, or those whose decoded tokens are words, or the others; only once units of the run are decoded."""
    if not resources.store().ask(NeuronQueries).are_top_units_decoded(run["run_id"]):
        st.session_state.pop("units", None)
        st.caption(f"To separate interpretable units: {widgets.annotate(run)}")
        return kinds[0]
    return st.segmented_control(
        "Units",
        kinds,
        default=state.usual("units", kinds[0]),
        required=True,
        key="units",
        bind="query-params",
        help="Interpretable: at least 7 of the 10 tokens that the unit promotes most are English words of 3 "
        "letters or more (P1). In models with many units only the top ones are decoded; the others are in "
        "neither group.",
    )


def generality_picker() -> float | None:
    """The share of nouns that a unit may lead before it is hidden (`?general=`); None for any."""
    state.usual("general", ANY)
    chosen = st.selectbox(
        "Hide general units over",
        [ANY, *GENERALITIES],
        key="general",
        bind="query-params",
        accept_new_options=True,
        width=NARROW,
        help="A unit leads a noun in a picture if it is among the noun's top 1.4 % of all units (or among those "
        "the run stored), by the score shown. Its generality is the share of a noun's pictures in which it "
        "leads, averaged over nouns. The other units keep their ranks.",
    )
    return View.from_address({"general": [chosen or ANY]}).generality


def words_picker() -> str:
    """The rows of W_U that units' words are by (`?words=`)."""
    state.usual("words", RAW)
    return st.segmented_control(
        "Words by rows of W_U",
        list(WORD_ROWS),
        default=RAW,
        required=True,
        key="words",
        bind="query-params",
        help="Raw: the tokens that a unit promotes most (P1, P2). Centred: the same tokens, with the value above "
        "the mean token. Cosine: the tokens whose rows of W_U have the highest cosine with what the unit "
        "writes, whatever their length.",
    )


def tidy_words() -> None:
    """Lets a hand-written `?words=` mean what it can, on a page without the other filters."""
    state.tidy_address({"words": _rows_label})


def told_generality(run: dict[str, Any], method: str, by: str = "") -> str:
    """What a unit's generality is of, beside chance and beside the most general random unit.

    Args:
        run: its row.
        method: by which it is told.
        by: words that say so, where the page is not of one method.
    """
    queries = resources.store().ask(GeneralityQueries)
    told = queries.told(run["run_id"], method)
    known = f"by chance {percent(told['chance'], 1)}" if told["chance"] == told["chance"] else "chance is not known"
    has_random = RANDOM in resources.store().score_methods(run["run_id"])
    drawn = (
        f", at most {percent(queries.told(run['run_id'], RANDOM)['most'], 1)} by random rankings" if has_random else ""
    )
    return f"General{by}: the share of nouns whose top {k_text(int(told['k']), n_units(run))} have it; {known}{drawn}."


def _general_label(text: str) -> str | None:
    found = View.from_address({"general": [text]}).to_address().get("general")
    return found[0] if found else None


def _rows_label(text: str) -> str | None:
    return text if text in WORD_ROWS else None


def concept_labels(concepts: pd.DataFrame) -> dict[str, str]:
    """Lemma to `dog (12)`."""
    return {row.lemma: f"{row.lemma} ({row.n_images:,})" for row in concepts.itertuples()}


def n_units(run: dict[str, Any]) -> int:
    """The units that a ranking of this run runs over, L·m."""
    return int(run["n_layers"]) * int(run["d_mlp"])


def stored_k(run: dict[str, Any]) -> int:
    """The largest k that the run's rankings hold."""
    return min(int(run["settings"]["top_k"]), n_units(run))


def _defined(method: str) -> str:
    known = meaning(method)
    return plain(f"{known.equation} (read at: {known.position}; {known.source})")


def _k_label(run: dict[str, Any], text: str) -> str | None:
    k = state.parse_k(text, n_units(run), stored_k(run))
    return None if k is None else k_text(k, n_units(run))

"""What does a noun stand for in the model? Its concepts as cards, and whether their words fit pictures held out."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from app import charts, filter_bar, links, pictures, resources, state, study_page
from app.text import plain
from mmn.core import Neuron
from mmn.counts import counted
from mmn.errors import UsageError
from mmn.statistics.interval_words import percent
from mmn.store.pictures import PictureQueries
from mmn.studies.dictionaries.queries import DictionaryQueries
from mmn.studies.dictionaries.rows import site_words
from mmn.view import View

MOST_CARDS = 40
INTRODUCTION = (
    "In every caption that says a noun, one hidden state predicts it. Here these states are written as sums of a "
    "few **concepts** (CoX-LMM; its code was read): directions, each with the words that the model writes along it "
    "and the pictures where it is strongest. In a dictionary of units (ours) a concept is a set of units that are "
    "active together."
)


def page() -> None:
    run = study_page.chosen_run()
    st.markdown(INTRODUCTION)
    filter_bar.none()
    job = study_page.measurement("dictionaries")
    if not study_page.is_measured(run, job):
        return
    known = resources.store().ask(DictionaryQueries).dictionaries(run["run_id"])
    about = chosen(known)
    told(about)
    cards(run, about)
    view = View(run["run_id"], noun=about["noun"], dictionary=about["dictionary"], concepts=(about["noun"],))
    with charts.grid("dictionaries"):
        for figure in ("dictionary-concepts", "dictionaries"):
            with st.container():
                study_page.guarded(partial(shown, figure, view))
    study_page.measure_again(run, job)


def shown(figure: str, view: View) -> None:
    charts.show(figure, view)


def chosen(known: pd.DataFrame) -> pd.Series:
    """The row of the dictionary that the two pickers, and the address, name."""
    nouns = list(dict.fromkeys(known["noun"]))
    state.tidy_address({"noun": lambda text: text if text in nouns else None})
    if st.session_state.get("noun") not in (None, *nouns):
        del st.session_state["noun"]
    row = st.container(horizontal=True, gap="large", vertical_alignment="bottom")
    noun = row.selectbox("Noun", nouns, key="noun", bind="query-params", width=200)
    of_noun = known[known["noun"] == noun]
    names = of_noun["dictionary"].tolist()
    state.tidy_address({"dictionary": lambda text: text if text in names else None})
    if st.session_state.get("dictionary") not in (None, *names):
        del st.session_state["dictionary"]
    name = row.selectbox("Dictionary", names, key="dictionary", bind="query-params", width=320)
    return of_noun[of_noun["dictionary"] == name].iloc[0]


def told(about: pd.Series) -> None:
    """What the dictionary is of, and how much it holds."""
    asked = int(about["dictionary"].rpartition(":k")[2].partition(":")[0])
    fewer = f" ({asked} would have fewer than five pictures each)" if about["k"] < asked else ""
    of = f"{counted(about['n_fit'], 'picture')}; {int(about['n_test'])} more were held out"
    rest = f"{percent(about['explained'])} of the variance of these, {percent(about['explained_test'])} of the others'"
    words = f"Two concepts share {percent(about['word_overlap'])} of their words"
    if pd.notna(about["word_overlap_random"]):
        words += f", two random directions {percent(about['word_overlap_random'])}"
    of_what = plain(site_words(about["site"]))
    st.caption(f"{counted(about['k'], 'concept')} of {of_what}{fewer}, made of {of}. They explain {rest}. {words}.")


def cards(run: dict[str, Any], about: pd.Series) -> None:
    """A card for each concept: how many pictures it leads, its words, its pictures, its units."""
    queries = resources.store().ask(DictionaryQueries)
    found = queries.concepts(run["run_id"], about["noun"], about["dictionary"])
    units = queries.unit_words(run["run_id"], found)
    with charts.grid("cards"):
        for concept in found.head(MOST_CARDS).to_dict("records"):
            with st.container(border=True):
                card(run, concept, units)
    if len(found) > MOST_CARDS:
        others = counted(len(found) - MOST_CARDS, "other concept")
        st.caption(f"Strongest in fewer pictures: {others}; the exported table has them.")


def card(run: dict[str, Any], concept: dict[str, Any], units: dict[tuple[int, int], list[str]]) -> None:
    led, led_test = percent(concept["led"]), percent(concept["led_test"])
    st.markdown(f"**{int(concept['concept']) + 1}** · leads {led} of its pictures, {led_test} of those held out")
    words = ", ".join(concept["words"])
    if words:
        st.markdown(plain(words))
    else:
        st.caption("None of its 50 likeliest tokens is an English word.")
    thumbnails(run, concept)
    for layer, unit, weight in list(zip(concept["layers"], concept["units"], concept["weights"], strict=True))[:5]:
        unit_line(run, Neuron(int(layer), int(unit)), float(weight), units.get((int(layer), int(unit)), []))


def thumbnails(run: dict[str, Any], concept: dict[str, Any]) -> None:
    """The pictures with most of a concept; a click opens the picture."""
    rows = []
    for image_id, coefficient in zip(concept["images"], concept["coefficients"], strict=True):
        try:
            found = resources.store().ask(PictureQueries).picture(run["run_id"], image_id)
        except UsageError:
            continue
        rows.append({name: found[name] for name in ("image_id", "source", "text")} | {"note": f"{coefficient:.2f}"})
    if not rows:
        st.caption("No picture contains it.")
        return
    clicked = pictures.tiles(pd.DataFrame(rows), f"concept-{int(concept['concept'])}")
    if clicked:
        links.go_to_image(clicked, st.session_state["noun"])


def unit_line(run: dict[str, Any], neuron: Neuron, weight: float, tokens: list[str]) -> None:
    """A unit that carries the concept, its weight, and what it writes where that is known."""
    url = links.neuron_url(run, neuron)
    says = f": {plain(', '.join(tokens[:5]))}" if tokens else ""
    st.markdown(f"[{neuron}]({url}) {weight:+.2f}{says}")


page()

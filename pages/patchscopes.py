"""What do states of nouns and image tokens say in a text prompt, and whose company do image tokens keep?"""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import charts, filter_bar, filters, links, picture_strip, resources, state, study_page
from app.text import plain
from mmn.store.pictures import PictureQueries
from mmn.studies.patchscopes.queries import PatchscopeQueries
from mmn.studies.patchscopes.tables import IMAGE, LENS, NOUN, PATCH
from mmn.view import View

INTRODUCTION = (
    "A state (the residual stream after a layer) replaces the state of the last token of a text prompt, and the "
    "same decoder continues from there (Patchscopes; its code was read). Where the logit lens says nothing yet, "
    "the layers above may still turn the state into a word. Controls: the logit lens of the same state, the state "
    "of another picture with other nouns, and a random state of the same length."
)
COMPANY = (
    "Which words are near an image token? These are the words in sentences whose states, after the same layer, "
    "have the highest cosine with its own (LatentLens, known from its README and notes only). The sentences are "
    "ours, and the run's references and captions, except those of the picture. Chance: a word drawn from them at "
    "random."
)


def page() -> None:
    run = study_page.chosen_run()
    st.markdown(INTRODUCTION)
    job = study_page.measurement("patchscopes")
    if not study_page.is_measured(run, job):
        filter_bar.none()
        return
    view = chosen_view(run)
    study_page.guarded(lambda: over_all(view))
    neighbours(run)
    one_picture(run, view.setting)
    study_page.measure_again(run, job)


def chosen_view(run: dict[str, Any]) -> View:
    """The nouns and the setting that the page's filters choose."""
    settings = resources.store().ask(PatchscopeQueries).settings(run["run_id"])
    concepts = resources.store().concepts(run["run_id"])
    filters.tidy_filters(run, [], concepts)
    with filter_bar.bar():
        lemmas = filters.concept_picker(concepts)
        setting = setting_picker(settings)
    return View(run["run_id"], concepts=tuple(lemmas), setting=setting)


def setting_picker(settings: list[str]) -> str:
    """The prompt and the layer that states were written into (`?setting=`)."""
    if st.session_state.get("setting") not in (None, *settings):
        del st.session_state["setting"]  # of another run
    state.tidy_address({"setting": lambda text: text if text in settings else None})
    told = "The prompt, and the layer that states are written into: the layer that they are from, or a fixed one."
    return st.selectbox("Prompt and layer", settings, key="setting", bind="query-params", help=told, width=filters.WIDE)


def over_all(view: View) -> None:
    """The figures of nouns side by side, then that of image tokens."""
    with charts.grid("nouns"):
        for name in ("patchscopes", "patchscopes-surprisal"):
            with st.container():
                charts.show(name, view)
    charts.show("patchscopes-image", view)
    st.caption("An image token says the noun if the noun's first token is the most probable next token.")


def neighbours(run: dict[str, Any]) -> None:
    """The figure of neighbours, or the offer to look for them."""
    st.subheader("Neighbours in sentences")
    st.markdown(COMPANY)
    if study_page.is_measured(run, study_page.measurement("patchscopes", "neighbours")):
        study_page.guarded(lambda: _show_neighbours(run))


def _show_neighbours(run: dict[str, Any]) -> None:
    charts.show("neighbours", View(run["run_id"]))


def one_picture(run: dict[str, Any], setting: str) -> None:
    """What each noun's state of one picture says after every layer, and each image token's after one."""
    st.subheader("One picture")
    queries = resources.store().ask(PatchscopeQueries)
    found = resources.store().ask(PictureQueries).pictures(run["run_id"])
    read = found[found["image_id"].isin(queries.pictures(run["run_id"]))]
    picture = picture_strip.chosen_picture(run, read)
    picture_strip.show(run, read, picture)
    if picture is None:
        return
    words = queries.words(run["run_id"], picture["image_id"], setting)
    if words.empty:
        st.info("The states of this picture were not read.", icon=":material/search_off:")
        return
    st.markdown(f"#### “{plain(picture['text'] or 'no caption')}”")
    links.image_link(run, picture["image_id"])
    concepts = resources.store().ask(PictureQueries).concepts(run["run_id"], picture["image_id"])
    st.dataframe(
        noun_table(words, dict(zip(concepts["position"], concepts["noun"], strict=True))),
        hide_index=True,
        placeholder="–",
    )
    image_tokens(words, queries.company(run["run_id"], picture["image_id"]))


def noun_table(words: pd.DataFrame, nouns: dict[int, str]) -> pd.DataFrame:
    """A row for each layer, two columns for each noun: what its state says in the prompt, and by the logit lens."""
    rows = words[words["source"] == NOUN].assign(says=_said)
    titles = [(place, reading) for place in sorted(set(rows["token_position"])) for reading in (PATCH, LENS)]
    wide = rows.pivot_table("says", "layer", ["token_position", "reading"], aggfunc="first").reindex(columns=titles)
    wide.columns = [f"{nouns.get(place, '?')}: {_NAMES[reading].lower()}" for place, reading in titles]
    return wide.rename_axis("After layer").reset_index()


def image_tokens(words: pd.DataFrame, company: pd.DataFrame) -> None:
    """A row for each image token that was read: its words after one layer, read in three ways."""
    rows = words[words["source"] == IMAGE].assign(says=_said)
    layers = [int(layer) for layer in sorted(set(rows["layer"]))]
    if st.session_state.get("after") not in (None, *layers):
        del st.session_state["after"]  # of another run
    layer = layers[0] if len(layers) == 1 else st.select_slider("After layer", layers, layers[-1], key="after")
    wide = rows[rows["layer"] == layer].pivot_table("says", "token_position", "reading", aggfunc="first")
    wide = wide.reindex(columns=[PATCH, LENS]).rename(columns=_NAMES)
    near = company[company["layer"] == layer].set_index("token_position")
    if len(near):
        wide["Nearest word"] = near["words"].str[0]
        wide["Cosine"] = near["scores"].str[0].round(3)
        wide["In the sentence"] = near["contexts"].str[0]
    st.dataframe(wide.rename_axis("Image token").reset_index(), hide_index=True, placeholder="–")


_NAMES = {PATCH: "Patchscope", LENS: "Logit lens"}


def _said(words: pd.DataFrame) -> list[str]:
    """`dog .93`, or where more was read on, all of it."""
    more = [
        text if isinstance(text, str) else tokens[0]
        for text, tokens in zip(words["said"], words["tokens"], strict=True)
    ]
    return [f"{text.strip() or repr(text)} {scores[0]:.2f}" for text, scores in zip(more, words["scores"], strict=True)]


page()

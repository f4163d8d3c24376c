"""What do a picture's image tokens say, read as words: as they enter the decoder, and after every layer?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import (
    charts,
    compared,
    filter_bar,
    image_words,
    links,
    picture_strip,
    pictures,
    resources,
    state,
    study_page,
)
from app.picture import mount, said, written_by
from app.text import plain
from mmn.errors import UsageError
from mmn.figures.figure import Drawn
from mmn.statistics.interval_words import percent
from mmn.store.pictures import PictureQueries
from mmn.studies.lens.queries import LensQueries
from mmn.studies.lens.rows import nearest_result
from mmn.view import View

INPUT, LIKELIEST = "input", "the likeliest word"
INTRODUCTION = (
    "A picture enters the decoder as image tokens. **Input**: the vocabulary embeddings nearest to each of them. "
    "**After a layer**: what the model would say from that state directly (logit lens). Point at a token for its "
    "other words."
)


def page() -> None:
    run = study_page.chosen_run()
    st.markdown(INTRODUCTION)
    filter_bar.none()
    job = study_page.measurement("lens")
    if not study_page.is_measured(run, job):
        return
    read = resources.store().ask(LensQueries).pictures(run["run_id"])
    found = resources.store().ask(PictureQueries).pictures(run["run_id"])
    found = found[found["image_id"].isin(read["image_id"])]
    picture = picture_strip.chosen_picture(run, found)
    picture_strip.show(run, found, picture)
    if picture is not None:
        one_picture(run, picture, read)
    st.subheader("Over all pictures that were read")
    nearest(View(run["run_id"]))
    after_layers(run["run_id"], len(read))
    study_page.measure_again(run, job)


def one_picture(run: dict[str, Any], picture: dict[str, Any], read: pd.DataFrame) -> None:
    """The picture under the words of its image tokens at one layer, and which words are frequent."""
    known = read[read["image_id"] == picture["image_id"]]
    if known.empty:
        st.info("The image tokens of this picture were not read.", icon=":material/search_off:")
        return
    nouns = resources.store().ask(LensQueries).noun_probabilities(run["run_id"], picture["image_id"])
    layer, noun = chosen(run, known.iloc[0], list(dict.fromkeys(nouns["noun"])))
    words = resources.store().ask(LensQueries).image_words(run["run_id"], picture["image_id"], layer)
    of_noun = nouns[(nouns["layer"] == layer) & (nouns["noun"] == noun)]
    best = np.array([scores[0] for scores in words["scores"]])
    values = of_noun["prob"].to_numpy(np.float64) if len(of_noun) else best
    row = st.container(horizontal=True, gap="large")  # in a narrow window one below the other
    with row.container(width=420):
        measure = "cosine of the nearest word" if layer is None else f"probability of {noun}"
        image_words.show(run["run_id"], picture, words, list(values), measure)
        pictures.legend(0.0, 1.0, f"{measure}; here {values.min():.3f} to {values.max():.3f}")
    with row.container(width="stretch"):
        st.markdown(f"#### “{plain(picture['text'] or 'no caption')}”")
        links.image_link(run, picture["image_id"])
        image_words.table(words, is_cosine=layer is None)
    token = mount.token_of_address()
    if token is not None:
        written_by.show(run, picture, token)


def chosen(run: dict[str, Any], known: pd.Series, nouns: list[str]) -> tuple[int | None, str]:
    """The layer of the slider, None for the decoder's input, and the noun whose probability is coloured."""
    layers = [INPUT] * bool(known["has_nearest"]) + [str(int(layer)) for layer in known["layers"]]
    labels = {plain(noun): noun for noun in nouns} | {LIKELIEST: LIKELIEST}  # as the pills show them
    words = list(labels)
    for key, options in (("layer", layers), ("word", words)):
        if st.session_state.get(key) not in (None, *options):  # of another run or picture
            del st.session_state[key]
    state.tidy_address(
        {
            "layer": lambda text: text if text in layers else None,
            "word": lambda text: next((one for one in words if text in (one, labels[one])), None),
        }
    )
    row = st.container(horizontal=True, gap="large", vertical_alignment="bottom")
    layer = layers[0]
    if len(layers) > 1:
        most = str(said.says_most(run["run_id"]))  # the last layer often says little of the picture
        usual = most if most in layers else layers[-1]
        layer = row.select_slider("After layer", layers, usual, key="layer", bind="query-params", width=420)
    if layer == INPUT:
        return None, LIKELIEST
    noun = row.pills(
        "Colour: the probability of", words, default=words[0], required=True, key="word", bind="query-params"
    )
    return int(layer), labels[noun]


def nearest(view: View) -> None:
    """Nearest words of image tokens against those of random vectors, or why there are none."""
    try:
        figure = charts.show("lens", view)
    except UsageError:
        st.caption("This model adds something to its input embeddings, so its image tokens have no nearest words.")
        return
    found = nearest_result(figure.rows.data)
    assert found is not None, "drawn without random vectors"
    st.caption(
        f"English words among the nearest: {percent(found.word_share)}; {percent(found.word_share_random)} for random "
        "vectors. P1 (Table 2) finds no difference between image tokens and random vectors: D = .037, p > .5."
    )


def after_layers(run_id: str, n_images: int) -> None:
    """The layers after which image tokens say a noun of the caption; nothing where no noun was looked for."""
    try:
        figure = layers_figure(run_id, n_images, compared.run_id())
    except UsageError:
        return
    charts.show_drawn(figure)
    st.caption("An image token says the noun whose token is its most probable one after that layer.")


@st.cache_resource(max_entries=8, show_spinner="Comparing image tokens with objects")
def layers_figure(run_id: str, n_images: int, other: str) -> Drawn:  # noqa: ARG001 - more pictures, other shares
    return charts.drawn("lens-layers", View(run_id))


page()

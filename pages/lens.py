"""What do a picture's image tokens say, read as words: as they enter the decoder, and after every layer?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import experiments, image_words, lens_charts, links, picture_strip, pictures, resources, state, widgets
from app.text import plain
from mmn.errors import ImageError
from mmn.store.pictures import PictureQueries
from mmn.studies.lens.queries import LensQueries

INPUT, LIKELIEST = "input", "the likeliest word"
NOTE = (
    "Reads 50 pictures of the run once more and writes down the words that each of their image tokens is nearest to, "
    "and those that it would say after every layer. Seconds with the bundled model, minutes with a large one."
)
TOLD = (
    "A picture enters the decoder as image tokens. **Input**: the vocabulary's embeddings nearest to each of them. "
    "**After a layer**: what the model would say there at once (logit lens). Point at a token for its other words."
)


def page() -> None:
    run = widgets.chosen_run()
    if run is None:
        widgets.no_runs()
        return
    st.markdown(TOLD)
    words = ["lens", run["run_id"][:8]]
    read = resources.store().ask(LensQueries).pictures(run["run_id"])
    if read.empty:
        experiments.nothing_yet(run, words, "Read image tokens", NOTE)
        return
    found = resources.store().ask(PictureQueries).pictures(run["run_id"])
    found = found[found["image_id"].isin(read["image_id"])]
    picture = picture_strip.chosen_picture(run, found)
    picture_strip.show(run, found, picture)
    if picture is not None:
        one_picture(run, picture, read)
    lens_charts.show(run)
    experiments.measure_again(run, words, NOTE)


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
        drawn(run, picture, words, values)
        measure = "cosine of the nearest word" if layer is None else f"probability of {noun}"
        pictures.legend(0.0, 1.0, f"{measure}; here {values.min():.3f} to {values.max():.3f}")
    with row.container(width="stretch"):
        st.markdown(f"#### “{plain(picture['text'] or 'no caption')}”")
        links.image_link(run, picture["image_id"])
        lens_charts.word_table(image_words.frequent(words), is_cosine=layer is None)


def chosen(run: dict[str, Any], known: pd.Series, nouns: list[str]) -> tuple[int | None, str]:
    """The layer of the slider, None for the decoder's input, and the noun whose probability is coloured."""
    layers = [INPUT] * bool(known["has_nearest"]) + [str(int(layer)) for layer in known["layers"]]
    said = {plain(noun): noun for noun in nouns} | {LIKELIEST: LIKELIEST}  # as the pills show them
    words = list(said)
    for key, options in (("layer", layers), ("word", words)):
        if st.session_state.get(key) not in (None, *options):  # of another run or picture
            del st.session_state[key]
    state.tidy_address(
        {
            "layer": lambda text: text if text in layers else None,
            "word": lambda text: next((one for one in words if text in (one, said[one])), None),
        }
    )
    row = st.container(horizontal=True, gap="large", vertical_alignment="bottom")
    layer = layers[0]
    if len(layers) > 1:
        most = lens_charts.says_most(run)  # the last layer often says little of the picture
        usual = most if most in layers else layers[-1]
        layer = row.select_slider("After layer", layers, usual, key="layer", bind="query-params", width=420)
    if layer == INPUT:
        return None, LIKELIEST
    noun = row.pills(
        "Colour: the probability of", words, default=words[0], required=True, key="word", bind="query-params"
    )
    return int(layer), said[noun]


def drawn(run: dict[str, Any], picture: dict[str, Any], words: pd.DataFrame, values: np.ndarray) -> None:
    """The overlay, or why there is none."""
    grids = resources.store().ask(PictureQueries).grid(run["run_id"], picture["image_id"])
    try:
        image = pictures.displayed(picture["source"], picture["image_id"])
    except ImageError as error:
        st.info(f"The picture cannot be shown: {plain(error)}", icon=":material/broken_image:")
        return
    if grids is None:
        st.image(pictures.as_webp(image), alt=picture["text"] or "the picture")
        st.caption("This model's image tokens have no place in the picture, so their words are only listed.")
        return
    image_words.show(image, grids, (picture["width"], picture["height"]), words, list(values))


page()

"""The Lens page's picture, each image token's word laid over the place that it stands for, and its frequent words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd
import streamlit as st
from PIL import Image

from app import pictures, resources
from app.picture import mount, said
from app.picture.panels import Panel, Places, finest
from app.table_height import fitting
from app.text import plain
from mmn.errors import ImageError
from mmn.models.geometry import Grids
from mmn.store.pictures import PictureQueries
from mmn.units.heat_maps import OPACITY

MOST_COLUMNS: Final = 16  # with more, words would be too small to read: they are told then
MOST_TOLD: Final = 5  # words of a token that is pointed at


def show(run_id: str, picture: Mapping[str, Any], words: pd.DataFrame, values: Sequence[float], measure: str) -> None:
    """Draws a picture under its image tokens, or says why it cannot.

    Args:
        run_id: of its run.
        picture: `PictureQueries.picture`.
        words: `LensQueries.image_words`, one row for each image token.
        values: what is coloured, one for each image token; 1 is brightest.
        measure: what they are, in words.
    """
    grids = resources.store().ask(PictureQueries).grid(run_id, picture["image_id"])
    try:
        image = pictures.displayed(picture["source"], picture["image_id"])
    except ImageError as error:
        st.info(f"The picture cannot be shown: {plain(error)}", icon=":material/broken_image:")
        return
    mount.show([_panel(image, picture, grids, words, values, measure)], "lens")
    if grids is None:
        st.caption("This model's image tokens have no place in the picture, so their words are only listed.")
    elif _n_columns(grids) > MOST_COLUMNS:
        st.caption("The grid is too fine for words; point at a token to read its own.")


def _panel(
    image: Image.Image,
    picture: Mapping[str, Any],
    grids: Grids | None,
    words: pd.DataFrame,
    values: Sequence[float],
    measure: str,
) -> Panel:
    """Each token's likeliest word, unless they are too many to be read, and a colour for its value."""
    alt = picture["text"] or "the picture"
    if grids is None:
        return Panel(image, alt)
    by_token = words.sort_values("token_position")
    told = tuple(said.in_line(row.tokens, row.scores, MOST_TOLD) for row in by_token.itertuples())
    drawn = [str(tokens[0]).strip() for tokens in by_token["tokens"]] if _n_columns(grids) <= MOST_COLUMNS else ()
    places = Places(grids, (picture["width"], picture["height"]), told)
    return Panel(image, alt, "", places, measure, values, drawn, [_colour(value) for value in values])


def _n_columns(grids: Grids) -> int:
    return grids.tiles[finest(grids)].shape[1]


def table(words: pd.DataFrame, *, is_cosine: bool) -> None:
    """The frequent words of a picture, each with its mean cosine, or probability."""
    rows = frequent(words)
    tokens = st.column_config.ProgressColumn(
        "Image tokens",
        format="%d",
        min_value=0,
        max_value=int(rows["n_tokens"].max()),
        color="#E69F00",
        help="Of this picture, for which it is the first word",
    )
    score = st.column_config.NumberColumn(
        "Mean cosine" if is_cosine else "Mean probability", format="%.3f", help="At those image tokens"
    )
    columns: dict[str, Any] = {"word": st.column_config.TextColumn("Word"), "n_tokens": tokens, "mean_score": score}
    st.dataframe(rows, hide_index=True, placeholder="–", height=fitting(len(rows), 330), column_config=columns)


def frequent(words: pd.DataFrame) -> pd.DataFrame:
    """The likeliest words of a picture's image tokens, most frequent first: word, n_tokens, mean_score."""
    first = pd.DataFrame(
        {"word": [tokens[0] for tokens in words["tokens"]], "score": [scores[0] for scores in words["scores"]]}
    )
    grouped = first.groupby("word")["score"].agg(n_tokens="size", mean_score="mean").reset_index()
    return grouped.sort_values(["n_tokens", "mean_score"], ascending=False, ignore_index=True)


def _colour(value: float) -> str:
    """The colour of `heat_maps.overlay` for 0 to 1, as CSS, as transparent as there."""
    colours = pictures.scale_colours(33)
    share = min(max(value, 0.0), 1.0)
    return colours[round(share * 32)].replace("rgb(", "rgba(").replace(")", f",{OPACITY})")

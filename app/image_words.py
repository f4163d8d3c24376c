"""The Lens page's picture, each image token's word laid over the place that it stands for, and its frequent words."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image

from app import pictures, resources
from app.text import plain
from mmn.errors import ImageError
from mmn.models.geometry import Grids
from mmn.store.pictures import PictureQueries
from mmn.units.heat_maps import OPACITY

MOST_COLUMNS: Final = 16  # with more, words would be too small to read: they are in the tooltip then
_SHADOW: Final = "0 0 3px #000,0 0 2px #000,0 0 1px #000"


def show(run_id: str, picture: Mapping[str, Any], words: pd.DataFrame, values: Sequence[float]) -> None:
    """Draws a picture under its image tokens, or says why it cannot.

    Args:
        run_id: of its run.
        picture: `PictureQueries.picture`.
        words: `LensQueries.image_words`, one row for each image token.
        values: what is coloured, one for each image token; 1 is brightest.
    """
    grids = resources.store().ask(PictureQueries).grid(run_id, picture["image_id"])
    try:
        image = pictures.displayed(picture["source"], picture["image_id"])
    except ImageError as error:
        st.info(f"The picture cannot be shown: {plain(error)}", icon=":material/broken_image:")
        return
    if grids is None:
        st.image(pictures.as_webp(image), alt=picture["text"] or "the picture")
        st.caption("This model's image tokens have no place in the picture, so their words are only listed.")
        return
    _overlay(image, grids, (picture["width"], picture["height"]), words, values)


def _overlay(
    picture: Image.Image, grids: Grids, size: tuple[int, int], words: pd.DataFrame, values: Sequence[float]
) -> None:
    """Each token's likeliest word, and a colour for its value, in the finest of several grids.

    Args:
        picture: as displayed.
        grids: of the image tokens, in pixels of the picture file.
        size: (width, height) of the picture file.
        words: of each image token.
        values: of each image token.
    """
    tile = max(range(len(grids.tiles)), key=lambda number: np.prod(grids.tiles[number].shape))
    n_columns = grids.tiles[tile].shape[1]
    by_token = words.set_index("token_position")
    cells = [
        _cell(grids.tiles[tile].cell(cell.row, cell.column), size, by_token.loc[token], values[token], n_columns)
        for token, cell in enumerate(grids.cells)
        if cell is not None and cell.tile == tile
    ]
    uri = "data:image/webp;base64," + base64.b64encode(pictures.as_webp(picture)).decode()
    st.html(
        f'<div style="position:relative;overflow:hidden;max-width:{picture.width:d}px;border-radius:.5rem;'
        f'container-type:inline-size"><img src="{uri}" alt="the picture" style="display:block;width:100%">'
        f"{''.join(cells)}</div>"
    )
    if n_columns > MOST_COLUMNS:
        st.caption("The grid is too fine for words; point at a token to read its own.")


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
    st.dataframe(rows, hide_index=True, height=330, column_config=columns)


def frequent(words: pd.DataFrame) -> pd.DataFrame:
    """The likeliest words of a picture's image tokens, most frequent first: word, n_tokens, mean_score."""
    first = pd.DataFrame(
        {"word": [tokens[0] for tokens in words["tokens"]], "score": [scores[0] for scores in words["scores"]]}
    )
    grouped = first.groupby("word")["score"].agg(n_tokens="size", mean_score="mean").reset_index()
    return grouped.sort_values(["n_tokens", "mean_score"], ascending=False, ignore_index=True)


def _cell(box: tuple[float, float, float, float], size: tuple[int, int], row: Any, value: float, n_columns: int) -> str:
    across, down = 100 / size[0], 100 / size[1]
    x0, y0, x1, y1 = box[0] * across, box[1] * down, box[2] * across, box[3] * down
    tip = " · ".join(f"{token} {score:.3f}" for token, score in zip(row["tokens"], row["scores"], strict=True))
    word = str(row["tokens"][0]) if n_columns <= MOST_COLUMNS else ""
    letter = 100 / n_columns / max(3.5, 0.65 * len(word))  # so that long words fit, too
    place = f"left:{x0:.3f}%;top:{y0:.3f}%;width:{x1 - x0:.3f}%;height:{y1 - y0:.3f}%"
    return (
        f'<div title="{html.escape(tip, quote=True)}" style="position:absolute;{place};background:{_colour(value)};'
        f"display:flex;align-items:center;justify-content:center;overflow:hidden;white-space:nowrap;color:#fff;"
        f'line-height:1;font-size:{letter:.2f}cqw;text-shadow:{_SHADOW}">{html.escape(word)}</div>'
    )


def _colour(value: float) -> str:
    """The colour of `heat_maps.overlay` for 0 to 1, as CSS, as transparent as there."""
    colours = pictures.scale_colours(33)
    share = min(max(value, 0.0), 1.0)
    return colours[round(share * 32)].replace("rgb(", "rgba(").replace(")", f",{OPACITY})")

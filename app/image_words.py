"""The Lens page's picture: what each image token says, laid over the place that it stands for."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image

from app import pictures
from mmn.models.geometry import Grids
from mmn.units.heat_maps import OPACITY

MOST_COLUMNS: Final = 16  # with more, words would be too small to read: they are in the tooltip then
_SHADOW: Final = "0 0 3px #000,0 0 2px #000,0 0 1px #000"


def show(
    picture: Image.Image, grids: Grids, size: tuple[int, int], words: pd.DataFrame, values: Sequence[float]
) -> None:
    """Draws the picture under its image tokens: each one's likeliest word, and a colour for its value, 0 to 1.

    Args:
        picture: as displayed.
        grids: of the image tokens, in pixels of the picture file; of several grids the finest is drawn.
        size: (width, height) of the picture file.
        words: `Store.image_words`, one row for each image token.
        values: what is coloured, one for each image token; 1 is brightest.
    """
    tile = max(range(len(grids.tiles)), key=lambda number: np.prod(grids.tiles[number].shape))
    n_columns = grids.tiles[tile].shape[1]
    told = words.set_index("token_position")
    cells = [
        _cell(grids.tiles[tile].cell(cell.row, cell.column), size, told.loc[token], values[token], n_columns)
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
    told = " · ".join(f"{token} {score:.3f}" for token, score in zip(row["tokens"], row["scores"], strict=True))
    word = str(row["tokens"][0]) if n_columns <= MOST_COLUMNS else ""
    letter = 100 / n_columns / max(3.5, 0.65 * len(word))  # so that long words fit, too
    place = f"left:{x0:.3f}%;top:{y0:.3f}%;width:{x1 - x0:.3f}%;height:{y1 - y0:.3f}%"
    return (
        f'<div title="{html.escape(told, quote=True)}" style="position:absolute;{place};background:{_colour(value)};'
        f"display:flex;align-items:center;justify-content:center;overflow:hidden;white-space:nowrap;color:#fff;"
        f'line-height:1;font-size:{letter:.2f}cqw;text-shadow:{_SHADOW}">{html.escape(word)}</div>'
    )


def _colour(value: float) -> str:
    """The colour of `heat.overlay` for 0 to 1, as CSS, as transparent as there."""
    colours = pictures.scale_colours(33)
    share = min(max(value, 0.0), 1.0)
    return colours[round(share * 32)].replace("rgb(", "rgba(").replace(")", f",{OPACITY})")

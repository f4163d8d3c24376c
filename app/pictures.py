"""Pictures as the pages show them: small ones to click on, one large one, and where units look laid over it.

Thumbnails travel, never the files themselves. The large picture is scaled to a size fit for a screen, and the grid of
its image tokens with it, so that token maps lie exactly on what is displayed.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image

from app.text import plain
from mmn.counts import counted
from mmn.errors import ImageError
from mmn.images import THUMBNAIL_SIDE, open_image, thumbnail
from mmn.models.geometry import Axis, Grid, Grids
from mmn.units.heat_maps import average_map, heat_map, mask_at, overlay

DISPLAY_SIDE: Final = 560  # pixels of the large picture's longer side
PER_PAGE: Final = 14  # tiles, two rows of 7 in a window of 1280
MOST_PAGES: Final = 7  # of which the numbers are shown, with an arrow at either end
PAGE_SIDE: Final = 48  # pixels of each
TILE_SIDE: Final = 160  # pixels that travel for a tile of 104; the browser reads a page of them as text
MOST_ENLARGED: Final = 4  # a tiny picture is not blown up further
OUTLINE: Final = ((255, 255, 255), (0, 114, 178))  # inner and outer line of a mask, on bright and on dark
_STYLE: Final = """<style>
[class*="st-key-tile-"] button {padding: 2px; border-width: 2px; min-height: 0; width: 100%;}
[class*="st-key-tile-"] button img {height: 104px !important; max-height: none !important; width: 100% !important;
    max-width: none !important; object-fit: contain; border-radius: 4px; display: block;}
[class*="st-key-tile-"] button p, [class*="st-key-tile-"] button div {width: 100%; margin: 0;}
[class*="st-key-tile-"] button [data-testid="stMarkdownContainer"] {display: block;}
@media (max-width: 640px) {
    [class*="st-key-tiles-"] {flex-wrap: nowrap !important; overflow-x: auto;}
    [class*="st-key-tiles-"] > div {flex: none !important;}
}
</style>"""


@dataclass(frozen=True)
class Look:
    """Where units look in a picture: `heat` (height, width) in the unit of their activation, and what was displayed."""

    picture: Image.Image
    heat: np.ndarray

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest activation on the map."""
        return float(np.nanmin(self.heat)), float(np.nanmax(self.heat))

    def shown(self, opacity: float, is_outlined: bool) -> Image.Image:
        """The picture under the map; with the edge of its brightest 5 % (the mask that IoU is of) if asked for."""
        image = overlay(self.picture, self.heat, opacity)
        return _outlined(image, mask_at(self.heat)) if is_outlined else image


def tiles(rows: pd.DataFrame, key: str, chosen: str = "") -> str | None:
    """Draws pictures to click on; returns the image_id of the one that was clicked.

    Args:
        rows: image_id, source, text (the caption); `tile`, if the bytes to show are not the picture's own thumbnail;
            `note`, words below it.
        key: tells several sets of tiles on a page apart.
        chosen: image_id that is framed as chosen.
    """
    st.html(_STYLE)
    clicked = None
    with st.container(horizontal=True, gap="xsmall", key=f"tiles-{key}"):
        for row in rows.to_dict("records"):
            with st.container(width=108, gap=None):
                if _tile(row, key, is_chosen=row["image_id"] == chosen):
                    clicked = row["image_id"]
                if row.get("note"):
                    st.caption(plain(row["note"]))
    return clicked


def pages_of_tiles(rows: pd.DataFrame, key: str, page_key: str, chosen: str) -> str | None:
    """`tiles` of all `rows`, a page at a time, at first the page of the chosen one; with their number below.

    Args:
        rows: as for `tiles`.
        key: likewise.
        page_key: what remembers the page.
        chosen: image_id that is framed as chosen.
    """
    ids = list(rows["image_id"])
    first = (ids.index(chosen) if chosen in ids else 0) // PER_PAGE + 1
    n_pages = -(-len(ids) // PER_PAGE)
    number = st.session_state.get(f"{page_key}-{n_pages}", first)
    clicked = tiles(rows.iloc[(number - 1) * PER_PAGE : number * PER_PAGE], key, chosen)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(counted(len(ids), "picture"), width="content")
        if n_pages > 1:
            width = PAGE_SIDE * (min(n_pages, MOST_PAGES) + 2)  # of its own accord it hides numbers that have room
            st.pagination(n_pages, default=first, key=f"{page_key}-{n_pages}", width=width)
    return clicked


@st.cache_data(max_entries=2000, show_spinner=False)
def thumbnail_of(source: str, image_id: str, side: int = THUMBNAIL_SIDE) -> bytes:  # noqa: ARG001 - part of the key
    """WebP bytes of at most `side` pixels each way.

    Raises:
        ImageError: the file is gone or damaged.
    """
    return thumbnail(source, side)


def opened_tile(source: str, image_id: str, side: int = TILE_SIDE) -> Image.Image:
    """The picture of a tile, to be drawn on."""
    return Image.open(io.BytesIO(thumbnail_of(source, image_id, side))).convert("RGB")


def missing_tile() -> Image.Image:
    """A grey tile for a picture whose file is gone."""
    return Image.new("RGB", (104, 104), "#9aa3a8")


@st.cache_data(max_entries=32, show_spinner=False)
def displayed(source: str, image_id: str) -> Image.Image:  # noqa: ARG001
    """The picture at the size in which it is shown large.

    Raises:
        ImageError: the file is gone or damaged.
    """
    image = open_image(source)
    scale = min(DISPLAY_SIDE / max(image.size), MOST_ENLARGED)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


def look_at(picture: Image.Image, grids: Grids, size: tuple[int, int], activations: Sequence[Any]) -> Look:
    """The mean map of units over a displayed picture.

    Args:
        picture: as displayed.
        grids: of the image tokens, in pixels of the picture file.
        size: (width, height) of the picture file.
        activations: of each unit at the image tokens, by rank.
    """
    values = average_map(np.stack([np.asarray(one, np.float32) for one in activations]), len(activations))
    return Look(picture, heat_map(values, scaled(grids, size, picture.size), picture.size))


def scaled(grids: Grids, size: tuple[int, int], displayed_size: tuple[int, int]) -> Grids:
    """`grids` in pixels of the displayed picture instead of the file's."""
    across, down = displayed_size[0] / size[0], displayed_size[1] / size[1]
    tiles_ = tuple(Grid(_times(grid.rows, down), _times(grid.columns, across)) for grid in grids.tiles)
    return Grids(tiles_, grids.cells)


def scale_colours(n: int = 8) -> list[str]:
    """The colours of `heat.overlay`, least to most, as CSS."""
    ramp = overlay(Image.new("RGB", (n, 1)), np.linspace(0, 1, n)[None], opacity=1.0)
    return [f"rgb({red},{green},{blue})" for red, green, blue in np.asarray(ramp)[0]]


def legend(low: float, high: float, words: str) -> None:
    """The colours of a map between its least and its most, and what they are of."""
    st.html(
        f'<div style="display:flex;flex-wrap:wrap;gap:.2rem .5rem;align-items:center;font-size:.85rem;opacity:.85">'
        f'<span>{low:.2f}</span><span style="flex:1;min-width:5rem;max-width:12rem;height:.7rem;border-radius:2px;'
        f'background:linear-gradient(to right,{",".join(scale_colours())})"></span>'
        f"<span>{high:.2f}</span><span>{html.escape(words)}</span></div>"
    )


def as_webp(image: Image.Image, quality: int = 88) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=1)
    return buffer.getvalue()


def _tile(row: dict[str, Any], key: str, is_chosen: bool) -> bool:
    caption = plain(row["text"])
    try:
        small = row.get("tile") or thumbnail_of(row["source"], row["image_id"], TILE_SIDE)
    except ImageError:
        small = _missing()
    uri = "data:image/webp;base64," + base64.b64encode(small).decode()
    return st.button(
        f"![{caption}]({uri})",
        key=f"tile-{key}-{row['image_id'][:12]}",
        help=caption,
        type="primary" if is_chosen else "secondary",
        width="stretch",
    )


@st.cache_data(show_spinner=False)
def _missing() -> bytes:
    return as_webp(missing_tile())


def _times(axis: Axis, scale: float) -> Axis:
    return tuple((start * scale, end * scale) for start, end in axis)


def _outlined(image: Image.Image, mask: np.ndarray) -> Image.Image:
    """`image` with the edge of `mask` drawn on it, in two colours so that it shows on anything."""
    pixels = np.array(image)
    inner = mask & ~_shrunk(mask, 2)
    outer = ~_shrunk(~mask, 2) & ~mask
    pixels[inner], pixels[outer] = OUTLINE
    return Image.fromarray(pixels)


def _shrunk(mask: np.ndarray, by: int) -> np.ndarray:
    """`mask` without what lies within `by` pixels of its edge; the picture's own edge is none."""
    padded = np.pad(mask, by, constant_values=True)
    height, width = mask.shape
    out = mask.copy()
    for dy in range(2 * by + 1):
        for dx in range(2 * by + 1):
            out &= padded[dy : dy + height, dx : dx + width]
    return out

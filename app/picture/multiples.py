"""Several units of a noun one beside the other, each on its own map; and those of the same noun by a second run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd
import streamlit as st
from PIL import Image

from app import pictures, resources, state
from app.picture import mount, said
from app.picture.panels import Panel, Places
from app.text import plain
from mmn.core import Neuron, unit_name
from mmn.errors import ImageError, UsageError
from mmn.store.pictures import PictureQueries
from mmn.store.rankings import d_experts
from mmn.units.heat_maps import OPACITY

MOST: Final = 10
SIDE: Final = 256  # pixels of a small picture's longer side; three in a row of a window of 1280
QUALITY: Final = 80


def show(
    run: dict[str, Any], picture: Mapping[str, Any], noun: str, method: str, second: dict[str, Any] | None
) -> None:
    """As many maps as the slider says, of the noun's top units by `method`; under them those of `second`, if any."""
    n = st.slider(
        "Top units one beside the other",
        0,
        MOST,
        0,
        key="beside",
        bind="query-params",
        width=280,
        help="Each map has its own scale, given in its title. They zoom together.",
    )
    n = max(n, 1) if second else n
    if not n:
        return
    try:
        panels = of_units(run, picture, noun, method, n)
        if second:
            panels = [*_named(panels, run), *_named(of_units(second, picture, noun, method, n), second)]
    except (ImageError, UsageError) as error:
        st.info(f"These cannot be shown side by side: {plain(error)}", icon=":material/compare:")
        return
    if panels:
        mount.show(panels, "beside")
    else:
        st.caption(
            "The activations of these units were not stored: `mmn annotate` stores the first units of each noun."
        )


def of_units(run: dict[str, Any], picture: Mapping[str, Any], noun: str, method: str, n: int) -> list[Panel]:
    """A panel for each of the noun's first `n` units of which it is known where they look.

    Raises:
        ImageError: the picture's file is gone.
        UsageError: the run has no such picture, noun, or scores of that method.
    """
    store = resources.store().ask(PictureQueries)
    theirs = store.picture(run["run_id"], picture["image_id"])
    ranked = store.ranked_units(run["run_id"], theirs["image_id"], noun, method, limit=n)
    found = store.looks(run["run_id"], theirs["image_id"], [Neuron(row.layer, row.unit) for row in ranked.itertuples()])
    grids = store.grid(run["run_id"], theirs["image_id"])
    if grids is None or found.empty:
        return []
    size = (theirs["width"], theirs["height"])
    words = said.of_tokens(run["run_id"], theirs["image_id"])
    places = Places(grids, size, words)
    small = smaller(pictures.displayed(theirs["source"], theirs["image_id"]))
    return [_panel(row, small, places, ranked, d_experts(run)) for row in found.itertuples()]


def smaller(image: Image.Image, side: int = SIDE) -> Image.Image:
    """`image`, no longer than `side` each way."""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image if scale >= 1 else image.resize(size, Image.Resampling.BICUBIC)


def _panel(row: Any, image: Image.Image, places: Places, ranked: pd.DataFrame, experts: Any) -> Panel:
    name = unit_name(Neuron(int(row.layer), int(row.unit)), experts)
    look = pictures.look_at(image, places.grids, places.size, [row.activations])
    rank = int(ranked[(ranked["layer"] == row.layer) & (ranked["unit"] == row.unit)].iloc[0]["rank"])
    low, high = look.range
    return Panel(
        look.shown(OPACITY, is_outlined=False),
        f"Where {name} looks",
        f"{rank}. {name}: {low:.2f} to {high:.2f}",
        places,
        name,
        tuple(row.activations),
        quality=QUALITY,
    )


def _named(panels: list[Panel], run: dict[str, Any]) -> list[Panel]:
    """The panels with the run in their titles."""
    label = state.run_label(run)
    return [Panel(**{**vars(panel), "title": f"{label} · {panel.title}"}) for panel in panels]

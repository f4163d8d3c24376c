"""What the picture component shows: panels, each a picture and what is known at its image tokens.

What travels is small: pictures at the size of a screen as WebP, and the places of image tokens as one array of whole
numbers (token, left, top, right, bottom in 1/10,000 of the picture), once for all panels of the same picture.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from PIL import Image

from app import pictures
from mmn.models.geometry import Grids

PARTS: Final = 10_000
FIELDS: Final = 5  # of each place: token, left, top, right, bottom
NO_PLACES: Final = "The places of its image tokens in the picture are not known."
HOW: Final = (
    "Point at an image token; click it to see below which units are active there. Ctrl and wheel zoom, Escape "
    "shows all."
)


@dataclass(frozen=True)
class Places:
    """Where image tokens lie in a picture of `size` (width, height), in the finest of several grids, and their words.

    `words[i]` is of image token i; empty where they are not known.
    """

    grids: Grids
    size: tuple[int, int]
    words: tuple[str, ...] = ()

    def flat(self) -> list[int]:
        """Token, left, top, right, bottom, and the next: in 1/10,000 of the picture, cut off at its edges."""
        tile = finest(self.grids)
        found: list[int] = []
        for token, cell in enumerate(self.grids.cells):
            if cell is not None and cell.tile == tile:
                found += [token, *self._parts(self.grids.tiles[tile].cell(cell.row, cell.column))]
        return found

    def _parts(self, box: tuple[float, float, float, float]) -> list[int]:
        lengths = (self.size[0], self.size[1]) * 2
        return [round(PARTS * min(max(edge / length, 0.0), 1.0)) for edge, length in zip(box, lengths, strict=True)]


@dataclass(frozen=True)
class Panel:
    """A picture as displayed, and what is known at its image tokens; the sequences are empty, or one for each token."""

    image: Image.Image
    alt: str
    title: str = ""
    places: Places | None = None
    measure: str = ""  # what `values` are: "activation of L5.u217"
    values: Sequence[float] = ()
    words: Sequence[str] = ()  # drawn on the picture
    colours: Sequence[str] = ()
    key: str = ""  # what a click on the title, or a token, gives; a title without it is no button
    quality: int = field(default=88, repr=False)


def payload(panels: Sequence[Panel], note: str = "") -> dict[str, Any]:
    """What the browser is sent: `grids` and `panels` as JSON, and `id`, which changes with them."""
    grids = list(dict.fromkeys(panel.places for panel in panels if panel.places is not None))
    sent: dict[str, Any] = {
        "grids": [{"places": places.flat(), "words": list(places.words)} for places in grids],
        "panels": [_sent(panel, grids) for panel in panels],
        "note": note or (HOW if grids else NO_PLACES),
    }
    return sent | {"id": hashlib.sha256(json.dumps(sent).encode()).hexdigest()[:16]}


def finest(grids: Grids) -> int:
    """The number of the grid with most image tokens."""
    return max(range(len(grids.tiles)), key=lambda number: int(np.prod(grids.tiles[number].shape)))


def _sent(panel: Panel, grids: Sequence[Places]) -> dict[str, Any]:
    uri = "data:image/webp;base64," + base64.b64encode(pictures.as_webp(panel.image, panel.quality)).decode()
    return {
        "image": uri,
        "width": panel.image.width,
        "height": panel.image.height,
        "grid": -1 if panel.places is None else grids.index(panel.places),
        "title": panel.title,
        "alt": panel.alt,
        "measure": panel.measure,
        "values": [float(f"{value:.4g}") for value in panel.values],
        "words": list(panel.words),
        "colours": list(panel.colours),
        "key": panel.key,
    }

"""All that is pinned as one zip: what a paper takes in, and what makes it again.

    grid.svg grid.pdf             all panels in one file, with their letters
    captions.txt                  a caption for each letter
    a-NAME.svg .pdf .png          each figure alone, at one column of the venue
    a-NAME.csv, .csv.recipe.json  its rows, and their recipe; every other file carries its own
    a-NAME.txt                    its caption

The same figures give the same bytes: files have no date. Names are of letters and figures, never of what was scored.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from mmn.figures.captions import caption
from mmn.figures.carriers import BESIDE_ENDING
from mmn.figures.figure import Drawn
from mmn.figures.panels import Grid, grid_file
from mmn.figures.presets import SINGLE, Layout
from mmn.figures.recipes import letter
from mmn.figures.saving import figure_files

FORMS: Final = ("svg", "pdf", "png", "csv")  # of each figure
GRID_FORMS: Final = ("svg", "pdf")
_DATE: Final = (1980, 1, 1, 0, 0, 0)  # the first that a zip can tell
_MODE: Final = 0o644 << 16


@dataclass(frozen=True)
class Panel:
    """A figure of the set, and its caption: a person's own, or "" for the draft."""

    drawn: Drawn
    words: str = ""

    @property
    def caption(self) -> str:
        return self.words or caption(self.drawn)


def set_bytes(
    panels: Sequence[Panel], grid: Grid, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> bytes:
    """The zip.

    Args:
        panels: in the order of their letters.
        grid: of all panels together; each alone is as wide as a column of its venue.
        progress: told (files made, files to make) after each.

    Raises:
        UsageError: no figure, or too many.
    """
    n_files = len(GRID_FORMS) + 1 + len(panels) * (len(FORMS) + 2)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for done, (name, content) in enumerate(_files(panels, grid), start=1):
            told = zipfile.ZipInfo(name, _DATE)
            told.external_attr, told.compress_type = _MODE, zipfile.ZIP_DEFLATED
            archive.writestr(told, content)
            progress(done, n_files)
    return out.getvalue()


def captions_text(panels: Sequence[Panel]) -> str:
    """`(a) …`, one caption a paragraph."""
    return "\n\n".join(f"({letter(place)}) {panel.caption}" for place, panel in enumerate(panels)) + "\n"


def _files(panels: Sequence[Panel], grid: Grid) -> Iterator[tuple[str, bytes]]:
    for form in GRID_FORMS:
        yield f"grid.{form}", grid_file([panel.drawn for panel in panels], form, grid).content
    yield "captions.txt", captions_text(panels).encode()
    for place, panel in enumerate(panels):
        yield from _of_panel(panel, f"{letter(place)}-{panel.drawn.figure.name}", grid)


def _of_panel(panel: Panel, name: str, grid: Grid) -> Iterator[tuple[str, bytes]]:
    alone = Layout(grid.layout.preset, SINGLE, grid.layout.ppi)
    for form, saved in figure_files(panel.drawn, FORMS, alone):
        yield f"{name}.{form}", saved.content
        if saved.beside is not None:
            yield f"{name}.{form}{BESIDE_ENDING}", saved.beside
    yield f"{name}.txt", f"{panel.caption}\n".encode()

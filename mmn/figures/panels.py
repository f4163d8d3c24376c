"""Several figures as one file: beside and below each other, with a letter before each title.

    figure ─► its chart, titled `(a) …`, as wide as a column ─► SVG ─┐
    figure ─► …                                                     ─┴► one SVG ─► PDF, PNG

Each panel is laid out as a file of its own of that width would be, so letters and fonts are the same. Panels of a row
stand on one line at their tops; where the last row is not full, its end stays empty. OURS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mmn.counts import counted
from mmn.errors import UsageError
from mmn.figures.carriers import carrying
from mmn.figures.export import drawing, svg_as
from mmn.figures.figure import Drawn
from mmn.figures.presets import Layout
from mmn.figures.recipes import MOST_PANELS, GridRecipe, digest, letter, versions
from mmn.figures.saving import rounded, rows_recipe

FORMS: Final = ("svg", "pdf", "png")
MOST_COLUMNS: Final = 4
NARROWEST_IN: Final = 2.5  # of a panel: below that the words of some figures do not fit
GAP_IN: Final = 0.25  # between two panels side by side: two columns and this are a page of the plain preset
_BELOW_PT: Final = 14  # between two rows
_PT_PER_IN: Final = 72


@dataclass(frozen=True)
class Grid:
    """How panels are laid out: the width of the whole, and how many stand side by side.

    Raises:
        UsageError: there is no room for so many.
    """

    layout: Layout = Layout(width="double")  # noqa: RUF009 - a frozen value
    columns: int = 2

    def __post_init__(self) -> None:
        if self.columns not in (fitting := fitting_columns(self.layout)):
            raise UsageError(
                f"{counted(self.columns, 'column')} do not fit into {self.layout.width_in:.2f} in: "
                f"choose {' or '.join(map(str, fitting))}, or another width"
            )

    @property
    def panel(self) -> Layout:
        """The layout of one panel."""
        room = self.layout.width_in - (self.columns - 1) * GAP_IN
        return Layout(self.layout.preset, round(room / self.columns, 4), self.layout.ppi)


@dataclass(frozen=True)
class GridFile:
    """A grid's file: what is in it, its recipe, and its height in inches."""

    content: bytes
    recipe: GridRecipe
    height_in: float


def fitting_columns(layout: Layout) -> list[int]:
    """How many panels may stand side by side: one, and as many as keep their least width."""
    widest = int((layout.width_in + GAP_IN) / (NARROWEST_IN + GAP_IN))
    return list(range(1, max(1, min(MOST_COLUMNS, widest)) + 1))


def usual_columns(layout: Layout) -> int:
    """Two where there is room."""
    return min(2, fitting_columns(layout)[-1])


def grid_file(
    panels: Sequence[Drawn], form: str, grid: Grid, progress: Callable[[int], None] = lambda _done: None
) -> GridFile:
    """The file of several figures.

    Args:
        panels: in the order of their letters.
        form: one of `FORMS`.
        grid: how they are laid out.
        progress: told how many panels are drawn.

    Raises:
        UsageError: no such format; no figure, or too many.
    """
    if form not in FORMS:
        raise UsageError(f"a grid of figures is a file of {', '.join(FORMS)}, not {form!r}")
    if not 0 < len(panels) <= MOST_PANELS:
        raise UsageError(f"a grid is of 1 to {MOST_PANELS} figures, not {len(panels)}")
    drawings = []
    for place, panel in enumerate(panels):
        drawings.append(panel_svg(panel, place, form, grid))
        progress(place + 1)
    svg = _composed(drawings, grid)
    content = svg_as(form, svg, grid.layout)
    recipes = tuple(rows_recipe(panel) for panel in panels)
    recipe = GridRecipe(recipes, form, grid.layout, grid.columns, digest(content), versions())
    return GridFile(carrying(form, content, recipe), recipe, _size(svg)[1] / _PT_PER_IN)


def panel_svg(panel: Drawn, place: int, form: str, grid: Grid) -> str:
    """One panel as it stands in a grid of the format `form`, an SVG in points; its first chart has the letter."""
    first, *others = rounded(panel).charts
    return drawing([_lettered(first, letter(place)), *others], form, grid.panel)


def _lettered(chart: Any, name: str) -> Any:
    """The chart with its letter before its title, so that the two are broken into lines together."""
    lettered, title = chart.copy(deep=False), chart.title.copy()
    lines = [title.text] if isinstance(title.text, str) else list(title.text)
    title.text = [f"({name}) {lines[0]}", *lines[1:]]
    lettered.title = title
    return lettered


def _composed(drawings: Sequence[str], grid: Grid) -> str:
    """One SVG of several, each moved to its place."""
    sizes = [_size(svg) for svg in drawings]
    places, height = _places([high for _, high in sizes], grid)
    width = round(grid.layout.width_in * _PT_PER_IN, 2)
    parts = [_moved(svg, place, number) for number, (svg, place) in enumerate(zip(drawings, places, strict=True), 1)]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" version="1.1" '
        f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}">'
        f'<rect width="{width:g}" height="{height:g}" fill="white"/>{"".join(parts)}</svg>'
    )


def _places(heights: Sequence[float], grid: Grid) -> tuple[list[tuple[float, float]], float]:
    """The left upper corner of each panel, and the height of all, in points."""
    step = (grid.panel.width_in + GAP_IN) * _PT_PER_IN
    places, top = [], 0.0
    for row in _rows(heights, grid.columns):
        places += [(round(column * step, 2), top) for column in range(len(row))]
        top += max(row) + _BELOW_PT
    return places, top - _BELOW_PT


def _rows(heights: Sequence[float], columns: int) -> Iterator[Sequence[float]]:
    for start in range(0, len(heights), columns):
        yield heights[start : start + columns]


def _moved(svg: str, place: tuple[float, float], number: int) -> str:
    """What is in an SVG, at its place in another; its gradients and clips keep names of their own."""
    inside = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    inside = re.sub(r'(id="|url\(#|href="#)(d\d+)', rf"\g<1>p{number}\g<2>", inside)
    return f'<g fill="none" transform="translate({place[0]:g},{place[1]:g})">{inside}</g>'


def _size(svg: str) -> tuple[float, float]:
    found = re.search(r'<svg[^>]*? width="([\d.]+)" height="([\d.]+)"', svg)
    assert found, svg[:200]
    return float(found[1]), float(found[2])

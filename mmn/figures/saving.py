"""A figure as a file with its recipe: what pages, `mmn figure` and `mmn.save` write.

Numbers are rounded to nine digits first. Means of many rows differ in their last digits with the order in which a
database adds them up, which no one reads and which would make another file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pandas as pd

from mmn.errors import UsageError
from mmn.figures.captions import caption
from mmn.figures.carriers import BESIDE, BESIDE_ENDING, carrying
from mmn.figures.export import DRAWN, FORMATS, chart_bytes
from mmn.figures.figure import Drawn
from mmn.figures.presets import Layout
from mmn.figures.recipes import Recipe, column_digests, digest, versions
from mmn.figures.tables import booktabs
from mmn.safety.atomic_files import write_whole
from mmn.view import View

DIGITS: Final = 9  # of a number in a file


@dataclass(frozen=True)
class Saved:
    """A figure's file: what is in it, and its recipe, which for rows and tables belongs beside it."""

    content: bytes
    recipe: Recipe

    @property
    def beside(self) -> bytes | None:
        """The file beside it, None where the recipe is inside."""
        return self.recipe.to_json().encode() + b"\n" if self.recipe.form in BESIDE else None


def figure_file(drawn: Drawn, form: str, layout: Layout) -> Saved:
    """The file of a figure.

    Raises:
        UsageError: no such format, or the figure is no table.
    """
    return _file(rounded(drawn), form, layout)


def figure_files(drawn: Drawn, forms: Sequence[str], layout: Layout) -> Iterator[tuple[str, Saved]]:
    """The file of a figure in each of several formats, its chart made once.

    Raises:
        UsageError: no such format, or the figure is no table.
    """
    drawn = rounded(drawn)
    yield from ((form, _file(drawn, form, layout)) for form in forms)


def rows_recipe(drawn: Drawn) -> Recipe:
    """The recipe of a figure's rows: of their CSV file, which needs no layout. What is pinned."""
    return figure_file(drawn, "csv", Layout()).recipe


def _file(drawn: Drawn, form: str, layout: Layout) -> Saved:
    if form == "tex":
        content = booktabs(drawn, caption(drawn)).encode()
    else:
        content = chart_bytes(drawn.charts if form in DRAWN else (), drawn.written, form, layout)
    recipe = _recipe(drawn, form, layout, content)
    return Saved(carrying(form, content, recipe), recipe)


def save_figure(drawn: Drawn, path: Path, layout: Layout) -> Recipe:
    """Writes a figure in the format that the ending of `path` names, and where it belongs the recipe beside it.

    Raises:
        UsageError: no such format, or the figure is no table.
        OSError: it cannot be written.
    """
    form = form_of(path)
    made = figure_file(drawn, form, layout)
    write_whole(path, made.content)
    if made.beside is not None:
        write_whole(path.with_name(path.name + BESIDE_ENDING), made.beside)
    return made.recipe


def form_of(path: Path) -> str:
    """The format that a file's ending names.

    Raises:
        UsageError: it is none of ours.
    """
    form = path.suffix.lstrip(".").lower()
    if form not in FORMATS:
        raise UsageError(f"{form!r} is not a format of figures; use one of {', '.join(FORMATS)}")
    return form


def forms_of(drawn: Drawn) -> tuple[str, ...]:
    """The formats that a figure can be had in."""
    return tuple(form for form in FORMATS if form != "tex" or drawn.columns)


def pinned_view(drawn: Drawn) -> View:
    """The figure's view with what was chosen of several in it."""
    pinned = {name: value for name, value in drawn.asked.pinned.items() if name not in drawn.asked.view.given()}
    return replace(drawn.asked.view, **pinned)


def rounded(drawn: Drawn) -> Drawn:
    """The same figure of numbers of nine digits."""
    data = drawn.rows.data
    short = data.assign(**{name: _short_column(data[name]) for name in data.select_dtypes("floating").columns})
    rows = replace(drawn.rows, data=short.reset_index(drop=True), words=_short(drawn.rows.words))
    return replace(drawn, rows=rows, beside=drawn.beside and drawn.beside.changed(rounded))


def _recipe(drawn: Drawn, form: str, layout: Layout, content: bytes) -> Recipe:
    return Recipe(
        drawn.figure.name,
        json.loads(pinned_view(drawn).to_json()),
        drawn.asked.run_id,
        str(drawn.asked.run["model_fingerprint"]),
        form,
        layout,
        drawn.kept,
        len(drawn.written),
        column_digests(drawn.written),
        digest(content),
        versions(),
    )


def _short_column(column: pd.Series) -> pd.Series:
    return column.astype(float).map(_short_number)


def _short_number(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return _short_number(value)
    if isinstance(value, Mapping):
        return {key: _short(one) for key, one in value.items()}
    return tuple(_short(one) for one in value) if type(value) is tuple else value

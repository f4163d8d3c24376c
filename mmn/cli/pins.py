"""`mmn pins`: the figures that were pinned, as on the page Figures: listed, changed, and written as a grid or a zip."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmn.cli import DONE, SOME_FAILED, add_common, print_json
from mmn.cli.figure import add_layout, layout_of, opened
from mmn.cli.files import require_out, writing
from mmn.errors import MmnError, RunNotFoundError, UsageError
from mmn.figures.figure import Drawn
from mmn.figures.presets import DOUBLE
from mmn.printable import printable
from mmn.studies.registry import find_figure

if TYPE_CHECKING:
    from mmn.figures.panels import Grid
    from mmn.figures.pins import Pin
    from mmn.figures.recipes import GridRecipe
    from mmn.store import Store

_ZIP = "zip"


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser(
        "pins", help="list the pinned figures, or write them as a grid or a zip", description=__doc__
    )
    parser.add_argument(
        "--add", type=Path, nargs="+", metavar="FILE", help="pin the figure in a file that mmn figure wrote"
    )
    parser.add_argument("--remove", metavar="ID", help="an id of the list, or its beginning")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="F.svg|pdf|png|zip",
        help="a grid of all figures; a zip also has each of them with its rows",
    )
    parser.add_argument("--columns", type=int, metavar="N", help="columns of the grid; default 2")
    add_layout(parser, DOUBLE)
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    from mmn.figures.pins import Pins

    pins = Pins(options.cache)
    if options.add:
        pins.add(*_pins_of(options.add))
    if options.remove:
        pins.remove(_find(pins.read(), options.remove).pin_id)
    if options.out:
        return _write(pins.read(), options)
    _list(pins.read(), options)
    return DONE


def grid_again(options: argparse.Namespace, recipe: GridRecipe) -> int:
    """Makes the grid of a recipe, and says where it is not the same: `mmn figure --recipe GRID --out F`."""
    from mmn.figures.panels import Grid, grid_file
    from mmn.figures.recipes import grid_differences
    from mmn.figures.replay import redrawn

    require_out(options.out)
    grid = Grid(recipe.layout, recipe.columns)
    figures = [find_figure(one.figure) for one in recipe.panels]
    with opened(options.cache) as store:
        panels = [redrawn(one, figure, store) for one, figure in zip(recipe.panels, figures, strict=True)]
    made = grid_file(panels, recipe.form, grid)
    with writing(options.out) as place:
        place.write_bytes(made.content)
    told = grid_differences(recipe, made.recipe)
    if told:
        print(f"mmn figure: this is not the same file: {'; '.join(told)}", file=sys.stderr)
    _tell(options, {"figures": [panel.figure.name for panel in panels], "same": not told, "differences": told})
    return SOME_FAILED if told else DONE


def _pins_of(paths: Sequence[Path]) -> Iterator[Pin]:
    from mmn.figures.carriers import read_recipe
    from mmn.figures.pins import Pin
    from mmn.figures.recipes import GridRecipe

    for path in paths:
        recipe = read_recipe(path)
        for one in recipe.panels if isinstance(recipe, GridRecipe) else (recipe,):
            find_figure(one.figure)
            yield Pin(one)


def _find(pins: Sequence[Pin], start: str) -> Pin:
    """The pin whose id begins so.

    Raises:
        UsageError: none, or several.
    """
    found = [one for one in pins if one.pin_id.startswith(start)]
    if len(found) != 1:
        raise UsageError(f"{len(found)} pins have an id that begins with {start!r}: mmn pins lists them")
    return found[0]


def _list(pins: Sequence[Pin], options: argparse.Namespace) -> None:
    if options.json:
        print_json({"pins": [_values(one) for one in pins]})
        return
    for one in pins:
        view = " ".join(f"{name}={value}" for name, value in one.recipe.view.items() if name != "run")
        print(printable(f"{one.pin_id[:8]}  {one.recipe.figure:22}{one.recipe.run_id[:8]}  {view}".rstrip()))
    if not pins:
        print("no figure is pinned: Pin beside a figure's Export does that, or mmn pins --add FILE")


def _values(pin: Pin) -> dict[str, Any]:
    recipe = pin.recipe
    told = {"pin_id": pin.pin_id, "figure": recipe.figure, "run_id": recipe.run_id, "view": dict(recipe.view)}
    return told | {"caption": pin.caption}


def _write(pins: Sequence[Pin], options: argparse.Namespace) -> int:
    """Writes the grid or the zip of what can be drawn, and says what cannot."""
    from mmn.figures.panels import FORMS

    form = options.out.suffix.lstrip(".").lower()
    if form not in (*FORMS, _ZIP):
        raise UsageError(f"{form!r} is no format of pins; use one of {', '.join((*FORMS, _ZIP))}")
    require_out(options.out)
    grid = _grid(options)
    with opened(options.cache) as store:
        drawn = [(one, found) for one in pins if (found := _drawn(one, store)) is not None]
    if not drawn:
        raise UsageError("no pinned figure can be drawn here: mmn pins lists them")
    content = _content(drawn, form, grid)
    with writing(options.out) as place:
        place.write_bytes(content)
    _tell(options, {"n_figures": len(drawn), "n_left_out": len(pins) - len(drawn)})
    return DONE if len(drawn) == len(pins) else SOME_FAILED


def _grid(options: argparse.Namespace) -> Grid:
    from mmn.figures.panels import Grid, usual_columns

    layout = layout_of(options, DOUBLE)
    return Grid(layout, usual_columns(layout) if options.columns is None else options.columns)


def _drawn(pin: Pin, store: Store) -> Drawn | None:
    """The figure of a pin as it is now; None, and a line on standard error, where nothing can be drawn."""
    from mmn.figures.recipes import of_rows
    from mmn.figures.replay import redrawn
    from mmn.figures.saving import rows_recipe

    name = f"mmn pins: {pin.pin_id[:8]} ({printable(pin.recipe.figure)})"
    try:
        drawn = redrawn(pin.recipe, find_figure(pin.recipe.figure), store)
    except (RunNotFoundError, UsageError) as error:
        print(f"{name} is left out: {_line(error)}", file=sys.stderr)
        return None
    if told := of_rows(pin.recipe, rows_recipe(drawn)):
        print(f"{name} has changed since it was pinned: {'; '.join(told)}", file=sys.stderr)
    return drawn


def _line(error: MmnError) -> str:
    return printable(" ".join(str(error).split()))


def _content(drawn: Sequence[tuple[Pin, Drawn]], form: str, grid: Grid) -> bytes:
    from mmn.figures.panels import grid_file
    from mmn.figures.paper_set import Panel, set_bytes

    if form == _ZIP:
        return set_bytes([Panel(figure, pin.caption) for pin, figure in drawn], grid)
    return grid_file([figure for _, figure in drawn], form, grid).content


def _tell(options: argparse.Namespace, values: dict[str, Any]) -> None:
    if options.json:
        print_json({"out": str(options.out), **values})
    else:
        print(options.out)

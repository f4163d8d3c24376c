"""The figure of a recipe, of what a cache holds now."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mmn.errors import UsageError
from mmn.figures.figure import Drawn, Figure, draw, require_taken
from mmn.figures.recipes import Recipe
from mmn.view import View

if TYPE_CHECKING:
    from mmn.store import Store


def redrawn(recipe: Recipe, figure: Figure, store: Store) -> Drawn:
    """The figure of a recipe, and of several panels the one that it is of.

    Raises:
        RunNotFoundError: its run is not there.
        UsageError: the figure does not read such a view, or nothing is there to be drawn.
    """
    view = View.from_json(json.dumps(dict(recipe.view)))
    require_taken(figure, view)
    drawn = draw(figure, store, view)
    return drawn if recipe.kept is None else _panel(drawn, *recipe.kept)


def _panel(drawn: Drawn, column: str, values: tuple[object, ...]) -> Drawn:
    part = drawn.where(column, *values) if column in drawn.rows.data else None
    if part is None or part.rows.data.empty:
        raise UsageError("the recipe is of one panel, and nothing is there to be drawn of it")
    return part

"""A picture's grid of image tokens as JSON, for one cell of a table, and back.

    {"tiles": [{"rows": [[from, to], …], "columns": [[from, to], …]}, …], "cells": [[tile, row, column], null, …]}

Spans are floats; JSON writes each with the digits that bring the same float back.
"""

from __future__ import annotations

import json

from mmn.models.geometry import Axis, Cell, Grid, Grids


def to_json(grids: Grids) -> str:
    """The cell `grid.grid` of a picture."""
    tiles = [{"rows": grid.rows, "columns": grid.columns} for grid in grids.tiles]
    cells = [None if cell is None else (cell.tile, cell.row, cell.column) for cell in grids.cells]
    return json.dumps({"tiles": tiles, "cells": cells}, separators=(",", ":"))


def from_json(text: str) -> Grids:
    """The grids of a cell `grid.grid`."""
    values = json.loads(text)
    tiles = tuple(Grid(_axis(tile["rows"]), _axis(tile["columns"])) for tile in values["tiles"])
    return Grids(tiles, tuple(None if cell is None else Cell(*cell) for cell in values["cells"]))


def _axis(spans: list[list[float]]) -> Axis:
    return tuple((start, end) for start, end in spans)

"""A grid of image tokens: rows and columns of spans in the picture's pixels, and the place of each token.

Plain values, without torch: the store keeps them and the pages draw them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

Box = tuple[float, float, float, float]  # x0, y0, x1, y1
Axis = tuple[tuple[float, float], ...]  # (from, to) of each row or column of tokens


@dataclass(frozen=True)
class Grid:
    """Image tokens in rows and columns; `rows[i]` is the span of y, `columns[j]` of x, in pixels of the picture.

    Spans are edges, not centres: pixel 0 is the span (0, 1). They exceed the picture where the processor padded it,
    and end inside where it cropped it. Neighbours may leave a gap (pixels that make no whole patch).
    """

    rows: Axis
    columns: Axis

    @classmethod
    def even(cls, n_rows: int, n_columns: int, box: Box) -> Grid:
        """`n_rows` × `n_columns` equal tokens that tile `box`."""
        x0, y0, x1, y1 = box
        return cls(even(n_rows, y0, y1), even(n_columns, x0, x1))

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), len(self.columns)

    @property
    def box(self) -> Box:
        """(x0, y0, x1, y1) of all tokens together."""
        return self.columns[0][0], self.rows[0][0], self.columns[-1][1], self.rows[-1][1]

    def cell(self, row: int, column: int) -> Box:
        """(x0, y0, x1, y1) of one token."""
        (x0, x1), (y0, y1) = self.columns[column], self.rows[row]
        return x0, y0, x1, y1


@dataclass(frozen=True)
class Cell:
    """The place of one image token: row and column of grid `tile`."""

    tile: int
    row: int
    column: int


@dataclass(frozen=True)
class Grids:
    """All grids of one picture, and the place of each image token in the order of the prompt.

    `cells[i]` is None for a token that stands for no place: the end of a row (LLaVA-NeXT), a class token.
    """

    tiles: tuple[Grid, ...]
    cells: tuple[Cell | None, ...]

    def __post_init__(self) -> None:
        placed = [cell for cell in self.cells if cell is not None]
        n_cells = sum(len(grid.rows) * len(grid.columns) for grid in self.tiles)
        assert len(set(placed)) == len(placed) == n_cells, (len(set(placed)), len(placed), n_cells)

    def resized(self, size: tuple[int, int], wanted: tuple[int, int]) -> Grids:
        """The grids of a picture of `size` (width, height) in pixels of the same picture at size `wanted`."""
        if size == wanted:
            return self
        across, down = wanted[0] / size[0], wanted[1] / size[1]
        return Grids(tuple(Grid(_times(one.rows, down), _times(one.columns, across)) for one in self.tiles), self.cells)

    def box_of(self, token: int) -> Box | None:
        """The stretch of the picture behind image token `token`; None if it stands for no place."""
        cell = self.cells[token]
        return None if cell is None else self.tiles[cell.tile].cell(cell.row, cell.column)


def _times(axis: Axis, scale: float) -> Axis:
    return tuple((start * scale, end * scale) for start, end in axis)


def even(n: int, start: float, end: float) -> Axis:
    edges = [start + (end - start) * k / n for k in range(n + 1)]
    return tuple(itertools.pairwise(edges))


def cells_of(tile: int, grid: Grid) -> list[Cell]:
    """A grid's places row by row."""
    return [Cell(tile, row, column) for row in range(len(grid.rows)) for column in range(len(grid.columns))]

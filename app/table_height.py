"""How high a table is: all its rows where they are few, so that it does not go on in empty ones."""

from __future__ import annotations

from typing import Final

_ROW: Final = 35  # pixels, Streamlit's own
_HEADER: Final = 38  # with the borders


def fitting(n_rows: int, most: int, row: int = _ROW) -> int:
    """Pixels of a table of so many rows, at most `most`; a row's own pixels where they are not the usual ones."""
    return min(most, _HEADER + row * n_rows)

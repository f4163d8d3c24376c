"""A table as a file: CSV, whose cells hold lists as JSON arrays, or Parquet."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd


def csv_text(rows: pd.DataFrame) -> str:
    """The rows as CSV; it has no lists, so those cells become JSON arrays."""
    lists = [name for name in rows if rows[name].map(_is_sequence).any()]
    told = {name: rows[name].map(lambda cell: json.dumps(np.asarray(cell).tolist())) for name in lists}
    return str(rows.assign(**told).to_csv(index=False))


def parquet_bytes(rows: pd.DataFrame) -> bytes:
    """The rows as Parquet."""
    found = io.BytesIO()
    rows.to_parquet(found, index=False)
    return found.getvalue()


def _is_sequence(cell: object) -> bool:
    return isinstance(cell, list | tuple) or getattr(cell, "ndim", 0) == 1

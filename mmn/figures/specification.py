"""A chart as Vega-Lite: whole, with its rows in it, or with its rows beside it as tables.

Altair's way of writing rows and its theme are settings of the whole process. Whoever writes a chart here holds a lock
meanwhile, so that a file made for one session has its rows though a page is drawn for another.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Any, Final

import altair as alt
import pandas as pd
import pyarrow as pa

_LOCK: Final = threading.RLock()
_BESIDE: Final = "mmn-beside"


def whole(chart: Any) -> dict[str, Any]:
    """The specification, checked against Vega-Lite's schema."""
    with _LOCK:
        spec: dict[str, Any] = chart.to_dict()
    return spec


def beside(chart: Any) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """The specification without rows, and the rows by the names that it calls them by, which are hashes of them.

    Not checked against the schema, which takes longer than all else: every figure is where tests draw it.
    """
    tables: dict[str, pd.DataFrame] = {}

    def name(rows: Any) -> dict[str, str]:
        if not isinstance(rows, pd.DataFrame):
            return rows  # Altair's own way of naming an address
        told = digest(rows)
        tables[told] = rows
        return {"name": told}

    with _LOCK:
        alt.data_transformers.register(_BESIDE, name)
        with alt.data_transformers.enable(_BESIDE), alt.theme.enable("none"):
            spec: dict[str, Any] = chart.to_dict(validate=False)
    tables |= {told: pd.DataFrame(rows) for told, rows in spec.pop("datasets", {}).items()}
    return spec, tables


def digest(rows: pd.DataFrame) -> str:
    """Equal for equal rows."""
    sink = pa.BufferOutputStream()
    try:
        table = pa.Table.from_pandas(rows, preserve_index=False).combine_chunks()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        written = sink.getvalue().to_pybytes()
    except pa.ArrowException:  # columns of several kinds
        written = rows.to_json(orient="split").encode()
    return hashlib.sha256(written).hexdigest()[:16]

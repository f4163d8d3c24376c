"""The Layers page's question about whole rankings: do the top units look at their noun's object?"""

from __future__ import annotations

from typing import Any, Final

import streamlit as st

from app import resources, widgets
from mmn.studies.annotate.figures import field_overlaps
from mmn.studies.annotate.queries import FieldQueries

TOP: Final = 10  # units of each noun, as far as they were annotated


def show(run: dict[str, Any]) -> None:
    """The overlap of top units' maps with objects, by ranking, beside its controls; only when asked for."""
    if not st.toggle("Do top units look at their noun's object?", key="overlaps", bind="query-params"):
        return
    data = resources.store().ask(FieldQueries).field_summary(run["run_id"], TOP)
    if data.empty:
        st.caption(
            f"Not compared with any object yet: {widgets.annotate(run)} does that, for pictures with known objects."
        )
        return
    chart = field_overlaps(data, run, TOP)
    widgets.show_figure(chart, data, f"{run['run_id'][:8]}-fields", height=270 + 66 * data["method"].nunique())

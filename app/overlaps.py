"""The Layers page's question about whole rankings: do the top units look at their noun's object?"""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import charts, widgets
from mmn.errors import UsageError
from mmn.view import View


def show(run: dict[str, Any], view: View) -> None:
    """The overlap of top units' maps with objects, by ranking, beside its controls; only when asked for.

    Of `view`, what the page is filtered by, it reads the run alone, and says so.
    """
    if not st.toggle("Do top units look at their noun's object?", key="overlaps", bind="query-params"):
        return
    if view.concepts or view.layers or view.generality is not None:
        st.caption(":orange[Without effect on this part:] the filters above. All concepts, layers and units count.")
    try:
        charts.show("fields", View(run["run_id"]))
    except UsageError:
        st.caption(f"Not compared with objects yet: {widgets.annotate(run)} does that for pictures with known objects.")

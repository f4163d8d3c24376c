"""Data frame in, Altair chart out: one function per question. Nothing here knows of databases, models or Streamlit.

`FIGURES` is what the command line offers as `figure NAME`; every function takes the rows and the run's row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mmn.figures.budget import logit_budget, top_share
from mmn.figures.comparison import ranking_overlap
from mmn.figures.layers import layer_distribution
from mmn.figures.neuron import decoded_tokens

FIGURES: Final[dict[str, Callable[..., Any]]] = {
    "layers": layer_distribution,
    "budget": logit_budget,
    "top-share": top_share,
    "comparison": ranking_overlap,
    "tokens": decoded_tokens,
}

"""Data frame in, Altair chart out: one function per question. Nothing here knows of databases, models or Streamlit.

`FIGURES` is what the command line offers as `figure NAME`; every function takes the rows and the run's row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mmn.figures.layers import layer_distribution

FIGURES: Final[dict[str, Callable[..., Any]]] = {"layers": layer_distribution}

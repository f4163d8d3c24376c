"""Figures of what the picture itself is told by: where top units look, and what image tokens say."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final

import pandas as pd

from mmn.errors import UsageError
from mmn.store import Store

TOP: Final = 10  # units of each noun that `fields` averages, as far as they were annotated
Drawn = tuple[Any, pd.DataFrame]  # a chart and the rows behind it


def _fields(store: Store, row: dict[str, Any], _options: argparse.Namespace) -> Drawn:
    data = store.field_summary(row["run_id"], TOP)
    if data.empty:
        raise UsageError(
            f"where units of {row['run_id']} look was not compared with any object; mmn annotate {row['run_id']} does "
            "that, for pictures with known objects"
        )
    return _draw("fields", data, row, TOP), data


def _lens(store: Store, row: dict[str, Any], _options: argparse.Namespace) -> Drawn:
    data = store.nearest_tokens(row["run_id"])
    if data["kind"].nunique() < 2:
        raise UsageError(
            f"the image tokens of {row['run_id']} have no nearest words; mmn lens {row['run_id']} finds them"
        )
    return _draw("lens", data, row), data


def _lens_layers(store: Store, row: dict[str, Any], _options: argparse.Namespace) -> Drawn:
    from mmn.studies.lens.results import layer_shares

    data = layer_shares(store, row["run_id"])
    if data.empty:
        raise UsageError(f"the image tokens of {row['run_id']} were not read; mmn lens {row['run_id']} does that")
    return _draw("lens-layers", data, row), data


def _draw(name: str, *values: Any) -> Any:
    from mmn.figures import FIGURES  # Altair is slow to import, and other commands do without

    return FIGURES[name](*values)


DRAW: Final[dict[str, Callable[[Store, dict[str, Any], argparse.Namespace], Drawn]]] = {
    "fields": _fields,
    "lens": _lens,
    "lens-layers": _lens_layers,
}

"""What is an edit called, and what shares of pictures did it change as it should? For page, figure and terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from mmn.statistics.intervals import interval_table

MEASURES: Final[Mapping[str, str]] = {  # role of a picture -> the share over such pictures
    "edited": "efficacy",
    "other": "generalisation",
    "unrelated": "locality",
}
COLUMNS: Final = ("edit_id", "label", "role", "mean", "low", "high", "n")


def edit_shares(captions: pd.DataFrame) -> pd.DataFrame:
    """Returns each edit's shares of pictures whose new caption is as wished: edit_id, role, mean, low, high, n.

    Args:
        captions: rows of `edited_caption`.
    """
    shares = captions.assign(share=captions["is_as_wished"].astype(float))
    return interval_table(shares, ["edit_id", "role"], "share")


def labelled_shares(edits: pd.DataFrame, captions: pd.DataFrame) -> pd.DataFrame:
    """Returns each edit's shares with their 95 % intervals by picture: edit_id, label, role, mean, low, high, n.

    Args:
        edits: rows of `EditQueries.edits`, in the order in which they are shown.
        captions: `EditQueries.captions` of them.
    """
    if captions.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    table = edit_shares(captions)
    labels = _distinct_labels(edits)
    order = {edit_id: place for place, edit_id in enumerate(edits["edit_id"])}
    table = table[table["n"] > 0].assign(label=lambda rows: rows["edit_id"].map(labels))
    return table.sort_values("edit_id", key=lambda ids: ids.map(order), kind="stable", ignore_index=True)


def edit_label(edit: Mapping[str, Any]) -> str:
    """What was edited and how: `p2, top 5 units by contribution`."""
    n = len(edit["units"])
    if edit["algorithm"] == "rank-one":
        layers = sorted({unit.layer for unit in edit["units"]})
        return "rank-one" + (f", layer {layers[0]}" if len(layers) == 1 else "")
    by = f" by {edit['method']}" if edit["method"] and edit["selection"] != "random" else ""
    return f"{edit['algorithm']}, {edit['selection']} {n} {'unit' if n == 1 else 'units'}{by}"


def _distinct_labels(edits: pd.DataFrame) -> dict[str, str]:
    """The label of each edit; with the beginning of its id where several have the same."""
    plain = {row["edit_id"]: edit_label(row) for row in edits.to_dict("records")}
    counts = pd.Series(list(plain.values())).value_counts()
    return {edit_id: f"{label} ({edit_id[:6]})" if counts[label] > 1 else label for edit_id, label in plain.items()}

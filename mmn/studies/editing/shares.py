"""What is an edit called, and what shares of pictures did it change as it should? For page, figure and terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from mmn.counts import counted
from mmn.names import ANOTHER, SET
from mmn.statistics.interval_words import percent, why_none
from mmn.statistics.intervals import interval_table, mean_intervals

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


def perplexities(texts: pd.DataFrame) -> dict[str, dict[str, float]]:
    """By text its perplexity `before` and `after`; empty where none was read. `texts` are rows of `edited_text`."""
    return {
        row.text: {"before": float(np.exp(row.nats_before)), "after": float(np.exp(row.nats_after))}
        for row in texts.itertuples()
    }


def own_share(captions: pd.DataFrame, edit_id: str, control_id: str) -> dict[str, dict[str, float]]:
    """How much more often an edit writes the new word than its control, on the same pictures: paired by picture.

    Args:
        captions: rows of `edited_caption` of both.
        edit_id: of the edit.
        control_id: of the same edit on another picture's noun's units.

    Returns:
        For `edited` and `other` (pictures of the noun that the edit has not seen): mean, low, high (a 95 % interval)
        and n; without the roles that have no picture in both.
    """
    of = {one: captions[captions["edit_id"] == one] for one in (edit_id, control_id)}
    both = of[edit_id].merge(of[control_id], on=["image_id", "role"], suffixes=("", "_control"))
    found = {}
    for role in ("edited", "other"):
        here = both[both["role"] == role]
        values = here["is_as_wished"].astype(float) - here["is_as_wished_control"].astype(float)
        if len(values):
            ends = mean_intervals(values.to_numpy()[:, None], (-1.0, 1.0))
            found[role] = dict(zip(("mean", "low", "high"), (float(one[0]) for one in ends), strict=True))
            found[role]["n"] = len(values)
    return found


def describe_own_edit(found: Mapping[str, Mapping[str, float]]) -> str:
    """Whether what an edit writes depends on its units: `own_share` in a sentence."""
    role = "other" if "other" in found else "edited"
    if role not in found:
        return ""
    one, which = found[role], "other pictures of the noun" if role == "other" else "the edited pictures"
    points = percent(one["mean"]).removesuffix(" %")
    n = int(one["n"])
    if np.isnan(one["low"]):
        return (
            f"On {which} these units write the new word {points} points more often than another noun's: {why_none(n)}."
        )
    ends = f"95 % interval {percent(one['low']).removesuffix(' %')} to {percent(one['high']).removesuffix(' %')}"
    if one["low"] > 0:
        return f"On {which} these units write the new word {points} points more often than another noun's ({ends})."
    return (
        f"On {which} another noun's units write the new word as often: own minus theirs {points} points ({ends}). "
        "What the edit does is not its units' own."
    )


def edit_label(edit: Mapping[str, Any]) -> str:
    """What was edited and how: `p2, top 5 units by contribution`."""
    units = counted(len(edit["units"]), "unit")
    if edit["algorithm"] == "rank-one":
        layers = sorted({unit.layer for unit in edit["units"]})
        return "rank-one" + (f", layer {layers[0]}" if len(layers) == 1 else "")
    if edit["selection"] == ANOTHER:
        return f"{edit['algorithm']}, {units} of “{edit['settings'].get('other_noun', '?')}”"
    if edit["method"] and edit["method"].startswith(SET):
        return f"{edit['algorithm']}, {units} of {edit['method']}"
    by = f" by {edit['method']}" if edit["method"] and edit["selection"] != "random" else ""
    return f"{edit['algorithm']}, {edit['selection']} {units}{by}"


def _distinct_labels(edits: pd.DataFrame) -> dict[str, str]:
    """The label of each edit; with the beginning of its id where several have the same."""
    plain = {row["edit_id"]: edit_label(row) for row in edits.to_dict("records")}
    counts = pd.Series(list(plain.values())).value_counts()
    return {edit_id: f"{label} ({edit_id[:6]})" if counts[label] > 1 else label for edit_id, label in plain.items()}

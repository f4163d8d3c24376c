"""Do top units look at their noun's object? Overlap of the brightest 5 % with it, with other objects, of random units.

P1 (arXiv 2308.01544) section 4, P2 (arXiv 2311.07470) section 4; the controls stand beside each ranking.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.figures.theme import FIRST, MUTED, SECOND

_OVERLAPS: Final = {
    "iou": "with the noun's object",
    "iou_other": "with the picture's other objects",
    "iou_random": "of random units of the same layers",
}
COLUMNS: Final = ("method", "n", "n_images", *(f"{name}{end}" for name in _OVERLAPS for end in ("", "_low", "_high")))


def field_overlaps(data: pd.DataFrame, run: Mapping[str, Any], top: int) -> alt.TopLevelMixin:
    """Points with 95 % intervals: mean IoU of each ranking's top units, and the two controls.

    Args:
        data: `Store.field_summary`, one row for each method.
        run: the run's row: model, images.
        top: the most units of each noun that were averaged, for the subtitle.
    """
    assert set(COLUMNS) <= set(data.columns), f"missing columns: {sorted(set(COLUMNS) - set(data.columns))}"
    rows = pd.concat([_of(data, name, words) for name, words in _OVERLAPS.items()], ignore_index=True)
    rows = rows[rows["iou"].notna()]
    words = list(_OVERLAPS.values())
    base = alt.Chart(rows).encode(
        alt.Y("method:N", sort=list(data["method"]), title=None, axis=alt.Axis(labelLimit=220)),
        alt.YOffset("overlap:N", sort=words),
        alt.Color(
            "overlap:N",
            sort=words,
            scale=alt.Scale(domain=words, range=[FIRST, SECOND, MUTED]),
            legend=alt.Legend(title=None, orient="top", columns=1, labelLimit=400),
        ),
        tooltip=[
            alt.Tooltip("method:N", title="ranking"),
            alt.Tooltip("overlap:N", title="of"),
            alt.Tooltip("iou:Q", title="mean IoU", format=".3f"),
            alt.Tooltip("low:Q", title="95 % from", format=".3f"),
            alt.Tooltip("high:Q", title="95 % to", format=".3f"),
            alt.Tooltip("n:Q", title="units compared", format=",d"),
            alt.Tooltip("n_images:Q", title="pictures", format=",d"),
        ],
    )
    axis = alt.Axis(tickCount=5)
    points = base.mark_point(size=20, filled=True, opacity=1).encode(
        alt.X("iou:Q", title="IoU of the brightest 5 % of the map, mean", scale=alt.Scale(zero=True), axis=axis)
    )
    intervals = base.mark_rule(strokeWidth=1.2).encode(alt.X("low:Q"), alt.X2("high:Q"))
    n = int(data["n_images"].max())
    told = f"{run['model']} on {run['images']}, n = {n:,} {'picture' if n == 1 else 'pictures'} with known objects"
    return alt.layer(intervals, points).properties(
        height=44 * len(data),
        title=alt.TitleParams(
            "Do the top units look at their noun's object?",
            subtitle=[told, f"up to {top} units of each noun; lines: 95 %, by picture"],
            frame="bounds",
        ),
    )


def _of(data: pd.DataFrame, name: str, words: str) -> pd.DataFrame:
    found = data[["method", "n", "n_images", name, f"{name}_low", f"{name}_high"]]
    return found.set_axis(["method", "n", "n_images", "iou", "low", "high"], axis=1).assign(overlap=words)

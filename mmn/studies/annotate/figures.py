"""Do top units look at their noun's object? Overlap of the brightest 5 % with it, with other objects, of random units.

P1 (arXiv 2308.01544) section 4, P2 (arXiv 2311.07470) section 4. OURS: units that another picture of the noun ranks
highest stand first, since those of the same picture are chosen where they are judged; the controls are theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.counts import counted
from mmn.figures.theme import FIRST, FOURTH, MUTED, SECOND, SHAPES, THIRD
from mmn.figures.wording import of_run, require
from mmn.names import GIVEN, HELD_OUT, SAME_PICTURE

_OWN: Final = {
    HELD_OUT: "with the noun's object: units found on another picture",
    SAME_PICTURE: "the same: units chosen on this picture (P1, P2)",
    GIVEN: "with the noun's object: units of a saved set",
}
_OTHERS: Final = {"iou_other": "with the picture's other objects", "iou_random": "of random units of the same layers"}
_OVERLAPS: Final = ("iou", *_OTHERS)
COLUMNS: Final = (
    *("method", "selection", "n", "n_images", "iou_best"),
    *(f"{name}{end}" for name in _OVERLAPS for end in ("", "_low", "_high")),
)


def field_overlaps(data: pd.DataFrame, run: Mapping[str, Any], top: int) -> alt.TopLevelMixin:
    """Points with 95 % intervals: mean IoU of each ranking's top units with their noun's object, and the controls.

    The subtitle gives the highest mean that the objects' sizes allow, which lies far beyond the points.

    Args:
        data: `FieldQueries.summary`, one row for each method and selection.
        run: the run's row: model, images.
        top: the most units of each noun that were averaged, for the subtitle.
    """
    require(data.columns, COLUMNS)
    rows = _rows(data)
    words = [one for one in (*_OWN.values(), *_OTHERS.values()) if one in set(rows["overlap"])]
    colours = dict(zip((*_OWN.values(), *_OTHERS.values()), (FIRST, THIRD, FOURTH, SECOND, MUTED), strict=True))
    legend = alt.Legend(title=None, orient="top", columns=1, labelLimit=400)
    told: dict[str, Any] = {"field": "overlap", "type": "nominal", "sort": words, "legend": legend}
    shape = alt.Shape(**told, scale=alt.Scale(domain=words, range=list(SHAPES[: len(words)])))
    base = alt.Chart(rows).encode(
        alt.Y("method:N", sort=list(data["method"]), title=None, axis=alt.Axis(labelLimit=220)),
        alt.YOffset("overlap:N", sort=words),
        alt.Color(**told, scale=alt.Scale(domain=words, range=[colours[one] for one in words])),
        tooltip=[
            alt.Tooltip("method:N", title="ranking"),
            alt.Tooltip("overlap:N", title="of"),
            alt.Tooltip("iou:Q", title="mean IoU", format=".3f"),
            alt.Tooltip("low:Q", title="95 % from", format=".3f"),
            alt.Tooltip("high:Q", title="95 % to", format=".3f"),
            alt.Tooltip("best:Q", title="at most, by the objects' sizes", format=".3f"),
            alt.Tooltip("n:Q", title="units compared", format=",d"),
            alt.Tooltip("n_images:Q", title="pictures", format=",d"),
        ],
    )
    axis = alt.Axis(tickCount=5)
    points = base.mark_point(size=20, filled=True, opacity=1).encode(
        alt.X("iou:Q", title="IoU of the brightest 5 % of the map, mean", scale=alt.Scale(zero=True), axis=axis), shape
    )
    intervals = base.mark_rule(strokeWidth=1.2).encode(alt.X("low:Q"), alt.X2("high:Q"))
    units = counted(top, "unit")
    pictures = counted(data["n_images"].max(), "picture")
    return alt.layer(intervals, points).properties(
        height=11 * len(rows) + 6 * data["method"].nunique(),
        title=alt.TitleParams(
            "Do the top units look at their noun's object?",
            subtitle=[
                f"{of_run(run)}, n = {pictures} with known objects",
                f"up to {units} of each noun; mean within a picture, then over pictures; lines: 95 %, by picture",
                *_size_limit(data),
            ],
            frame="bounds",
        ),
    )


def _rows(data: pd.DataFrame) -> pd.DataFrame:
    """A row for each point: the overlap of each selection, and of the first one of each method the controls."""
    first = data.drop_duplicates("method")
    own = [_of(data[data["selection"] == selection], "iou", words) for selection, words in _OWN.items()]
    controls = [_of(first, name, words) for name, words in _OTHERS.items()]
    rows = pd.concat([*own, *controls], ignore_index=True)
    return rows[rows["iou"].notna()]


def _size_limit(data: pd.DataFrame) -> list[str]:
    """The highest mean IoU that masks of this size can have; nothing where that was not measured."""
    best = data["iou_best"].dropna()
    line = f"5 % of a picture cannot fit objects of other sizes: their mean IoU is {best.max():z.2f} at most"
    return [line] if len(best) else []


def _of(data: pd.DataFrame, name: str, words: str) -> pd.DataFrame:
    found = data[["method", "n", "n_images", "iou_best", name, f"{name}_low", f"{name}_high"]]
    return found.set_axis(["method", "n", "n_images", "best", "iou", "low", "high"], axis=1).assign(overlap=words)

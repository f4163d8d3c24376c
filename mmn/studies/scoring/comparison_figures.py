"""Do two scores name the same units? The share of one's top k that is in the other's, against k, over chance.

Both rankings are of the same concepts, and the overlap |A ∩ B| / k is the mean over a picture's concepts, then over
pictures; two rankings that know nothing of each other share k over the units that the wider one ranks (attribution
leaves out the last layer). OURS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.counts import counted
from mmn.figures.theme import FIRST, MUTED
from mmn.figures.wording import k_text, of_run

COLUMNS: Final = ("k", "overlap", "overlap_low", "overlap_high", "chance")
_OVERLAP, _CHANCE = "the two scores", "chance, k / units ranked"


def ranking_overlap(
    data: pd.DataFrame, run: Mapping[str, Any], pair: str, subset: str = "all concepts"
) -> alt.TopLevelMixin:
    """Two lines against k: the mean share of common units with its interval, and what chance would give.

    Args:
        data: `RankingQueries.overlap`; one row per k.
        run: the run's row: model, images, n_layers, d_mlp, and as n_images the pictures that enter.
        pair: the two scores, as words for the title: `contribution and activation`.
        subset: which concepts were compared, as words for the subtitle.
    """
    assert set(COLUMNS) <= set(data.columns), f"missing columns: {sorted(set(COLUMNS) - set(data.columns))}"
    n_units = int(run["n_layers"]) * int(run["d_mlp"])
    ends = ["k", "overlap_low", "overlap_high"]
    rows = data.melt(id_vars=ends, value_vars=["overlap", "chance"], var_name="line", value_name="share").assign(
        line=lambda found: found["line"].map({"overlap": _OVERLAP, "chance": _CHANCE}),
        k_label=lambda found: [k_text(int(k), n_units) for k in found["k"]],
    )
    base = alt.Chart(rows).encode(
        alt.X(
            "k:Q",
            scale=alt.Scale(type="log"),
            axis=alt.Axis(grid=False),
            title=f"k, top units per concept (of {n_units:,})",
        ),
        alt.Y(
            "share:Q",
            title="share of the top k in both",
            axis=alt.Axis(format="~%", tickCount=5),
            scale=alt.Scale(domain=[0, 1]),
        ),
        alt.Color(
            "line:N",
            scale=alt.Scale(domain=[_OVERLAP, _CHANCE], range=[FIRST, MUTED]),
            legend=alt.Legend(title=None, orient="top", symbolType="stroke"),
        ),
        tooltip=[
            alt.Tooltip("line:N", title="line"),
            alt.Tooltip("k_label:N", title="k"),
            alt.Tooltip("share:Q", title="common units", format=".1%"),
            alt.Tooltip("overlap_low:Q", title="of the scores: 95 % from", format=".1%"),
            alt.Tooltip("overlap_high:Q", title="to", format=".1%"),
        ],
    )
    dash = alt.StrokeDash("line:N", scale=alt.Scale(domain=[_OVERLAP, _CHANCE], range=[[1, 0], [3, 2]]), legend=None)
    band = (
        alt.Chart(rows[rows["line"] == _OVERLAP])
        .mark_area(opacity=0.18, color=FIRST)
        .encode(alt.X("k:Q"), alt.Y("overlap_low:Q"), alt.Y2("overlap_high"))
    )
    of = f"{of_run(run)}, n = {counted(run['n_images'], 'picture')}, {subset}"
    how = "mean over a picture's concepts, then over pictures; band: 95 %, by picture"
    return alt.layer(band, base.mark_line(strokeWidth=1.3, point={"size": 20}).encode(dash)).properties(
        height=200, title=alt.TitleParams(f"Common units of {pair}", subtitle=[of, how])
    )

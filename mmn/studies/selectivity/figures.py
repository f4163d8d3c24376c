"""Are units of a class of pictures active in pictures of that class alone? A heat map as P1's figure S.2
(arXiv 2308.01544), beside random units of the same layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.counts import counted
from mmn.figures.heat_map import share_maps
from mmn.figures.wording import of_run, require
from mmn.statistics.many_tests import survivors_line

COLUMNS: Final = ("unit_noun", "noun", "is_control", "value", "share", "n_units", "n_images", "p", "is_discovery")


def selectivity(data: pd.DataFrame, run: Mapping[str, Any], method: str) -> alt.TopLevelMixin:
    """A heat map of classes: y whose units, x the class of held-out pictures, colour their mean activation as a share
    of its largest; the control as a second panel.

    Args:
        data: `SelectivityQueries.by_class`.
        run: the run's row: model, images.
        method: the ranking that found the units.
    """
    require(data.columns, COLUMNS)
    rows = data.assign(row=data["unit_noun"], column=data["noun"], owner=data["unit_noun"])
    tips = [
        alt.Tooltip("row:N", title="units of"),
        alt.Tooltip("column:N", title="pictures of"),
        alt.Tooltip("share:Q", title="share of the largest", format=".2f"),
        alt.Tooltip("value:Q", title="mean activation", format=".3g"),
        alt.Tooltip("n_images:Q", title="held-out pictures", format=",d"),
        alt.Tooltip("p:Q", title="p of the own class against the control", format=".2g"),
    ]
    held_out = counted(data["n_images"].max(), "held-out picture")
    title = alt.TitleParams(
        frame="bounds",
        text=f"Activation of classes' units in held-out pictures: {method}",
        subtitle=[
            f"{of_run(run)}, {counted(data['n_units'].max(), 'unit')} a class, {held_out} each at most",
            "mean over units, image tokens and pictures ÷ its largest over the classes (P1); empty: no such picture",
            *(f"bold: {line}" for line in survivors_line(data)),
        ],
    )
    return share_maps(rows, ("class of the pictures", "whose units"), tips, ["row", "column"]).properties(title=title)

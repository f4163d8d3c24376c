"""Heat maps of shares: whose units they are down, what they are judged on across; their control as a second panel.

Shares have one scale everywhere: −1 to 1 around zero, darker is further from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.figures.theme import INK

KINDS: Final = {False: "units of each noun", True: "their control"}
_NUMBERED, _PLAIN = 26, 16  # height of a cell with a number in it, and without, in points
_MOST_NUMBERED: Final = 12  # nouns; cells of more are too small for numbers
_NEGATIVE: Final = -0.05  # cells without numbers from here on have a sign: in grey both colours are alike
_PALE: Final = 0.4  # how opaque a pale cell is
_SHARES: Final = alt.Scale(scheme="blueorange", reverse=True, domain=[-1, 1], domainMid=0, clamp=True)


@dataclass(frozen=True)
class Look:
    """What panels are called, by `is_control`; what the colours are of; how high a cell with a number is, in points."""

    kinds: Mapping[bool, str] = field(default_factory=lambda: KINDS)
    legend: str = "share"
    height: int = _NUMBERED


_USUAL: Final = Look()


def share_maps(
    rows: pd.DataFrame,
    titles: tuple[str, str],
    tips: list[alt.Tooltip],
    fields: list[str],
    pale: Any = None,
    look: Look = _USUAL,
) -> Any:
    """One heat map, or one above the other for units and their control.

    Args:
        rows: row, column and owner (the labels of a cell's line and column, and the column that is the line's own),
            share, is_control; where pairs were tested is_discovery, which is bold.
        titles: of the columns and of the lines.
        tips: what a cell tells on hover.
        fields: columns that the click selection `unit` holds.
        pale: which cells are, as a condition on the rows; on white paper and in the dark alike.
        look: of the panels.
    """
    rows = rows if "is_discovery" in rows else rows.assign(is_discovery=False)
    if rows["is_control"].nunique() == 1:
        return _share_map(rows, titles, tips, fields, pale, look)
    rows = rows.assign(kind=[look.kinds[is_control] for is_control in rows["is_control"]])
    header = alt.Header(labelFontWeight="bold", labelPadding=4)
    facet = alt.Facet("kind:N", title=None, sort=list(look.kinds.values()), header=header)
    return (
        _share_map(rows, titles, tips, fields, pale, look)
        .facet(facet=facet, columns=1)
        .resolve_scale(y="independent", x="shared")
    )


def _share_map(
    rows: pd.DataFrame,
    titles: tuple[str, str],
    tips: list[alt.Tooltip],
    fields: list[str],
    pale: Any,
    look: Look,
) -> Any:
    """Cells of a share each, with its number where there is room."""
    lines = list(dict.fromkeys(rows["row"]))
    columns = list(dict.fromkeys([*rows["owner"], *rows["column"]]))  # the diagonal from the upper left
    is_numbered = len(columns) <= _MOST_NUMBERED
    clicked = alt.selection_point(name="unit", fields=fields, on="click")
    base = alt.Chart(rows).encode(
        alt.X("column:N", sort=columns, title=titles[0], axis=alt.Axis(labelAngle=-35, labelOverlap=False)),
        alt.Y("row:N", sort=lines, title=titles[1], axis=alt.Axis(labelOverlap=False, labelLimit=170)),
        tooltip=tips,
    )
    cells = base.mark_rect().encode(
        alt.Color(
            "share:Q",
            scale=_SHARES,
            legend=alt.Legend(title=look.legend, format=".1f", gradientLength=110, orient="right"),
        ),
        opacity=alt.value(1) if pale is None else alt.condition(pale, alt.value(_PALE), alt.value(1)),
    )
    paper = [] if pale is None else [base.transform_filter(pale).mark_rect(color="white")]
    layers = [*paper, cells.add_params(clicked)]
    if is_numbered:
        form = ".2f" if len(columns) <= 6 else ".1f"
        dark = (alt.expr.abs(alt.datum.share) > 0.6) & (True if pale is None else ~pale)
        ink = alt.condition(dark, alt.value("white"), alt.value(INK))
        for is_bold in (False, True):
            some = base.transform_filter(alt.datum.is_discovery == is_bold)
            text = some.mark_text(fontSize=10, fontWeight="bold" if is_bold else "normal")
            layers.append(text.encode(alt.Text("share:Q", format=form), color=ink))
    else:
        minus = base.transform_filter(alt.datum.share <= _NEGATIVE).mark_text(fontSize=9, color=INK)
        layers.append(minus.encode(text=alt.value("−")))
    return alt.layer(*layers).properties(height=alt.Step(look.height if is_numbered else _PLAIN))

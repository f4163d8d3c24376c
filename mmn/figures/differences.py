"""The chart of a paired difference of two runs (`pairing`): a point and its interval, around a rule at 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.figures.axes import interval_tip
from mmn.figures.pairing import DIFFERENCE, ENDS, N_SHARED, Paired, Series
from mmn.figures.theme import FIRST, MUTED, SECOND, SHAPES, THIRD, ordered_colours
from mmn.figures.wording import span
from mmn.names import METHODS
from mmn.statistics.interval_words import interval_note, with_words

TITLE: Final = "B − A, picture by picture"
_COLOURS: Final = (FIRST, SECOND, THIRD, MUTED, "#009E73", "#56B4E9")
_MOST_SERIES: Final = len(_COLOURS)  # of one panel; more are panels of their own
_NAMED: Final = "series_words"
_HEIGHT: Final = {False: 170, True: 110}  # of the only panel, of one of several


def difference_chart(found: Paired, panels: str = "") -> Any:
    """Points of the difference against `along`, with their intervals; series and panels by what else tells them apart.

    Args:
        found: at least one row.
        panels: the figure's column of panels, "" for none.
    """
    rows = with_words(_named(_labelled(found), found.series), found.form, name=f"{DIFFERENCE}_", n=N_SHARED)
    named = () if found.series is None else found.series.by
    columns = ([_NAMED] if named else []) + [name for name in found.by if name not in named]
    others = [name for name in columns if name != found.along and rows[name].nunique(dropna=False) > 1]
    panel = panels if panels in others else _panel_of(rows, others)
    series = [name for name in others if name != panel]
    rows["series"] = _joined(rows, series)
    chart = _panel(rows, found, is_one_of_several=bool(panel))
    if panel:
        header = alt.Header(labelFontWeight="bold", labelPadding=4)
        chart = chart.facet(facet=alt.Facet("panel:N", title=None, sort=None, header=header), columns=1)
        chart.data = rows.assign(panel=rows[panel].astype(str))
    note = interval_note("line", rows[N_SHARED])
    subtitle = [f"n = {span(rows[N_SHARED].tolist(), 'picture')} of both runs; above 0: more in run B", note]
    return chart.properties(title=alt.TitleParams(f"{TITLE}: {found.what}", subtitle=subtitle))


def height(found: Paired) -> int:
    """Pixels on a page."""
    rows = found.rows
    n_panels = rows[found.by[0]].nunique() if len(found.by) > 1 else 1
    return 200 + 130 * min(n_panels, 8) if _is_numeric(rows[found.along]) else 190 + 26 * len(rows)


def _labelled(found: Paired) -> pd.DataFrame:
    rows = found.rows
    if "method" in rows:  # as scores stand everywhere
        places = {method: place for place, method in enumerate(METHODS)}
        rows = rows.iloc[rows["method"].map(lambda method: places.get(method, len(places))).argsort(kind="stable")]
    rows = rows.reset_index(drop=True).copy()
    along = rows[found.along]
    return rows.assign(along=along if _is_numeric(along) else along.astype(str))


def _named(rows: pd.DataFrame, series: Series | None) -> pd.DataFrame:
    """`rows` with the figure's names of what it draws, in its order; without what it does not draw."""
    if series is None:
        return rows
    keys = list(rows[list(series.by)].itertuples(index=False, name=None))
    places = {key: place for place, key in enumerate(series.words)}
    kept = rows.assign(**{_NAMED: [series.words.get(key) for key in keys]}, place=[places.get(key) for key in keys])
    return kept.dropna(subset=[_NAMED]).sort_values("place", kind="stable", ignore_index=True).drop(columns="place")


def _is_numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _panel_of(rows: pd.DataFrame, others: Sequence[str]) -> str:
    """The first of these columns, where one panel would have too many series."""
    is_crowded = len(others) > 1 and len(rows[list(others)].drop_duplicates()) > _MOST_SERIES
    return others[0] if is_crowded else ""


def _joined(rows: pd.DataFrame, names: Sequence[str]) -> pd.Series:
    if not names:
        return pd.Series("difference", index=rows.index)
    return rows[list(names)].astype(str).agg(", ".join, axis=1)


def _panel(rows: pd.DataFrame, found: Paired, is_one_of_several: bool) -> Any:
    order = list(dict.fromkeys(rows["series"]))
    is_upright = _is_numeric(rows["along"])
    value, place, offset = (alt.Y, alt.X, alt.XOffset) if is_upright else (alt.X, alt.Y, alt.YOffset)
    shown: dict[str, Any] = {"title": "B − A", "axis": alt.Axis(format=_axis_form(found.form))}
    ends = (alt.Y2 if is_upright else alt.X2)(ENDS[1])
    named: dict[str, Any] = {"field": "series", "type": "nominal", "sort": order}
    named["legend"] = None if len(order) == 1 else alt.Legend(title=None, orient="top", columns=2, labelLimit=260)
    labels = alt.Axis(labelAngle=0, labelOverlap=True) if is_upright else alt.Axis(labelLimit=140)
    base = alt.Chart(rows).encode(
        place(
            "along:O", title=found.along, axis=labels, sort=None if is_upright else list(dict.fromkeys(rows["along"]))
        ),
        offset("series:N", sort=order, scale=alt.Scale(paddingOuter=0.3)),
        alt.Color(**named, scale=alt.Scale(domain=order, range=_colours(order, found.series))),
    )
    shape = alt.Shape(
        **named, scale=alt.Scale(domain=order, range=[SHAPES[i % len(SHAPES)] for i in range(len(order))])
    )
    tips = [*(alt.Tooltip(name) for name in found.by), alt.Tooltip(DIFFERENCE, format=found.form)]
    tips += [interval_tip(f"{DIFFERENCE}_"), alt.Tooltip(N_SHARED, title="pictures of both")]
    rule = alt.Chart(rows).mark_rule(color=MUTED, strokeWidth=0.8).encode(value(datum=0, type="quantitative"))
    lines = base.transform_filter(f"isValid(datum.{ENDS[0]})").mark_rule(strokeWidth=1.4)
    points = base.mark_point(filled=True, size=26, opacity=1)
    layers = alt.layer(
        rule,
        lines.encode(value(f"{ENDS[0]}:Q", **shown), ends),
        points.encode(value(f"{DIFFERENCE}:Q", **shown), shape, tooltip=tips),
    )
    return layers.properties(height=_HEIGHT[is_one_of_several]) if is_upright else layers


def _colours(order: Sequence[str], series: Series | None) -> list[str]:
    """The figure's own colours, where it has one for each."""
    if series is not None and set(order) <= set(series.colours):
        return [series.colours[name] for name in order]
    n = len(order)
    return list(_COLOURS[:n]) if n <= len(_COLOURS) else ordered_colours(n)


def _axis_form(form: str) -> str:
    return "~%" if form.endswith("%") else "~r"

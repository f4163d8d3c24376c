"""A figure's chart as a page shows it: in the app's theme, as wide as its place, its title outside it.

A paper's chart is drawn for one width. A page has any: so a title is text of the page, a facet is taken apart into its
panels, and legends have as many columns as there is room for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.figures.theme import GREY, NUMBERS

_SYMBOL: Final = {False: 34, True: 46}  # pixels of a legend's symbol and gaps; strokes are longer than dots
_AXIS: Final = 120  # pixels of the vertical axis with its labels
_LETTER: Final = 6.6  # pixels of a legend's letter, on average
_NARROWEST: Final = 270  # pixels for the legends above a chart on a telephone, whose axis takes the rest
_ENDS: Final = ("low", "high")  # of the columns of intervals
_SMALLEST: Final = 10  # pixels of letters among the marks
_PANEL: Final = 270  # pixels of a panel with its axis and legend; of a list these are below and above its lines
_AROUND_LINES: Final = 130


def title_lines(title: Any) -> tuple[str, list[str]]:
    """What a chart's title says: its text in one line, and the lines below it."""
    text = title.text if isinstance(title.text, str) else ", ".join(title.text)
    below = title.subtitle
    return text, [] if below is alt.Undefined else [below] if isinstance(below, str) else list(below)


def themed(chart: Any, title: Any = None) -> Any:
    """The chart without its title, which stays in its description; `title` is that of the facet that it is of."""
    title = title or chart.title
    text, lines = title_lines(title)
    themed = chart.copy(deep=True).configure_axis(labelFlush=False)  # or the theme moves end labels off their marks
    themed.title = alt.Undefined
    themed.description = ". ".join([text, *lines])
    themed.usermeta = {"title": {"text": text, "subtitle": lines}}
    themed.config.locale = NUMBERS
    themed.padding = {"left": 5, "right": 14, "top": 5, "bottom": 20}  # half a label hangs over the axis's end
    themed.autosize = alt.AutoSizeParams(type="fit", contains="padding")
    themed.config.rule, themed.config.text = alt.MarkConfig(color=GREY), alt.MarkConfig(color=GREY)  # Vega's are black
    themed.config.legend = alt.LegendConfig(symbolBaseFillColor=GREY, symbolBaseStrokeColor=GREY)
    _drop_empty_intervals(themed, themed.data)
    _fold_legends(themed)
    for part in _parts_of(themed):
        _enlarge_letters(part)
    return themed


def panels(chart: Any) -> list[tuple[str, Any, int]]:
    """The panels of a facet, each with its heading and height, on the same scales where the facet shares them.

    None of a chart that is no facet.
    """
    if not isinstance(chart, alt.FacetChart):
        return []
    facet, rows = chart["facet"], _rows_of(chart)
    name = _field(facet)
    there = list(dict.fromkeys(rows[name]))
    sort = _said(facet, "sort")
    order = sort if isinstance(sort, list) else there
    scales = {channel: _shared_scale(chart, rows, channel) for channel in ("x", "y") if _is_shared(chart, channel)}
    made = [(str(value), _panel(chart, rows[rows[name] == value], scales)) for value in order if value in there]
    return [(heading, panel, _height_of(panel)) for heading, panel in made]


def _rows_of(chart: Any) -> pd.DataFrame:
    """A chart's rows; one that was made of a specification names them."""
    return chart.data if isinstance(chart.data, pd.DataFrame) else pd.DataFrame(chart.datasets[chart.data.name])


def _panel(chart: Any, rows: pd.DataFrame, scales: dict[str, Any]) -> Any:
    panel = chart.spec.copy(deep=True)
    if not isinstance(panel, alt.Chart | alt.LayerChart):  # of a facet that was made of a specification
        kind = alt.Chart if _said(panel, "mark") else alt.LayerChart
        panel = kind.from_dict(panel.to_dict(validate=False), validate=False)
    panel.data = rows
    for encoding, channel in _encodings(panel, tuple(scales)):
        if scales[channel] is not None:
            scale = encoding.scale if isinstance(encoding.scale, alt.Scale) else alt.Scale()
            encoding.scale = alt.Scale(**scale._kwds | {"domain": scales[channel], "nice": True})
    return panel


def _height_of(panel: Any) -> int:
    """Pixels: as many lines as there are values on its vertical axis, or a usual height."""
    step = _said(_said(panel, "height"), "step")
    if step is None:
        return _PANEL
    fields = {_field(encoding): None for encoding, _ in _encodings(panel, ("y",))}
    n_lines = max((panel.data[name].nunique() for name in fields if name in panel.data), default=1)
    return _AROUND_LINES + int(step) * n_lines


def _is_shared(chart: Any, channel: str) -> bool:
    return _said(_said(_said(chart, "resolve"), "scale"), channel) != "independent"


def _shared_scale(chart: Any, rows: pd.DataFrame, channel: str) -> list[float] | None:
    """From the least to the greatest number that any panel has on it, and 0 but on a logarithmic one; None where it is
    none of numbers.
    """
    names = [
        _field(encoding)
        for encoding, of in _encodings(chart.spec, (channel, f"{channel}2"))
        if of != channel or _is_number(encoding)
    ]
    if not names or not any(_is_number(encoding) for encoding, _ in _encodings(chart.spec, (channel,))):
        return None
    values = rows[[name for name in dict.fromkeys(names) if name in rows]]
    found = pd.to_numeric(values.stack(), errors="coerce").dropna()
    if found.empty:
        return None
    is_log = any(_said(_said(encoding, "scale"), "type") == "log" for encoding, _ in _encodings(chart.spec, (channel,)))
    also = [] if is_log else [0.0]
    return [min([float(found.min()), *also]), max([float(found.max()), *also])]


def _drop_empty_intervals(chart: Any, data: Any) -> None:
    """Takes layers of intervals away where there are none: Vega warns of scales without an end."""
    if isinstance(chart, alt.LayerChart):
        data = data if chart.data is alt.Undefined else chart.data
        chart.layer = [layer for layer in chart.layer if not _is_empty(layer, data)]
        for layer in chart.layer:
            _drop_empty_intervals(layer, data)


def _is_empty(layer: Any, data: Any) -> bool:
    """Whether a layer is of intervals, and there is none."""
    rows = data if layer.data is alt.Undefined else layer.data
    if isinstance(layer, alt.LayerChart) or not isinstance(rows, pd.DataFrame) or rows.empty:
        return False
    names = [_field(encoding) for encoding, _ in _encodings(layer, ("x", "y", "x2", "y2"))]
    return any(name.endswith(_ENDS) and name in rows and rows[name].isna().all() for name in names)


def _encodings(spec: Any, channels: Sequence[str]) -> Iterator[tuple[Any, str]]:
    for part in _parts_of(spec):
        for channel in channels:
            encoding = part._kwds.get(channel, alt.Undefined)
            if isinstance(encoding, alt.SchemaBase) and _field(encoding):
                yield encoding, channel


def _field(encoding: Any) -> str:
    return str(_said(encoding, "shorthand") or _said(encoding, "field") or "").partition(":")[0]


def _is_number(encoding: Any) -> bool:
    return _said(encoding, "type") == "quantitative" or str(_said(encoding, "shorthand")).endswith(":Q")


def _said(part: Any, name: str) -> Any:
    """What a part of a specification says, None for nothing; of one that was read from JSON it is wrapped."""
    value = part._kwds.get(name, alt.Undefined) if isinstance(part, alt.SchemaBase) else alt.Undefined
    while isinstance(value, alt.SchemaBase) and value._args:
        value = value._args[0]
    return None if value is alt.Undefined else value


def _parts_of(spec: Any) -> Iterator[Any]:
    """Everything that a specification is made of, but its rows."""
    if isinstance(spec, alt.SchemaBase):
        yield spec
        for name, value in spec._kwds.items():
            if name != "data":
                yield from _parts_of(value)
    elif isinstance(spec, list | tuple):
        for one in spec:
            yield from _parts_of(one)


def _fold_legends(chart: Any) -> None:
    """Gives legends as many columns, of those that they want, as their labels have room for in the chart's place.

    Those above a chart stand side by side: what a telephone has no room for goes below it.
    """
    above: dict[str, list[tuple[Any, list[Any]]]] = {}
    for part in _parts_of(chart):
        legend = _said(part, "legend")
        if _said(legend, "orient") in ("top", "bottom"):
            known = _said(_said(part, "scale"), "domain")
            domain = known if isinstance(known, list) else []
            above.setdefault(f"{_field(part)} {domain}", []).append((legend, domain))
    below = _below([same[0] for same in above.values()])
    for place, same in enumerate(above.values()):
        for legend, domain in same:
            legend.orient = "bottom" if place in below else _said(legend, "orient")
            n_columns = _said(legend, "columns")
            if isinstance(n_columns, int | float):
                wanted = _width_of(legend, domain) * (1 if place in below else len(above) - len(below))
                room = (
                    f"max(isFinite(containerSize()[0]) ? containerSize()[0] - {_AXIS} : width, 0)"  # it does not change
                )
                legend.columns = alt.ExprRef(f"clamp(floor({room} / {wanted:.0f}), 1, {n_columns})")


def _below(legends: Sequence[tuple[Any, list[Any]]]) -> set[int]:
    """Which legends, by their place, have no room beside those before them."""
    taken, below = 0.0, set()
    for place, (legend, domain) in enumerate(legends):
        n_columns = 1 if isinstance(_said(legend, "columns"), int | float) else max(1, len(domain))
        width = max(_width_of(legend, domain) * n_columns, _LETTER * len(str(_said(legend, "title") or "")))
        if place and taken + width > _NARROWEST:
            below.add(place)
        else:
            taken += width
    return below


def _width_of(legend: Any, domain: Sequence[Any]) -> float:
    """Pixels of a column of a legend."""
    is_stroke = _said(legend, "symbolType") == "stroke"
    return _SYMBOL[is_stroke] + _LETTER * max((len(str(label)) for label in domain), default=14)


def _enlarge_letters(mark: Any) -> None:
    """Letters that are small enough for a paper's column are too small for a screen."""
    size = _said(mark, "fontSize") if isinstance(mark, alt.MarkDef) else None
    if isinstance(size, int | float) and _said(mark, "type") == "text":
        mark.fontSize = max(_SMALLEST, size)

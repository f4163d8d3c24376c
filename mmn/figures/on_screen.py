"""A figure's chart as a page shows it: in the app's theme, as wide as its place, its title outside it.

A paper's chart is drawn for one width. A page has any: so a title is text of the page, a facet is taken apart into its
panels, and legends have as many columns as there is room for. All of that is done to the specification, as plain
values: Altair copies a chart whole at each change, and a panel would take as long as the figure.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import altair as alt
import pandas as pd

from mmn.figures.specification import beside, digest
from mmn.figures.stacking import unclicked
from mmn.figures.theme import GREY, NUMBERS

Spec = dict[str, Any]
Tables = Mapping[str, pd.DataFrame]

_SYMBOL: Final = {False: 34, True: 46}  # pixels of a legend's symbol and gaps; strokes are longer than dots
_AXIS: Final = 120  # pixels of the vertical axis with its labels, at least
_AXIS_TITLE: Final = 30  # pixels beside the labels: their ticks, and the axis's title
_AXIS_LETTER: Final = 6.0  # pixels of an axis's letter, on average
_LABEL_LIMIT: Final = 180  # pixels of a label, if its axis has no limit of its own: Vega's
_LETTER: Final = 6.6  # pixels of a legend's letter, on average
_ENDS: Final = ("low", "high")  # of the columns of intervals
_SMALLEST: Final = 10  # pixels of letters among the marks
_PANEL: Final = 270  # pixels of a panel with its axis and legend; of a list these are below and above its lines
_AROUND_LINES: Final = 130
_FLAT: Final = 46  # pixels more, of a scale of colours above them
_PADDING: Final = {"left": 5, "right": 14, "top": 5, "bottom": 20}  # half a label hangs over the axis's end
_LEGENDS: Final = ("top", "bottom")
_GRADIENT: Final = {"orient": "top", "direction": "horizontal", "gradientThickness": 8, "offset": 6}


@dataclass(frozen=True)
class Panel:
    """A chart of a page: its specification, the rows in `datasets`; of a facet its heading and its pixels, too."""

    spec: Spec
    heading: str = ""
    height: int = 0


def title_lines(title: Any) -> tuple[str, list[str]]:
    """What a chart's title says: its text in one line, and the lines below it."""
    text = title.text if isinstance(title.text, str) else ", ".join(title.text)
    below = title.subtitle
    return text, [] if below is alt.Undefined else [below] if isinstance(below, str) else list(below)


def panels(chart: Any) -> list[Panel]:
    """The chart; of a facet its panels, on the same scales where the facet shares them.

    A renderer gives a facet no width but that of its specification, so each of its panels is a chart of its own.
    """
    spec, tables = beside(chart)
    if "field" not in spec.get("facet", {}):
        return [Panel(_themed(spec, tables, chart.title))]
    facet = spec["facet"]
    data, rows = spec["data"], tables[spec["data"]["name"]]
    there = list(dict.fromkeys(rows[facet["field"]]))
    order = facet["sort"] if isinstance(facet.get("sort"), list) else there
    inner = _on_shared_scales(unclicked(spec["spec"]) if "params" in spec else spec["spec"], spec, tables)
    made = []
    for value in [one for one in order if one in there]:
        part = rows[rows[facet["field"]] == value]
        name = digest(part)
        panel = copy.deepcopy(inner) | {"data": data | {"name": name}, "config": copy.deepcopy(spec.get("config", {}))}
        known = {**tables, name: part}
        height = _height_of(panel, part)
        made.append(Panel(_themed(panel, known, chart.title), str(value), height))
    return made


def _themed(spec: Spec, tables: Tables, title: Any) -> Spec:
    """The specification without its title, which stays in its description, and with its rows."""
    text, lines = title_lines(title)
    spec.pop("title", None)
    spec["description"] = ". ".join([text, *lines])
    spec["usermeta"] = {"title": {"text": text, "subtitle": lines}}
    spec["padding"], spec["autosize"] = dict(_PADDING), {"type": "fit", "contains": "padding"}
    config = spec.setdefault("config", {})
    config["locale"] = NUMBERS
    config.setdefault("axis", {})["labelFlush"] = False  # or the theme moves end labels off their marks
    config["rule"], config["text"] = {"color": GREY}, {"color": GREY}  # Vega's are black
    config["legend"] = {"symbolBaseFillColor": GREY, "symbolBaseStrokeColor": GREY}
    _drop_empty_intervals(spec, tables, _rows_of(spec, tables))
    for part in _parts_of(spec):
        _enlarge_letters(part)
        _lay_flat(part)
    _fold_legends(spec, _room(spec, tables))
    used = {part["data"]["name"] for part in _parts_of(spec) if "name" in _mapping(part.get("data"))}
    spec["datasets"] = {name: rows for name, rows in tables.items() if name in used}
    return spec


def _rows_of(spec: Spec, tables: Tables) -> pd.DataFrame | None:
    """The rows that a part names; None where it names none, or they stand in it."""
    return tables.get(_mapping(spec.get("data")).get("name", ""))


def _on_shared_scales(inner: Spec, facet: Spec, tables: Tables) -> Spec:
    """What is in a facet, each shared scale of numbers as wide as all its panels need."""
    inner = copy.deepcopy(inner)
    resolved = facet.get("resolve", {}).get("scale", {})
    rows = tables[facet["data"]["name"]]
    shared = [channel for channel in ("x", "y") if resolved.get(channel) != "independent"]
    domains = {channel: _shared_domain(inner, rows, channel) for channel in shared}
    for encoding, channel in _encodings(inner, shared):
        if domains[channel] is not None:
            encoding["scale"] = _mapping(encoding.get("scale")) | {"domain": domains[channel], "nice": True}
    return inner


def _shared_domain(inner: Spec, rows: pd.DataFrame, channel: str) -> list[float] | None:
    """From the least to the greatest number that any panel has on it, and 0 but on a logarithmic one; None where it is
    none of numbers.
    """
    own = [encoding for encoding, _ in _encodings(inner, (channel,)) if _is_number(encoding)]
    if not own:
        return None
    names = [encoding["field"] for encoding in [*own, *(one for one, _ in _encodings(inner, (f"{channel}2",)))]]
    values = rows[[name for name in dict.fromkeys(names) if name in rows]]
    found = pd.to_numeric(values.stack(), errors="coerce").dropna()
    if found.empty:
        return None
    is_log = any(_mapping(encoding.get("scale")).get("type") == "log" for encoding in own)
    also = [] if is_log else [0.0]
    return [min([float(found.min()), *also]), max([float(found.max()), *also])]


def _height_of(panel: Spec, rows: pd.DataFrame) -> int:
    """Pixels: as many lines as there are values on its vertical axis, or a usual height."""
    step = _mapping(panel.get("height")).get("step")
    if step is None:
        return _PANEL
    fields = {encoding["field"] for encoding, _ in _encodings(panel, ("y",))}
    n_lines = max((rows[name].nunique() for name in fields if name in rows), default=1)
    flat = _FLAT if any(_is_beside(_mapping(part.get("legend"))) for part in _parts_of(panel)) else 0
    return _AROUND_LINES + flat + int(step) * n_lines


def _drop_empty_intervals(spec: Spec, tables: Tables, rows: pd.DataFrame | None) -> None:
    """Takes layers of intervals away where there are none: Vega warns of scales without an end."""
    if "layer" in spec:
        kept = []
        for layer in spec["layer"]:
            own = _rows_of(layer, tables) if "data" in layer else rows
            if not _is_empty(layer, own):
                _drop_empty_intervals(layer, tables, own)
                kept.append(layer)
        spec["layer"] = kept


def _is_empty(layer: Spec, rows: pd.DataFrame | None) -> bool:
    """Whether a layer is of intervals, and there is none."""
    if "layer" in layer or rows is None or rows.empty:
        return False
    names = [encoding["field"] for encoding, _ in _encodings(layer, ("x", "y", "x2", "y2"))]
    return any(name.endswith(_ENDS) and name in rows and rows[name].isna().all() for name in names)


def _encodings(spec: Any, channels: Sequence[str]) -> Iterator[tuple[Spec, str]]:
    """The encodings of fields of these channels, anywhere in it."""
    for part in _parts_of(spec):
        for channel in channels:
            encoding = _mapping(part.get("encoding")).get(channel)
            if isinstance(encoding, dict) and isinstance(encoding.get("field"), str):
                yield encoding, channel


def _is_number(encoding: Spec) -> bool:
    return encoding.get("type") == "quantitative"


def _mapping(value: Any) -> Spec:
    """A part of a specification that has parts; {} of one that is a plain value, or is not there."""
    return value if isinstance(value, dict) else {}


def _parts_of(spec: Any) -> Iterator[Spec]:
    """Everything that a specification is made of, but its rows."""
    if isinstance(spec, dict):
        yield spec
        for name, value in spec.items():
            if name not in ("data", "datasets", "usermeta"):
                yield from _parts_of(value)
    elif isinstance(spec, list):
        for one in spec:
            yield from _parts_of(one)


def _room(spec: Spec, tables: Tables) -> str:
    """Pixels beside the vertical axis, as Vega computes them of the place that the chart has; they do not change."""
    return f"max(isFinite(containerSize()[0]) ? containerSize()[0] - {_axis_of(spec, tables):.0f} : width, 0)"


def _axis_of(spec: Spec, tables: Tables) -> float:
    """Pixels of the vertical axis with the longest of its words."""
    widest = float(_AXIS)
    for encoding, _ in _encodings(spec, ("y",)):
        words = [rows[encoding["field"]] for rows in tables.values() if encoding["field"] in rows]
        if _is_number(encoding) or not words:
            continue
        longest = _AXIS_LETTER * max(len(str(word)) for word in pd.unique(pd.concat(words)))
        limit = _mapping(encoding.get("axis")).get("labelLimit", _LABEL_LIMIT)
        widest = max(widest, _AXIS_TITLE + min(longest, limit))
    return widest


def _lay_flat(part: Spec) -> None:
    """A scale of colours beside the chart would take a quarter of a narrow page: it lies above."""
    legend = _mapping(part.get("legend"))
    if _is_beside(legend):
        legend |= _GRADIENT


def _is_beside(legend: Spec) -> bool:
    """Whether it is a scale of colours beside its chart."""
    return legend.get("orient") == "right" and "gradientLength" in legend


def _fold_legends(spec: Spec, room: str) -> None:
    """Gives legends as many columns, of those that they want, as their labels have room for in the chart's place; puts
    those of one side below each other where they have no room beside each other; and those that are wider than the
    panel end where it ends, above its axis.
    """
    sides: dict[str, dict[str, list[tuple[Spec, list[Any]]]]] = {side: {} for side in _LEGENDS}
    for part in _parts_of(spec):
        legend = _mapping(part.get("legend"))
        if legend.get("orient") in _LEGENDS:
            known = _mapping(part.get("scale")).get("domain")
            domain = known if isinstance(known, list) else []
            sides[legend["orient"]].setdefault(f"{part.get('field')} {domain}", []).append((legend, domain))
    for side, legends in sides.items():
        layout: Spec = {}
        if len(legends) > 1:
            wanted = sum(_widest(*same[0]) for same in legends.values())
            layout["direction"] = {"signal": f"{room} < {wanted:.0f} ? 'vertical' : 'horizontal'"}
        if legends:
            column = max(_width_of(*same[0]) for same in legends.values())
            layout["anchor"] = {"signal": f"{room} < {column:.0f} ? 'end' : 'start'"}
            spec["config"]["legend"].setdefault("layout", {})[side] = layout
        for legend, domain in (one for same in legends.values() for one in same):
            if isinstance(legend.get("columns"), int | float):
                columns = f"{room} / {_width_of(legend, domain):.0f}"
                legend["columns"] = {"expr": f"clamp(floor({columns}), 1, {_most_columns(legend, domain)})"}


def _most_columns(legend: Spec, domain: Sequence[Any]) -> int:
    """A paper's column is narrow: what has several columns there has one for each label where there is room."""
    return max(int(legend["columns"]), len(domain)) if legend["columns"] > 1 else 1


def _widest(legend: Spec, domain: Sequence[Any]) -> float:
    """Pixels of a legend with all the columns that it wants."""
    wanted = legend.get("columns")
    n_columns = min(wanted, max(1, len(domain))) if isinstance(wanted, int | float) else max(1, len(domain))
    return max(_width_of(legend, domain) * n_columns, _LETTER * len(str(legend.get("title") or "")))


def _width_of(legend: Spec, domain: Sequence[Any]) -> float:
    """Pixels of a column of a legend."""
    is_stroke = legend.get("symbolType") == "stroke"
    return _SYMBOL[is_stroke] + _LETTER * max((len(str(label)) for label in domain), default=14)


def _enlarge_letters(part: Spec) -> None:
    """Letters that are small enough for a paper's column are too small for a screen; they stay clear of their marks."""
    mark = _mapping(part.get("mark"))
    if mark.get("type") == "text" and isinstance(mark.get("fontSize"), int | float):
        taller = max(_SMALLEST - mark["fontSize"], 0)
        mark["fontSize"] += taller
        if mark.get("dy"):
            mark["dy"] += math.copysign(taller / 2, mark["dy"])

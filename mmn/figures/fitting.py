"""Fits a chart's words into the column of a paper: titles, legends, and the numbers in the cells of heat maps.

    title      over the whole width, broken between words
    legends    above the chart, below each other, in as many columns as there is room for; longer labels in two lines
    heat maps  numbers as large as their cell takes, column labels upright where cells are narrow

A renderer lays a chart out around its legends and cuts off what is left over; so what it made of the chart once is
measured (`Room`) and the specification changed accordingly. Nothing here changes what a mark shows.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mmn.figures.text_width import broken, width_of

_CHANNELS: Final = ("color", "fill", "stroke", "shape", "strokeDash", "opacity")
_DISCRETE: Final = ("nominal", "ordinal")
_SYMBOL, _GAP = 20, 8  # points of a legend's symbol with its gap, and between two columns
_STROKE_EXTRA: Final = 0.12  # of a stroke's symbol, wider by the size that is asked for
_WIDE: Final = 330  # points from which a gradient may stand at the right
_ANGLE: Final = 35  # degrees of the labels below a heat map
_LEAST: Final = 5.0  # points of the smallest letters


@dataclass(frozen=True)
class Room:
    """Where a rendered chart has its first panel: points to its left, and its width."""

    left: float
    panel: float


def measured(spec: Mapping[str, Any], svg: str) -> Room:
    """The room of a chart as it was rendered; panels of a facet are as wide as their specification says."""
    left = re.search(r'<g [^>]*?transform="translate\(([-\d.]+),', svg)
    panel = re.search(r'<path class="background"[^>]*? d="M[-\d.]+,[-\d.]+h([\d.]+)', svg)
    assert left, svg[:300]
    assert panel, svg[:300]
    return Room(float(left[1]), float(spec["spec"]["width"] if "spec" in spec else panel[1]))


def fit_headers(spec: dict[str, Any], width_pt: float, size: float, left: float) -> None:
    """The words above each panel of a facet, from its left edge, in lines that fit."""
    facet = spec.get("facet")
    if facet is None:
        return
    room = width_pt - left - 4
    table = {label: broken(label, room, size, bold=True) for label in _labels(facet, list(_datasets(spec)))}
    facet["header"] = facet.get("header", {}) | {
        "labelAnchor": "start",
        "labelExpr": f"({_expression(table)})[datum.label]",
    }


def fit_title(spec: dict[str, Any], width_pt: float) -> None:
    """The title over the whole chart, its legends included, in lines that fit."""
    title, style = spec.get("title"), spec["config"]["title"]
    if not isinstance(title, dict):
        return
    title |= {"frame": "bounds", "anchor": "start"}
    title["text"] = _lines(title["text"], width_pt, style["fontSize"], bold=True)
    title["subtitle"] = _lines(title.get("subtitle", []), width_pt, style["subtitleFontSize"])


def fit_legends(spec: dict[str, Any], width_pt: float, size: float, left: float) -> None:
    """Legends that are no wider than the figure, with the panel's left edge `left` points from its own."""
    rows = list(_datasets(spec))
    names: dict[str, list[str]] = {}
    for channel, encoding in _legends(spec):
        if encoding["type"] in _DISCRETE:
            names.setdefault(_key(encoding), _labels(encoding, rows))
            _shape_legend(encoding, names[_key(encoding)], width_pt - 4, size)
        elif width_pt < _WIDE and channel == "color":
            encoding["legend"] |= {"orient": "top", "direction": "horizontal", "gradientLength": 90}
    widest = max(
        (_legend_width(one, names[_key(one)], size) for _, one in _legends(spec) if _key(one) in names), default=0
    )
    anchor = "start" if widest <= width_pt - left - 4 else "end"
    layout = {"direction": "vertical", "anchor": anchor}
    spec["config"]["legend"] |= {"layout": {"top": layout, "bottom": dict(layout)}}


def fit_cells(spec: dict[str, Any], panel: float, size: float) -> None:
    """The numbers and labels of a heat map whose panel is so wide."""
    for unit in _units(spec):
        if unit["mark"]["type"] != "text" or "sort" not in unit["encoding"].get("x", {}):
            continue  # words of a graph, not the numbers of a heat map
        cells = len(unit["encoding"]["x"]["sort"])
        widest = max((width_of(text, 1) for text in _numbers(unit, spec)), default=1.0)
        unit["mark"]["fontSize"] = round(min(size, 0.94 * panel / cells / widest), 2)
    for unit in _units(spec):
        x = unit.get("encoding", {}).get("x", {})
        if unit["mark"]["type"] in ("rect", "text") and isinstance(x.get("sort"), list):
            cell = panel / len(x["sort"])
            is_narrow = cell * math.sin(math.radians(_ANGLE)) < 1.05 * size
            x["axis"] |= {
                "labelAngle": -90 if is_narrow else -_ANGLE,
                "labelFontSize": _label_size(cell, size, is_narrow),
            }


def _label_size(cell: float, size: float, is_narrow: bool) -> float:
    return round(max(_LEAST, min(size, cell / 1.1)), 2) if is_narrow else size


def _numbers(unit: Mapping[str, Any], spec: Mapping[str, Any]) -> list[str]:
    """What the cells say."""
    text = unit["encoding"]["text"]
    if "field" not in text:
        return [str(text["value"])]
    field, form = text["field"], text["format"]
    values = [row[field] for row in _datasets(spec) if row.get(field) is not None]
    digits = int(form[1])
    return [f"{value:.{digits}f}".replace("-", "−") for value in values]


def _lines(given: str | Sequence[str], width: float, size: float, bold: bool = False) -> list[str]:
    lines = [given] if isinstance(given, str) else list(given)
    return [part for line in lines for part in broken(line, width - 6, size, bold)]


def _shape_legend(encoding: dict[str, Any], labels: list[str], width: float, size: float) -> None:
    """Above or below the chart, in as many columns as fit; a label that is too wide alone is broken."""
    legend = encoding["legend"] = encoding.get("legend") or {}
    room = width - _symbol(legend)
    if any(width_of(label, size) > room for label in labels):
        table = {label: broken(label, room, size) for label in labels}
        legend["labelExpr"] = f"({_expression(table)})[datum.label]"
        widest = max(width_of(line, size) for lines in table.values() for line in lines)
    else:
        widest = max((width_of(label, size) for label in labels), default=0.0)
    fitting = int((width + _GAP) // (widest + _symbol(legend) + _GAP))
    most = legend.get("columns", len(labels)) if legend.get("orient") in ("top", "bottom") else len(labels)
    legend |= {
        "orient": legend.get("orient", "top"),
        "columns": max(1, min(fitting, most)),
        "labelLimit": math.ceil(width),
    }
    if legend["orient"] not in ("top", "bottom"):
        legend["orient"] = "top"


def _legend_width(encoding: Mapping[str, Any], labels: Sequence[str], size: float) -> float:
    """Points that a legend takes: columns as wide as their widest label."""
    legend = encoding["legend"]
    n = legend["columns"]
    wide = [max((width_of(label, size) for label in labels[column::n]), default=0.0) for column in range(n)]
    if "labelExpr" in legend:
        return math.inf
    return sum(wide) + n * _symbol(legend) + (n - 1) * _GAP


def _symbol(legend: Mapping[str, Any]) -> float:
    return _SYMBOL + _STROKE_EXTRA * float(legend.get("symbolSize", 0))


def _expression(table: Mapping[str, Sequence[str]]) -> str:
    return json.dumps(table, ensure_ascii=False)


def _key(encoding: Mapping[str, Any]) -> str:
    """Legends of the same field and domain are drawn as one."""
    return f"{encoding.get('field')} {encoding.get('scale', {}).get('domain')}"


def _labels(encoding: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    legend = encoding.get("legend") or {}
    known = legend.get("values") or (encoding.get("scale") or {}).get("domain")
    field = encoding["field"]
    found = known or dict.fromkeys(row[field] for row in rows if row.get(field) is not None)
    return [str(one) for one in found]


def _legends(spec: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The encodings that a legend is drawn of."""
    for unit in _units(spec):
        for channel in _CHANNELS:
            encoding = unit.get("encoding", {}).get(channel)
            if isinstance(encoding, dict) and "field" in encoding and encoding.get("legend", {}) is not None:
                encoding.setdefault("legend", {})
                yield channel, encoding


def _units(spec: Any) -> Iterator[dict[str, Any]]:
    """The specifications of single marks."""
    if isinstance(spec, dict):
        if "mark" in spec:
            spec["mark"] = {"type": spec["mark"]} if isinstance(spec["mark"], str) else spec["mark"]
            yield spec
        for name in ("layer", "hconcat", "vconcat", "concat"):
            for part in spec.get(name, []):
                yield from _units(part)
        if "spec" in spec:
            yield from _units(spec["spec"])


def _datasets(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for rows in spec.get("datasets", {}).values():
        yield from rows

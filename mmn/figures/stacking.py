"""Several charts below each other as one: as one SVG, which PDF and PNG are made of, and as one Vega-Lite chart.

Each was laid out alone and is as wide as the column (`export.paper_spec`), so nothing of them can overlap.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

_GAP: Final = 10  # points between two charts
_OWN: Final = ("config", "$schema", "background", "padding", "autosize")  # of the whole, not of one of several
_HEAD: Final = re.compile(
    r'<svg([^>]*?) width="([\d.]+)" height="([\d.]+)" viewBox="[^"]*"([^>]*)>(.*)</svg>\s*', re.DOTALL
)


def one_svg(svgs: Sequence[str]) -> str:
    """One drawing of several, as wide as the widest; a single one as it is."""
    if len(svgs) == 1:
        return svgs[0]
    parts, width, y = [], 0.0, 0.0
    for svg in svgs:
        found = _HEAD.fullmatch(svg)
        assert found, svg[:300]
        parts.append(f'<g transform="translate(0,{y:g})">{found[5]}</g>')
        width, y = max(width, float(found[2])), y + float(found[3]) + _GAP
    head, height = _HEAD.fullmatch(svgs[0]), y - _GAP
    assert head
    box = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    white = f'<rect width="{width:g}" height="{height:g}" fill="white"/>'
    return f"<svg{head[1]} {box}{head[4]}>{white}{''.join(parts)}</svg>"


def one_spec(specs: Sequence[Mapping[str, Any]], panels: Sequence[float]) -> dict[str, Any]:
    """One Vega-Lite chart of several, of which each panel is so many points wide; a single one as it is."""
    if len(specs) == 1:
        return dict(specs[0])
    datasets = {name: rows for spec in specs for name, rows in spec.get("datasets", {}).items()}
    parts = [
        _wide(unclicked({name: value for name, value in spec.items() if name not in (*_OWN, "datasets")}), panel)
        for spec, panel in zip(specs, panels, strict=True)
    ]
    whole = {name: specs[0][name] for name in _OWN if name in specs[0] and name != "autosize"}
    apart = {"scale": dict.fromkeys(("color", "fill", "stroke", "shape", "strokeDash"), "independent")}
    return whole | {"datasets": datasets, "vconcat": parts, "resolve": apart}


def _wide(spec: dict[str, Any], panel: float) -> dict[str, Any]:
    return spec if "spec" in spec else spec | {"width": panel}


def unclicked(spec: Any) -> Any:
    """The same without selections, which must have other names in every part, and what depends on them."""
    if isinstance(spec, list):
        return [unclicked(one) for one in spec]
    if not isinstance(spec, dict):
        return spec
    condition = spec.get("condition")
    if isinstance(condition, dict) and "param" in condition:
        return {"value": condition["value"]}
    return {name: unclicked(value) for name, value in spec.items() if name != "params"}

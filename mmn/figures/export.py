"""A chart as a file for a paper: SVG, PDF, PNG at 300 ppi, the Vega-Lite JSON, or the data behind it as CSV.

Exports are on white, exactly as wide as asked (the column of a paper, legend and titles included), with text as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import altair as alt
import pandas as pd
import vl_convert

from mmn.errors import UsageError
from mmn.figures import glyphs
from mmn.figures.theme import paper_config, wrap

WIDTHS_IN: Final[Mapping[str, float]] = {"single": 3.25, "double": 6.75}  # columns of a two-column page, inches
FORMATS: Final[Mapping[str, str]] = {
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
    "png": "image/png",
    "json": "application/json",
    "csv": "text/csv",
}
PPI: Final = 300
_PT_PER_IN: Final = 72


def export_chart(chart: alt.TopLevelMixin, data: pd.DataFrame, path: Path, width: str | float = "single") -> Path:
    """Writes `chart`, or for `.csv` the `data` behind it, to `path` in the format that its ending names.

    Raises:
        UsageError: The ending or the width is none of ours.
    """
    path.write_bytes(chart_bytes(chart, data, path.suffix.lstrip(".").lower(), width))
    return path


def chart_bytes(chart: alt.TopLevelMixin, data: pd.DataFrame, form: str, width: str | float = "single") -> bytes:
    """The content of an exported file.

    Args:
        chart: Any chart of `mmn.figures`.
        data: The rows behind it.
        form: One of `FORMATS`.
        width: A key of `WIDTHS_IN`, or inches.

    Raises:
        UsageError: `form` or `width` is none of ours.
    """
    if form not in FORMATS:
        raise UsageError(f"{form!r} is not a format of figures; use one of {', '.join(FORMATS)}")
    if form == "csv":
        return data.to_csv(index=False, lineterminator="\n").encode()
    width_in = inches(width)
    glyphs.register_fonts()
    spec = paper_spec(chart, width_in, unshown(chart, form, width))
    if form == "json":
        return json.dumps(spec, indent=1, allow_nan=False).encode()
    if form == "svg":
        return _in_inches(vl_convert.vegalite_to_svg(spec), width_in).encode()
    if form == "pdf":
        return vl_convert.vegalite_to_pdf(spec)
    return vl_convert.vegalite_to_png(spec, ppi=PPI)


def unshown(chart: alt.TopLevelMixin, form: str, width: str | float = "single") -> str:
    """The characters of `chart` that a file of the format `form` cannot show as they are, and has written out instead.

    `glyphs.remedy` says what to do about them. An SVG shows all: its text is text.

    Raises:
        UsageError: `width` is none of ours; `MMN_FONTS` names no folder.
    """
    if form not in ("png", "pdf"):
        return ""
    glyphs.register_fonts()
    if not glyphs.suspects(_strings(chart.to_dict())):
        return ""
    return glyphs.undrawable(vl_convert.vegalite_to_svg(paper_spec(chart, inches(width))), form)


def _strings(spec: Any) -> Iterator[str]:
    """All strings of a specification, drawn or not."""
    if isinstance(spec, str):
        yield spec
    elif isinstance(spec, dict | list):
        for value in spec.values() if isinstance(spec, dict) else spec:
            yield from _strings(value)


def inches(width: str | float) -> float:
    """`width` in inches: a column name or a number from 1 to 20.

    Raises:
        UsageError: It is neither.
    """
    if isinstance(width, str) and width in WIDTHS_IN:
        return WIDTHS_IN[width]
    try:
        value = float(width)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 20:
        raise UsageError(f"{width!r} is not a width; use {', '.join(WIDTHS_IN)} or inches from 1 to 20")
    return value


def paper_spec(chart: alt.TopLevelMixin, width_in: float, unshown: str = "") -> dict[str, Any]:
    """The specification of `chart` in the paper theme, `width_in` inches wide over all; the characters of `unshown`,
    and control characters, which no renderer takes, are written out.

    Invariant: the rendered figure is within half a point of that width.
    """
    spec: dict[str, Any] = glyphs.with_written_out(chart.to_dict(), unshown)
    width_pt = width_in * _PT_PER_IN
    own = spec.get("config", {})
    spec["config"] = paper_config() | {k: v for k, v in own.items() if k not in ("view", "background")}
    spec["background"] = "white"
    spec["padding"] = 2
    _wrap_title(spec, width_pt)
    if _panel(spec) is spec:
        spec |= {"width": width_pt, "autosize": {"type": "fit-x", "contains": "padding"}}
        return spec
    return _fit_panels(spec, width_pt)


def _panel(spec: dict[str, Any]) -> dict[str, Any]:
    """The specification whose width is that of one panel: the facetted one, or the chart itself."""
    return spec.get("spec", spec)


def _fit_panels(spec: dict[str, Any], width_pt: float) -> dict[str, Any]:
    """Vega cannot fit facets, but what surrounds a panel hardly depends on its width: measure, correct, repeat."""
    panel = _panel(spec)
    panel["width"] = width_pt * 0.7
    for _ in range(4):
        gap = width_pt - _width_of(vl_convert.vegalite_to_svg(spec))
        if abs(gap) < 0.1:
            break
        panel["width"] += gap / _n_columns(spec)
    return spec


def _n_columns(spec: dict[str, Any]) -> int:
    columns = spec.get("columns", 1)
    assert "column" not in spec.get("facet", {}), "facet by `row`, or by `facet` with `columns`: see _fit_panels"
    return int(columns)


def _wrap_title(spec: dict[str, Any], width_pt: float) -> None:
    title, style = spec.get("title"), spec["config"]["title"]
    if isinstance(title, dict):
        title["text"] = wrap(title["text"], width_pt, style["fontSize"])
        title["subtitle"] = wrap(title.get("subtitle", []), width_pt, style["subtitleFontSize"])


def _width_of(svg: str) -> float:
    found = re.search(r'<svg[^>]*? width="([\d.]+)"', svg)
    assert found, svg[:200]
    return float(found[1])


def _in_inches(svg: str, width_in: float) -> str:
    """Says the size in inches: a bare SVG number is 1/96 inch, not a point, and the figure would come out smaller."""
    found = re.search(r'<svg[^>]*? width="([\d.]+)" height="([\d.]+)"', svg)
    assert found, svg[:200]
    height_in = float(found[2]) / float(found[1]) * width_in
    sizes = f'width="{width_in:g}in" height="{height_in:.4f}in"'
    return svg.replace(f'width="{found[1]}" height="{found[2]}"', sizes, 1)

"""A chart as a file for a paper: SVG, PDF, PNG at 300 or 600 ppi, the Vega-Lite JSON, or the data behind it as CSV or
Parquet.

Exports are on white, exactly as wide as asked (the column of a paper, legend and titles included), with text as text,
and the same bytes each time: no date, no random order. `saving` adds the recipe that makes the file again.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import altair as alt
import pandas as pd
import vl_convert

from mmn.errors import UsageError
from mmn.figures import fitting, glyphs, pdf, stacking
from mmn.figures.presets import Layout
from mmn.figures.specification import whole
from mmn.figures.theme import paper_config

FORMATS: Final[Mapping[str, str]] = {
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
    "png": "image/png",
    "json": "application/json",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "tex": "application/x-tex",
}
DRAWN: Final = ("svg", "pdf", "png", "json")  # formats of the chart; the others are of its rows
_PT_PER_IN: Final = 72
_USUAL: Final = Layout()
_OUT: Final = object()


def chart_bytes(
    charts: alt.TopLevelMixin | Sequence[alt.TopLevelMixin], data: pd.DataFrame, form: str, layout: Layout = _USUAL
) -> bytes:
    """The content of an exported file.

    Args:
        charts: Any chart of `mmn.figures`, or several, which stand below each other; none for a format of the rows.
        data: The rows behind it.
        form: One of `FORMATS` but `tex`, which needs to know the figure (`tables`).
        layout: how wide it is and how large its letters are.

    Raises:
        UsageError: `form` is none of ours.
    """
    if form not in FORMATS:
        raise UsageError(f"{form!r} is not a format of figures; use one of {', '.join(FORMATS)}")
    if form == "csv":
        return data.to_csv(index=False, lineterminator="\n").encode()
    if form == "parquet":
        out = io.BytesIO()
        data.to_parquet(out, index=False)
        return out.getvalue()
    assert form in DRAWN, form
    charts = [charts] if isinstance(charts, alt.TopLevelMixin) else charts
    assert charts
    if form == "json":
        glyphs.register_fonts()
        specs = [paper_spec(chart, layout, unshown(chart, form, layout)) for chart in charts]
        return json.dumps(_one_spec(specs), indent=1, allow_nan=False).encode()
    return svg_as(form, drawing(charts, form, layout), layout)


def drawing(charts: Sequence[alt.TopLevelMixin], form: str, layout: Layout) -> str:
    """The SVG that a file of the format `form` is made of, in points (1 px is 1/72 inch), charts below each other."""
    glyphs.register_fonts()
    fonts, shape = os.environ.get(glyphs.FONTS_VARIABLE, ""), Layout(layout.preset, layout.width)
    written = [
        (json.dumps(_numbered(whole(chart)), ensure_ascii=False), unshown(chart, form, layout)) for chart in charts
    ]
    return _counted(stacking.one_svg([_rendered(chart, shape, unshown_here, fonts) for chart, unshown_here in written]))


@lru_cache(maxsize=64)
def _rendered(written: str, layout: Layout, unshown: str, _fonts: str) -> str:
    """Laying a chart out takes several renderings; its other formats, and its next export, are made of the same."""
    spec = _in_paper(json.loads(written), layout, unshown)
    return vl_convert.vegalite_to_svg(_untold(spec))


def svg_as(form: str, svg: str, layout: Layout) -> bytes:
    """An SVG in points, `layout.width_in` wide, as a file of the format svg, pdf or png."""
    if form == "svg":
        return _in_inches(svg, layout.width_in).encode()
    if form == "pdf":
        return pdf.ordered(vl_convert.svg_to_pdf(svg))
    return vl_convert.svg_to_png(svg, ppi=layout.ppi)


def unshown(chart: alt.TopLevelMixin, form: str, layout: Layout = _USUAL) -> str:
    """The characters of `chart` that a file of the format `form` cannot show as they are, and has written out instead.

    `glyphs.remedy` says what to do about them. An SVG shows all: its text is text.

    Raises:
        UsageError: `MMN_FONTS` names no folder.
    """
    if form not in ("png", "pdf"):
        return ""
    glyphs.register_fonts()
    if not glyphs.suspects(_strings(whole(chart))):
        return ""
    return glyphs.undrawable(vl_convert.vegalite_to_svg(_untold(paper_spec(chart, layout))), form)


def _one_spec(specs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of several charts the one of which they are parts, each with its panel as wide as it is alone."""
    if len(specs) == 1:
        return specs[0]
    panels = [fitting.measured(spec, vl_convert.vegalite_to_svg(_bare(spec))).panel for spec in specs]
    return stacking.one_spec(specs, panels)


def _strings(spec: Any) -> Iterator[str]:
    """All strings of a specification, drawn or not."""
    if isinstance(spec, str):
        yield spec
    elif isinstance(spec, dict | list):
        for value in spec.values() if isinstance(spec, dict) else spec:
            yield from _strings(value)


def paper_spec(chart: alt.TopLevelMixin, layout: Layout = _USUAL, unshown: str = "") -> dict[str, Any]:
    """The specification of `chart` in the paper theme, as wide as `layout` says over all; the characters of `unshown`,
    and control characters, which no renderer takes, are written out.

    Invariant: the rendered figure is within half a point of that width.
    """
    return _in_paper(_numbered(whole(chart)), layout, unshown)


def _in_paper(plain: dict[str, Any], layout: Layout, unshown: str) -> dict[str, Any]:
    spec: dict[str, Any] = glyphs.with_written_out(plain, unshown)
    width_pt = layout.width_in * _PT_PER_IN
    own = spec.get("config", {})
    spec["config"] = paper_config(layout.size) | {k: v for k, v in own.items() if k not in ("view", "background")}
    spec["background"] = "white"
    spec["padding"] = 2
    room = _sized(spec, width_pt)
    fitting.fit_title(spec, width_pt)
    fitting.fit_legends(spec, width_pt, layout.size, room.left)
    fitting.fit_headers(spec, width_pt, layout.size, room.left)
    fitting.fit_cells(spec, room.panel, layout.size)
    _sized(spec, width_pt)
    return spec


def _sized(spec: dict[str, Any], width_pt: float) -> fitting.Room:
    """Makes the specification so wide; returns the room that its panels have.

    Vega cannot fit facets, but what surrounds a panel hardly depends on its width: measure, correct, measure again.
    Titles and legends are left out of that, since they are fitted to the width and not the width to them.
    """
    if "spec" not in spec:
        spec |= {"width": width_pt, "autosize": {"type": "fit-x", "contains": "padding"}}
        return fitting.measured(spec, vl_convert.vegalite_to_svg(_bare(spec)))
    spec["spec"].setdefault("width", width_pt * 0.7)
    for _ in range(4):
        svg = vl_convert.vegalite_to_svg(_bare(spec))
        gap = width_pt - _width_of(svg)
        if abs(gap) <= 0.5:  # Vega rounds to whole points
            break
        spec["spec"]["width"] += gap / _n_columns(spec)
    return fitting.measured(spec, svg)


def _bare(spec: dict[str, Any]) -> dict[str, Any]:
    """The same chart without title, legends, words above panels and tooltips."""
    bare = _without(spec, {"tooltip": _OUT, "legend": None})
    bare["config"] = spec["config"] | {"legend": {"disable": True}, "aria": False}
    bare.pop("title", None)
    if "facet" in bare:
        bare["facet"]["header"] = {"labelExpr": "''"}
    return bare


def _untold(spec: dict[str, Any]) -> dict[str, Any]:
    """The same chart without tooltips, which no file shows and which take long to write."""
    return _without(spec, {"tooltip": _OUT})


def _without(spec: Any, names: Mapping[str, Any]) -> Any:
    """A specification in which what is called by these names is something else, or `_OUT`: not there."""
    if isinstance(spec, list):
        return [_without(one, names) for one in spec]
    if not isinstance(spec, dict):
        return spec
    kept = {name: value for name, value in spec.items() if names.get(name, "") is not _OUT}
    return {
        name: value if name == "datasets" else names[name] if name in names else _without(value, names)
        for name, value in kept.items()
    }


def _n_columns(spec: dict[str, Any]) -> int:
    columns = spec.get("columns", 1)
    assert "column" not in spec.get("facet", {}), "facet by `row`, or by `facet` with `columns`: see _fit_panels"
    return int(columns)


def _numbered(spec: dict[str, Any]) -> dict[str, Any]:
    """Altair counts a process's views and parameters; here they are counted from 1, so that files are alike."""
    text = json.dumps(spec, ensure_ascii=False)
    names = dict.fromkeys(re.findall(r'"((?:view|param)_\d+)"', text))
    new = {name: f"{name.partition('_')[0]}_n{place}" for place, name in enumerate(names, start=1)}
    return json.loads(re.sub(r'"((?:view|param)_\d+)"', lambda found: f'"{new[found[1]]}"', text)) if new else spec


def _counted(svg: str) -> str:
    """Vega counts a process's gradients and clips; here they are counted from 1 in each file."""
    names = dict.fromkeys(re.findall(r'id="((?:gradient_|clip)\d+)"', svg))
    new = {name: f"d{place}" for place, name in enumerate(names, start=1)}
    return re.sub(
        r'(id="|url\(#|href="#)((?:gradient_|clip)\d+)', lambda found: found[1] + new.get(found[2], found[2]), svg
    )


def _width_of(svg: str) -> float:
    found = re.search(r'<svg[^>]*? width="([\d.]+)"', svg)
    assert found, svg[:200]
    return float(found[1])


def _in_inches(svg: str, width_in: float) -> str:
    """Says the size in inches: a bare SVG number is 1/96 inch, not a point, and the figure would come out smaller."""
    found = re.search(r'<svg[^>]*? width="([\d.]+)" height="([\d.]+)"', svg)
    assert found, svg[:200]
    height_in = float(found[2]) / float(found[1]) * width_in
    sizes = f'width="{width_in:.6g}in" height="{height_in:.4f}in"'
    return svg.replace(f'width="{found[1]}" height="{found[2]}"', sizes, 1)

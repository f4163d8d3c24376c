"""The colours of every chart, and the paper theme that an exported chart wears.

On the screen a chart takes the app's theme (light or dark), so nothing here is set process-wide; `export` merges
`paper_config` into the chart's specification. Sizes are points: in an export 1 px is 1 pt, 72 to the inch.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Final

from mmn.names import METHODS, MINUS_BLANK

# The list must end in a generic family: an unknown font alone gives a chart without any text. It begins with the one
# that the renderer brings along, so that a file is the same on every machine; Helvetica and Arial have its widths.
FONT: Final = "Liberation Sans, Helvetica, Arial, sans-serif"
INK: Final = "#1a1a1a"
# Okabe and Ito, 2008: told apart by every kind of colour vision
FIRST, SECOND, THIRD, FOURTH = "#0072B2", "#E69F00", "#CC79A7", "#009E73"
GREY: Final = "#76808a"  # lines and letters, read on white and in the dark
MUTED: Final = "#8c8c8c"  # controls, chance, and what is not the question

# d3's words for numbers, on the screen and on paper: `95 %`, as in our sentences.
NUMBERS: Final = {
    "number": {
        "decimal": ".",
        "thousands": ",",
        "grouping": [3],
        "currency": ["$", ""],
        "percent": "\u00a0%",
        "minus": "−",
    }
}

_OTHER_METHOD: Final = "#b8a900"
# Shapes and dashes tell series apart without colour; each score has its shape as it has its colour.
SHAPES: Final = (
    *("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-left"),
    *("M-1,-1H1L-1,1H1Z", "M-1,-1V1L1,-1V1Z", "M-1,-.3H1V.3H-1Z", "M-.3,-1H.3V1H-.3Z", "M0,-1L.9,.3L-.9,.3ZM0,1V.3"),
    *("triangle-right", "M-1,-1L1,1M-1,1L1,-1", "M-1,0H1M0,-1V1", "wedge", "arrow"),
)
DASHES: Final = ((1, 0), (5, 2), (2, 2), (7, 2, 1, 2))

# Viridis from 25 % to 85 %, its dark end a little lighter: ordered by lightness for every kind of colour vision, and
# neither end drowns in a white or a near-black background.
_ORDERED: Final = ("#4668a8", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#a0da39")


def ordered_colours(n: int) -> list[str]:
    """`n` colours for the values of an ordered quantity (k, layer), dark to light, spread over the whole scale."""
    if n > len(_ORDERED):
        return [_ORDERED[i * len(_ORDERED) // n] for i in range(n)]
    step = (len(_ORDERED) - 1) / max(1, n - 1)
    return [_ORDERED[round(i * step)] for i in range(n)]


def method_colours(methods: Sequence[str]) -> list[str]:
    """The fixed colour of each score; the difference to a grey picture has its score's colour, drawn towards grey."""
    return [_method_colour(method) for method in methods]


def method_shapes(methods: Sequence[str]) -> list[str]:
    """The fixed shape of each score's points; those of other names take what is free."""
    fixed = dict(zip(METHODS, SHAPES, strict=False))
    free = iter([shape for shape in SHAPES if shape not in {fixed.get(method) for method in methods}] * len(methods))
    return [fixed.get(method) or next(free) for method in methods]


def _method_colour(method: str) -> str:
    plain = method.removesuffix(MINUS_BLANK).partition(":")[0]
    colour = METHODS[plain].colour if plain in METHODS else _OTHER_METHOD
    if not method.endswith(MINUS_BLANK):
        return colour
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{(one + 0x88) // 2:02x}" for one in parts)


def paper_config(size: float = 7.0) -> dict[str, Any]:
    """A Vega-Lite `config` for print: black on white, `size`-point labels, thin rules, no frame."""
    label = {"labelFont": FONT, "labelFontSize": size, "labelColor": INK}
    title = {"titleFont": FONT, "titleFontSize": size + 0.5, "titleColor": INK, "titleFontWeight": "normal"}
    rule = {"domainColor": INK, "tickColor": INK, "domainWidth": 0.6, "tickWidth": 0.6, "tickSize": 3}
    return {
        "background": "white",
        "font": FONT,
        "locale": NUMBERS,
        "view": {"stroke": None},
        "axis": {**label, **title, **rule, "gridColor": "#e6e6e6", "gridWidth": 0.5, "titlePadding": 4},
        "axisX": {"grid": False},
        "header": {**label, **title},
        "legend": {**label, **title, "symbolSize": 36, "rowPadding": 1, "columnPadding": 6, "padding": 0, "offset": 4},
        "title": _title(size),
        "facet": {"spacing": 8},
    }


def _title(size: float) -> dict[str, Any]:
    return {
        "font": FONT,
        "fontSize": size + 1.5,
        "fontWeight": "bold",
        "color": INK,
        "subtitleFont": FONT,
        "subtitleFontSize": size,
        "subtitleColor": "#4d4d4d",
        "anchor": "start",
        "frame": "group",
        "offset": 6,
    }


def wrap(lines: str | Sequence[str], width_pt: float, size: float) -> list[str]:
    """`lines` broken so that none is wider than `width_pt` at `size` points (a Helvetica letter is about half as
    wide as it is high).
    """
    given = [lines] if isinstance(lines, str) else list(lines)
    letters = max(12, int(width_pt / (0.52 * size)))
    return [part for line in given for part in textwrap.wrap(line, letters, break_on_hyphens=False) or [""]]

"""How wide a text is in the font of exported figures, so that titles and legends are broken before they are cut off.

The advance widths are those of Liberation Sans, which Helvetica and Arial share by design, in thousandths of the size.
Letters beyond ASCII count as a digit does, full-width ones as two.
"""

from __future__ import annotations

import unicodedata
from typing import Final

_FIRST: Final = " "  # the widths are of the ASCII characters from here to the tilde
_REGULAR: Final = (
    *(278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278),  # space to /
    *(556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556),  # 0 to ?
    *(1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778),  # @ to O
    *(667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556),  # P to _
    *(333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556),  # ` to o
    *(556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584),  # p to ~
)
_BOLD: Final = (
    *(278, 333, 474, 556, 556, 889, 722, 238, 333, 333, 389, 584, 278, 333, 278, 278),
    *(556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 333, 333, 584, 584, 584, 611),
    *(975, 722, 722, 722, 722, 667, 611, 778, 722, 278, 556, 722, 611, 833, 722, 778),
    *(667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 333, 278, 333, 584, 556),
    *(333, 556, 611, 556, 611, 556, 333, 611, 611, 278, 278, 556, 278, 889, 611, 611),
    *(611, 611, 389, 556, 333, 611, 556, 778, 556, 556, 500, 389, 280, 389, 584),
)
_OTHER: Final = {"—": 1000, "…": 1000, "\u00a0": 278, "’": 222, "·": 278, "“": 333, "”": 333}
_USUAL, _FULL_WIDTH = 556, 1112


def width_of(text: str, size: float, bold: bool = False) -> float:
    """The width of one line, in the unit of `size`."""
    widths = _BOLD if bold else _REGULAR
    return sum(_advance(sign, widths) for sign in text) * size / 1000


def broken(text: str, width: float, size: float, bold: bool = False) -> list[str]:
    """`text` in lines that are not wider than `width`, broken between words; a word that is wider is broken itself."""
    lines = [""]
    for word in text.split(" "):
        for part in _pieces(word, width, size, bold):
            longer = f"{lines[-1]} {part}" if lines[-1] else part
            if width_of(longer, size, bold) <= width or not lines[-1]:
                lines[-1] = longer
            else:
                lines.append(part)
    return lines


def _pieces(word: str, width: float, size: float, bold: bool) -> list[str]:
    pieces = [""]
    for sign in word:
        if pieces[-1] and width_of(pieces[-1] + sign, size, bold) > width:
            pieces.append("")
        pieces[-1] += sign
    return pieces


def _advance(sign: str, widths: tuple[int, ...]) -> int:
    place = ord(sign) - ord(_FIRST)
    if 0 <= place < len(widths):
        return widths[place]
    if unicodedata.combining(sign):
        return 0
    return _OTHER.get(sign, _FULL_WIDTH if unicodedata.east_asian_width(sign) in "WF" else _USUAL)

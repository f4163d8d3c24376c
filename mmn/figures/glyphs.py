"""Which characters an exported chart can draw; those that no font here has are written out and named.

A PNG or PDF holds the shapes of its letters, taken from the fonts of this machine; where none has a character, the
renderer draws a box or nothing, and the text inside a PDF is another one. The renderer itself is asked, a character at
a time, so the answer holds wherever fonts come from (Linux, macOS, Windows, a folder named by `MMN_FONTS`). An SVG
keeps its text as text, for the fonts of whoever opens it; but control characters have no place in XML, and the renderer
ends the whole process over them, so they are written out everywhere.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape, unescape

import vl_convert

from mmn.errors import UsageError
from mmn.figures.theme import FONT
from mmn.figures.wording import written_out

FONTS_VARIABLE: Final = "MMN_FONTS"  # folders of further fonts, separated as in PATH
_SURE: Final = "\u024f"  # Latin, which the renderer's own font has
_NOWHERE: Final = "\u0378"  # belongs to no script: what it looks like, a missing character looks like
_INVISIBLE: Final = ("Cf", "Mn", "Zs")  # categories that may draw nothing
_PACKAGES: Final[Mapping[str, str]] = {  # beginning of a character's name -> the package whose font has it
    "CJK": "fonts-noto-cjk",
    "HIRAGANA": "fonts-noto-cjk",
    "KATAKANA": "fonts-noto-cjk",
    "HANGUL": "fonts-noto-cjk",
    "FULLWIDTH": "fonts-noto-cjk",
    "IDEOGRAPHIC": "fonts-noto-cjk",
}


def register_fonts() -> None:
    """Lets the renderer use the fonts in the folders of `MMN_FONTS`, too.

    Raises:
        UsageError: one of them is no folder.
    """
    _register(os.environ.get(FONTS_VARIABLE, ""))


@lru_cache(maxsize=1)
def _register(folders: str) -> None:
    for folder in filter(None, folders.split(os.pathsep)):
        if not Path(folder).is_dir():
            raise UsageError(f"{FONTS_VARIABLE} names {folder}, which is no folder")
        vl_convert.register_font_directory(str(Path(folder).resolve()))
    drawable.cache_clear()


def undrawable(svg: str, form: str) -> str:
    """The characters of an SVG's text that a file of the format `form` (`png` or `pdf`) would not show, in order."""
    said = "".join(unescape(re.sub(r"<[^>]*>", "", text)) for text in re.findall(r"<text[^>]*>(.*?)</text>", svg, re.S))
    return "".join(sign for sign in dict.fromkeys(said) if not drawable(sign, form))


@lru_cache(maxsize=4096)
def drawable(sign: str, form: str) -> bool:
    """Whether a character is drawn as itself in a file of the format `form` (one that is always written out: yes)."""
    if sign <= _SURE or written_out(sign) != sign:
        return True
    shape = vl_convert.svg_to_png(_alone(sign))
    if shape == vl_convert.svg_to_png(_alone(" ")):
        return unicodedata.category(sign) in _INVISIBLE
    if shape == vl_convert.svg_to_png(_alone(_NOWHERE)):
        return False
    return form != "pdf" or _fits_in_pdf(sign)


def _fits_in_pdf(sign: str) -> bool:
    """Colour bitmaps, as of emoji, cannot be embedded; one of them would fail the whole file."""
    try:
        vl_convert.svg_to_pdf(_alone(sign))
    except (RuntimeError, ValueError):  # what the renderer raises depends on the call
        return False
    return True


def with_written_out(spec: Any, signs: str) -> Any:
    """A Vega-Lite specification whose strings have `signs`, and all control characters, written out."""
    if isinstance(spec, str):
        return written_out(spec, signs)
    if isinstance(spec, dict):
        return {key: with_written_out(value, signs) for key, value in spec.items()}
    return [with_written_out(value, signs) for value in spec] if isinstance(spec, list) else spec


def remedy(signs: str, form: str) -> str:
    """One line: which characters a file does not show, how they stand there, and what to do; empty for none."""
    if not signs:
        return ""
    shown = signs if len(signs) <= 12 else f"{signs[:12]}… ({len(signs)} characters)"
    said = f"the {form.upper()} cannot show {shown}, written there as {written_out(signs[0], signs)}"
    if form == "pdf" and all(drawable(sign, "png") for sign in signs):
        return f"{said}: a PDF holds no colour bitmaps; PNG and SVG do"
    packages = " ".join(dict.fromkeys(_package(sign) for sign in signs))
    return (
        f"{said}: no font here has them; apt-get install {packages} (or a folder of fonts in {FONTS_VARIABLE}) and "
        "start again. An SVG keeps them as text"
    )


def _package(sign: str) -> str:
    name = unicodedata.name(sign, "")
    if unicodedata.category(sign) in ("So", "Sk"):
        return "fonts-noto-color-emoji"
    return next((package for start, package in _PACKAGES.items() if name.startswith(start)), "fonts-noto-core")


def suspects(texts: Iterable[str]) -> bool:
    """Whether any of the texts has a character that some file would not show."""
    return any(not drawable(sign, "pdf") for sign in {sign for text in texts for sign in text if sign > _SURE})


def _alone(sign: str) -> str:
    text = f'<text x="4" y="18" font-family="{FONT}" font-size="16">{escape(sign)}</text>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="24">{text}</svg>'

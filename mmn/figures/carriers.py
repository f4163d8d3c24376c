"""Puts a recipe into a file, and finds it there, whoever made the file.

    svg      <metadata id="mmn-recipe">            pdf      the file's information, `MmnRecipe`
    png      a text chunk `mmn-recipe`             json     `usermeta.mmn`, which Vega-Lite leaves alone
    csv, parquet, tex      a file beside it, `NAME.recipe.json`

A file is read as bytes of a bounded number; none is rendered, unpacked or parsed as XML.
"""

from __future__ import annotations

import html
import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any, Final

from mmn.errors import UsageError
from mmn.figures import pdf
from mmn.figures.recipes import MOST_BYTES, GridRecipe, Recipe
from mmn.safety.regular_files import read_regular

BESIDE: Final = ("csv", "parquet", "tex")
BESIDE_ENDING: Final = ".recipe.json"
_MOST_FILE: Final = 64_000_000
_REMEDY: Final = "give a file that mmn figure wrote, or its recipe"
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_CHUNK: Final = b"mmn-recipe\0"
_METADATA: Final = re.compile(rb'<metadata id="mmn-recipe">([^<]{1,%d})</metadata>' % MOST_BYTES)


def carrying(form: str, content: bytes, recipe: Recipe | GridRecipe) -> bytes:
    """The file with its recipe in it; one of `BESIDE` as it is."""
    text = recipe.to_json()
    if form == "svg":
        told = f'<metadata id="mmn-recipe">{html.escape(text, quote=False)}</metadata>'.encode()
        return re.sub(rb"(<svg[^>]*>)", lambda found: found[1] + told, content, count=1)
    if form == "png":
        head = len(_PNG) + 25  # the signature and the first chunk, IHDR
        return content[:head] + _chunk(b"tEXt", _CHUNK + text.encode()) + content[head:]
    if form == "pdf":
        return pdf.ordered(content, {"MmnRecipe": text})
    if form == "json":
        spec = json.loads(content)
        return json.dumps(spec | {"usermeta": {"mmn": json.loads(text)}}, indent=1, allow_nan=False).encode()
    assert form in BESIDE, form
    return content


def read_recipe(path: Path) -> Recipe | GridRecipe:
    """The recipe of one figure, or of a grid of several: in an exported file, beside it, or that a file is.

    Raises:
        BrokenFileError: it is no regular file, or too large.
        UsageError: there is no recipe, or none as mmn writes them.
    """
    if path.suffix.lstrip(".").lower() in BESIDE:
        read_regular(path, _MOST_FILE, _REMEDY)
        path = path.with_name(path.name + BESIDE_ENDING)
    found = _found(read_regular(path, _MOST_FILE, _REMEDY))
    if found is None:
        raise UsageError(f"{path.name} holds no recipe: {_REMEDY}")
    try:
        return GridRecipe.from_json(found) if _is_of_grid(found) else Recipe.from_json(found)
    except UsageError as error:
        raise UsageError(f"{path.name}: {error}") from error


def _is_of_grid(text: str) -> bool:
    if len(text) > MOST_BYTES:
        return False
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(given, dict) and "mmn_grid" in given


def _found(data: bytes) -> str | None:
    if data.startswith(_PNG):
        return _in_png(data)
    if data.startswith(b"%PDF"):
        return pdf.recipe_text(data)
    if data.lstrip()[:1] == b"<":
        found = _METADATA.search(data)
        return html.unescape(found[1].decode("utf-8", "replace")) if found else None
    return _in_json(data)


def _in_json(data: bytes) -> str | None:
    """A recipe alone, or that of a chart's specification."""
    try:
        given: Any = json.loads(data.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(given, dict):
        return None
    if "mmn_recipe" in given:
        return json.dumps(given)
    meta = given.get("usermeta")
    return json.dumps(meta["mmn"]) if isinstance(meta, dict) and "mmn" in meta else None


def _in_png(data: bytes) -> str | None:
    """The text of our chunk; chunks that say they are longer than the file end the search."""
    place = len(_PNG)
    while place + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        content = data[place + 8 : place + 8 + length]
        if kind == b"tEXt" and content.startswith(_CHUNK):
            return content[len(_CHUNK) :].decode("latin-1")
        place += 12 + length
    return None


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

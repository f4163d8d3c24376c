"""A PDF of one chart with its parts in a fixed order, and with words about it; the words of such a file.

The renderer numbers fonts and lists resources in an order that changes from one call to the next. Here a file's objects
are numbered as they are reached from its root, resources by name, so that the same chart is the same bytes. OURS; the
parts are those of ISO 32000-1, 7.5 (file structure): numbered objects, a table of where each begins, a trailer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_OBJECT: Final = re.compile(rb"(\d+) 0 obj\n")
_REFERENCE: Final = re.compile(rb"\b(\d+) 0 R\b")
_RESOURCES: Final = re.compile(rb"(/(?:XObject|ExtGState|Font|ColorSpace|Pattern|Shading) <<\n)((?: *\/\w+ [^\n]*\n)+)")
_HEAD: Final = b"%PDF-1.7\n%\x80\x80\x80\x80\n"
_ESCAPED: Final = re.compile(rb"([\\()])")
RECIPE: Final = b"/MmnRecipe ("


def ordered(data: bytes, words: Mapping[str, str] | None = None) -> bytes:
    """The same PDF in a fixed order, with `words` (ASCII) in its information: name -> text."""
    objects = _objects(data)
    root = int(re.findall(rb"/Root (\d+) 0 R", data)[-1])
    order = _reached(objects, root)
    number = {old: new for new, old in enumerate(order, start=1)}
    parts = [_renumbered(objects[old], number) for old in order] + [_information(words or {})]
    return _assembled(parts)


def recipe_text(data: bytes) -> str | None:
    """The text under `MmnRecipe` in a PDF's information, None without."""
    start = data.rfind(RECIPE)
    if start < 0:
        return None
    found = re.match(rb"((?:[^\\()]|\\.)*)\)", data[start + len(RECIPE) :], re.S)
    return re.sub(rb"\\(.)", rb"\1", found[1]).decode("ascii", "replace") if found else None


def _objects(data: bytes) -> dict[int, bytes]:
    """The content of each object by its number, from the table of where they begin."""
    table = data[int(re.findall(rb"startxref\s+(\d+)", data)[-1]) :]
    starts = [int(one) for one in re.findall(rb"(\d{10}) 00000 n", table)]
    found = {}
    for start in starts:
        head = _OBJECT.match(data, start)
        assert head, data[start : start + 40]
        found[int(head[1])] = data[head.end() : _end(data, head.end())]
    return found


def _end(data: bytes, start: int) -> int:
    """Where an object ends: a stream, whose bytes may say anything, is as long as it says."""
    stream, end = data.find(b"\nstream\n", start), data.find(b"\nendobj", start)
    if not 0 <= stream < end:
        return end
    length = re.search(rb"/Length (\d+)", data[start:stream])
    assert length, data[start:stream]
    return data.find(b"\nendobj", stream + len(b"\nstream\n") + int(length[1]))


def _parted(content: bytes) -> tuple[bytes, bytes]:
    """An object's dictionary, resources by name, and its stream."""
    head, mark, stream = content.partition(b"\nstream\n")
    return _RESOURCES.sub(lambda found: found[1] + b"".join(sorted(found[2].splitlines(True))), head), mark + stream


def _reached(objects: Mapping[int, bytes], root: int) -> list[int]:
    """The numbers of all objects that the root leads to, in the order in which they are met."""
    order, waiting = [], [root]
    while waiting:
        number = waiting.pop(0)
        if number not in order:
            order.append(number)
            waiting += [int(one) for one in _REFERENCE.findall(_parted(objects[number])[0])]
    return order


def _renumbered(content: bytes, number: Mapping[int, int]) -> bytes:
    head, stream = _parted(content)
    return _REFERENCE.sub(lambda found: b"%d 0 R" % number[int(found[1])], head) + stream


def _information(words: Mapping[str, str]) -> bytes:
    told = {"Producer": "mmn", **words}
    lines = [
        b"  /%s (%s)\n" % (name.encode(), _ESCAPED.sub(rb"\\\1", text.encode("ascii"))) for name, text in told.items()
    ]
    return b"<<\n" + b"".join(lines) + b">>"


def _assembled(parts: list[bytes]) -> bytes:
    """The file of objects whose first is the root and whose last is the information."""
    out, starts = bytearray(_HEAD), []
    for number, content in enumerate(parts, start=1):
        starts.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(parts) + 1)
    out += b"".join(b"%010d 00000 n \n" % start for start in starts)
    out += b"trailer\n<< /Size %d /Root 1 0 R /Info %d 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(parts) + 1,
        len(parts),
        table,
    )
    return bytes(out)

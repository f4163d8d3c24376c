"""Where the words of an SVG stand: each line of text as a rectangle, turned as it is drawn."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass

from mmn.figures.text_width import width_of

_SVG = "{http://www.w3.org/2000/svg}"
ASCENT, DESCENT = 0.72, 0.12  # of a letter's size, above and below the line that it stands on: capitals, a comma's tail
Matrix = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Box:
    """A line of text: its words, size, and corners in points of the figure."""

    text: str
    size: float
    corners: tuple[tuple[float, float], ...]


def canvas(svg: str) -> tuple[float, float]:
    """Width and height in points."""
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert found
    return float(found[1]), float(found[2])


def boxes(svg: str) -> list[Box]:
    """All lines of text that are drawn."""
    root = ElementTree.fromstring(svg)  # noqa: S314 — we wrote it
    return [box for box in _walk(root, (1, 0, 0, 1, 0, 0)) if box.text.strip()]


def is_inside(box: Box, size: tuple[float, float], slack: float = 0.5) -> bool:
    """Whether a box lies on the canvas; half a point is less than a letter's own margin."""
    return all(-slack <= x <= size[0] + slack and -slack <= y <= size[1] + slack for x, y in box.corners)


def overlap(one: Box, other: Box, slack: float = 0.3) -> bool:
    """Whether two rectangles share more than an edge (separating axes)."""
    for box in (one, other):
        for start, end in zip(box.corners, (*box.corners[1:], box.corners[0]), strict=True):
            normal = (end[1] - start[1], start[0] - end[0])
            length = math.hypot(*normal)
            if not length:
                return False
            ours, theirs = (
                sorted((x * normal[0] + y * normal[1]) / length for x, y in each.corners) for each in (one, other)
            )
            if ours[-1] <= theirs[0] + slack or theirs[-1] <= ours[0] + slack:
                return False
    return True


def _walk(element: ElementTree.Element, matrix: Matrix) -> Iterator[Box]:
    matrix = _times(matrix, _matrix(element.get("transform", "")))
    if element.tag == f"{_SVG}text" and float(element.get("opacity", 1)) > 0:
        yield from _lines(element, matrix)
    for child in element:
        yield from _walk(child, matrix)


def _lines(element: ElementTree.Element, matrix: Matrix) -> Iterator[Box]:
    size, anchor = float(element.get("font-size", "0").removesuffix("px")), element.get("text-anchor", "start")
    bold = element.get("font-weight") == "bold"
    y = 0.0
    for text, dy in [(element.text or "", 0.0), *((one.text or "", float(one.get("dy", 0))) for one in element)]:
        y += dy
        width = width_of(text, size, bold)
        x = {"start": 0.0, "middle": -width / 2, "end": -width}[anchor]
        ends = (
            (x, y - ASCENT * size),
            (x + width, y - ASCENT * size),
            (x + width, y + DESCENT * size),
            (x, y + DESCENT * size),
        )
        yield Box(text, size, tuple(_moved(matrix, *one) for one in ends))


def _matrix(transform: str) -> Matrix:
    found: Matrix = (1, 0, 0, 1, 0, 0)
    for name, inside in re.findall(r"(\w+)\(([^)]*)\)", transform):
        values = [float(one) for one in re.split(r"[ ,]+", inside.strip())]
        if name == "translate":
            step: Matrix = (1, 0, 0, 1, values[0], values[1] if len(values) > 1 else 0)
        elif name == "rotate":
            turn = math.radians(values[0])
            step = (math.cos(turn), math.sin(turn), -math.sin(turn), math.cos(turn), 0, 0)
        else:
            assert name == "scale", name
            step = (values[0], 0, 0, values[-1], 0, 0)
        found = _times(found, step)
    return found


def _times(m: Matrix, n: Matrix) -> Matrix:
    a, b, c, d, e, f = m
    return (
        a * n[0] + c * n[1],
        b * n[0] + d * n[1],
        a * n[2] + c * n[3],
        b * n[2] + d * n[3],
        a * n[4] + c * n[5] + e,
        b * n[4] + d * n[5] + f,
    )


def _moved(m: Matrix, x: float, y: float) -> tuple[float, float]:
    return m[0] * x + m[2] * y + m[4], m[1] * x + m[3] * y + m[5]

"""Two charts on the same scales: every axis of numbers goes as far as the further one of both.

Vega scales a chart by its own rows. Here an axis of each is found (the ends that the chart itself fixes, else those of
its rows, bars from 0, stacked ones by their sums), and both charts are told the union. Axes of words stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

AXES: Final = ("x", "y")
Ends = tuple[float, float]


@dataclass(frozen=True)
class _Unit:
    """One mark of a specification: its encodings, those of the layers around it, its rows, and its facet's field."""

    mark: str
    encoding: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    facet: str


def share_scales(*specs: dict[str, Any]) -> dict[str, Ends]:
    """Changes the specifications so that each axis of numbers has the same ends in all; returns these, by `x` and `y`.

    An axis that one of them does not have as numbers is left alone.
    """
    shared: dict[str, Ends] = {}
    for axis in AXES:
        ends = [_ends(spec, axis) for spec in specs]
        known = [one for one in ends if one is not None]
        if len(known) == len(ends):
            shared[axis] = min(low for low, _ in known), max(high for _, high in known)
            for spec in specs:
                _set(spec, axis, shared[axis], is_nice=not _is_fixed(spec, axis))
    return shared


def _ends(spec: Mapping[str, Any], axis: str) -> Ends | None:
    """Of an axis of numbers; None where it has none, or is binned."""
    units = _of_numbers(spec, axis)
    fixed = [domain for unit in units if (domain := _domain(unit.encoding[axis])) is not None]
    if fixed:
        return min(low for low, _ in fixed), max(high for _, high in fixed)
    values = [value for unit in units for value in _values(unit, axis)]
    return (min(values), max(values)) if values else None


def _of_numbers(spec: Mapping[str, Any], axis: str) -> list[_Unit]:
    return [unit for unit in _units(spec) if _is_of_numbers(unit.encoding.get(axis))]


def _is_fixed(spec: Mapping[str, Any], axis: str) -> bool:
    """Whether any mark of the chart fixes the axis's ends."""
    return any(_domain(unit.encoding[axis]) is not None for unit in _of_numbers(spec, axis))


def _is_of_numbers(channel: Any) -> bool:
    return isinstance(channel, dict) and channel.get("type") == "quantitative" and not channel.get("bin")


def _domain(channel: Mapping[str, Any]) -> Ends | None:
    domain = (channel.get("scale") or {}).get("domain")
    if not isinstance(domain, list) or len(domain) != 2 or not all(isinstance(one, int | float) for one in domain):
        return None
    return float(domain[0]), float(domain[1])


def _values(unit: _Unit, axis: str) -> Iterator[float]:
    """What the marks reach on an axis; 0 where the scale begins there."""
    channel = unit.encoding[axis]
    field = channel.get("field")
    scale = channel.get("scale") or {}
    if scale.get("zero", True) is not False and scale.get("type") != "log":
        yield 0.0
    if channel.get("stack") == "zero":
        yield from _stacked(unit, axis)
        return
    for name in (field, (unit.encoding.get(f"{axis}2") or {}).get("field")):
        yield from (value for _, value in _numbers(unit, name or ""))


def _stacked(unit: _Unit, axis: str) -> Iterator[float]:
    """The ends of stacked bars: sums of what is above 0, and of what is below, at each place."""
    other = (unit.encoding.get("y" if axis == "x" else "x") or {}).get("field")
    sums: dict[tuple[Any, ...], float] = {}
    for row, value in _numbers(unit, unit.encoding[axis]["field"]):
        place = (row.get(other or ""), row.get(unit.facet), value > 0)
        sums[place] = sums.get(place, 0.0) + value
    yield from sums.values()


def _numbers(unit: _Unit, field: str) -> Iterator[tuple[Mapping[str, Any], float]]:
    """The rows that have a number in a column, with it."""
    for row in unit.rows:
        value = row.get(field)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield row, float(value)


def _units(spec: Mapping[str, Any]) -> Iterator[_Unit]:
    datasets = spec.get("datasets", {})
    facet = (spec.get("facet") or {}).get("field", "")

    def walk(part: Mapping[str, Any], encoding: Mapping[str, Any], rows: Sequence[Any]) -> Iterator[_Unit]:
        rows = datasets.get((part.get("data") or {}).get("name"), rows)
        encoding = {**encoding, **part.get("encoding", {})}
        if "mark" in part:
            mark = part["mark"]
            yield _Unit(mark if isinstance(mark, str) else mark["type"], encoding, rows, facet)
        for inner in [*part.get("layer", []), *([part["spec"]] if "spec" in part else [])]:
            yield from walk(inner, encoding, rows)

    yield from walk(spec, {}, [])


def _set(part: dict[str, Any], axis: str, ends: Ends, *, is_nice: bool) -> None:
    """Fixes the ends in every encoding of the axis; they are rounded outwards (`nice`) where no mark fixed them."""
    channel = part.get("encoding", {}).get(axis)
    if channel is not None and _is_of_numbers(channel):
        channel["scale"] = (channel.get("scale") or {}) | {"domain": list(ends), "nice": is_nice}
        channel["scale"].pop("zero", None)
    for inner in [*part.get("layer", []), *([part["spec"]] if "spec" in part else [])]:
        _set(inner, axis, ends, is_nice=is_nice)

"""Reads a set of units from a file: CSV or Parquet with the columns `layer,unit[,score]`, or `unit[,score]`.

In CSV the first line may name the columns; without, they are meant in that order. A unit that stands alone is written
`L14.u201`, in a mixture of experts `L14.e3.u201`, too. What spreadsheets add (a byte order mark, Windows line ends,
empty lines) is passed over; anything else that is wrong is an error that names the line.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from mmn.core import ModelFacts, Neuron, named_unit
from mmn.counts import counted
from mmn.errors import UsageError
from mmn.printable import printable, quoted
from mmn.safety.regular_files import read_regular
from mmn.safety.roots import require_inside
from mmn.units.sets import MOST_UNITS, UnitSet, require_units

MOST_BYTES: Final = 64_000_000
PLACED: Final = ("layer", "unit", "score")
NAMED: Final = ("unit", "score")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_EXAMPLE: Final = "give layer,unit[,score], as 14,201,0.7, or unit[,score], as L14.u201,0.7"
_Row = tuple[int, Sequence[Any]]  # the number of its line, and its cells


def read_set(path: Path, facts: ModelFacts) -> UnitSet:
    """The units of a file, called by its name.

    Args:
        path: `.csv`, `.txt` or `.parquet`.
        facts: of the model that they are to be units of.

    Raises:
        UsageError: no such file, not UTF-8, no units, a line that is no unit or one that was there before, a unit that
            the model has not.
        CacheError: no regular file, or too large.
    """
    require_inside(path)
    if not path.is_file():
        raise UsageError(f"{printable(path)} is no file of units")
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _csv_rows(path)
    units, scores = _units(rows, path, facts)
    require_units(units, facts, printable(path))
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem).lstrip(".-")[:60] or "units"
    has_scores = any(score is not None for score in scores)
    return UnitSet(name, tuple(units), tuple(scores) if has_scores else (), origin={"file": path.name})


def _csv_rows(path: Path) -> list[_Row]:
    data = read_regular(path.resolve(), MOST_BYTES, "give a file of layer,unit[,score]")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{printable(path)} is not UTF-8 text: save it as CSV in UTF-8") from None
    if "\0" in text:
        raise UsageError(f"{printable(path)} holds zero bytes and is no text: save it as CSV in UTF-8")
    try:
        lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        return [(lines.line_num, cells) for cells in lines if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise UsageError(f"{printable(path)} is no CSV ({error}): {_EXAMPLE}") from error


def _parquet_rows(path: Path) -> list[_Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = read_regular(path.resolve(), MOST_BYTES, "give a file of layer,unit[,score]")
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = list(file.schema_arrow.names)
        if file.metadata.num_rows > MOST_UNITS:
            raise UsageError(f"{printable(path)} has more than the {MOST_UNITS:,} units of a set")
        table = file.read()
    except (pa.ArrowException, OSError) as error:
        reason = printable(str(error).partition("\n")[0][:120])
        raise UsageError(f"{printable(path)} is no Parquet file ({reason})") from error
    wanted = PLACED if "layer" in names else NAMED
    used = [name for name in wanted if name in names]
    columns = [table[name].to_pylist() for name in used]
    return [(0, used), *enumerate(zip(*columns, strict=True), start=1)] if used else [(0, names)]


def _units(rows: Sequence[_Row], path: Path, facts: ModelFacts) -> tuple[list[Neuron], list[float | None]]:
    if not rows:
        raise UsageError(f"{printable(path)} is empty: {_EXAMPLE}")
    columns, rows = _columns(rows, path)
    if not rows:
        raise UsageError(f"{printable(path)} names no unit: {_EXAMPLE}")
    if len(rows) > MOST_UNITS:
        raise UsageError(f"{printable(path)} has more than the {MOST_UNITS:,} units of a set")
    read = _placed if columns[0] == "layer" else _named
    found: dict[Neuron, int] = {}
    scores: list[float | None] = []
    for line, cells in rows:
        where = f"{printable(path)}, line {line}"
        if len(cells) != len(columns) and len(cells) != len(columns) - ("score" in columns):
            raise UsageError(f"{where}: {counted(len(cells), 'column')} instead of {len(columns)}; {_EXAMPLE}")
        unit = read(cells, facts, where)
        if unit in found:
            raise UsageError(f"{where}: {unit} stands there twice, first in line {found[unit]}")
        found[unit] = line
        scores.append(_score(cells[len(columns) - 1], where) if _has_score(columns, cells) else None)
    return list(found), scores


def _has_score(columns: Sequence[str], cells: Sequence[Any]) -> bool:
    is_there = columns[-1] == "score" and len(cells) == len(columns) and cells[-1] is not None
    return is_there and str(cells[-1]).strip() != ""


def _columns(rows: Sequence[_Row], path: Path) -> tuple[tuple[str, ...], Sequence[_Row]]:
    """The columns' names, and the rows without the line that names them."""
    first = tuple(str(cell).strip().lower() for cell in rows[0][1])
    known = (PLACED, PLACED[:2], NAMED, NAMED[:1])
    if first in known:
        return first, rows[1:]
    if first[0].startswith("l") and first[0] != "layer" and len(first) <= len(NAMED):
        return NAMED[: len(first)], rows
    if _NUMBER.fullmatch(first[0].lstrip("-")) and 2 <= len(first) <= len(PLACED):
        return PLACED[: len(first)], rows
    raise UsageError(f"{printable(path)} has the columns {quoted(','.join(first))}: {_EXAMPLE}")


def _placed(cells: Sequence[Any], _facts: ModelFacts, where: str) -> Neuron:
    layer, unit = (_whole(cell, name, where) for cell, name in zip(cells[:2], PLACED[:2], strict=True))
    return Neuron(layer, unit)


def _named(cells: Sequence[Any], facts: ModelFacts, where: str) -> Neuron:
    try:
        return named_unit(str(cells[0]), facts.d_experts)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _whole(cell: Any, name: str, where: str) -> int:
    text = str(cell).strip()
    if not _NUMBER.fullmatch(text):
        raise UsageError(f"{where}: {name} {quoted(text, 40)} is not a whole number from 0")
    return int(text)


def _score(cell: Any, where: str) -> float:
    try:
        score = float(cell)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise UsageError(f"{where}: score {quoted(cell, 40)} is not a number")
    return score

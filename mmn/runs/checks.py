"""Checks what a shard holds, column by column, before it is written and before it is loaded.

The schema (`tables.TABLES`) says which columns there are, of which type, and which may be empty; the run says how many
layers, units and ranks there are. Every check runs over whole columns: 5 million scores take about two seconds.

    types, nulls, text that is UTF-8 · finite floats, whole numbers and times in their range · JSON that is JSON
    keys (`tables.KEYS`) that are distinct, so that ranks are unique · every score and budget row has its concept

Left out: whether a value is right. A score of 0.5 that should be 0.6 is found by the shard's digest (`manifests`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmn.columns import as_numpy, numbers, one_number
from mmn.core import Run
from mmn.counts import counted
from mmn.errors import Unfit
from mmn.names import MINUS_BLANK
from mmn.printable import quoted
from mmn.runs.manifests import YEARS
from mmn.studies.table import is_json
from mmn.studies.tables import AMONG, KEYS, LATER, SHARES, TABLES

MOST_ROWS: Final = 20_000_000  # of one table of a shard
MOST_TEXT_BYTES: Final = 1_000_000  # of one text
MOST_TEXTS_BYTES: Final = 4_000_000_000  # of all texts of a column
MOST_DEPTH: Final = 32  # of lists and objects inside each other, in a cell of JSON
_ROUNDING: Final = 1e-6  # by which a share may pass 0 or 1
_TIMES: Final = (datetime(YEARS[0], 1, 1), datetime(YEARS[1], 1, 1))  # noqa: DTZ001 - shards keep UTC without saying so
_OF_CONCEPTS: Final = ("image_id", "variant", "noun")


def check_tables(tables: Mapping[str, pa.Table], run: Run) -> None:
    """Raises `Unfit`, which says what and where, unless the tables of a shard are what `run` may hold.

    Args:
        tables: by name, with the columns of their schemas in order; text plain or by dictionary.
        run: whose shard it is.
    """
    for name, table in tables.items():
        _check_columns(name, table, run)
        if name in KEYS:
            _check_distinct(name, table)
        for column, words in AMONG.get(name, {}).items():
            _check_among(f"{name}.{column}", distinct(table, [column]), words, f"{', '.join(words)}")
    _check_concepts(tables)
    if "score" in tables:
        _check_among("score.method", distinct(tables["score"], ["method"]), _methods(run), "methods of the run")
    if "neuron" in tables:
        theirs = distinct(tables["neuron"], ["model_fingerprint"])
        _check_among("neuron.model_fingerprint", theirs, [run.model.fingerprint], "the run's model")


def in_schema(name: str, table: pa.Table) -> pa.Table:
    """Returns the table with the columns of its schema in order. Those that may be empty may be missing, and those
    that came later (`LATER`): then all rows have what they would have been given.

    Raises:
        Unfit: a column is missing, there twice, or of another type.
    """
    columns, later = {}, LATER.get(name, {})
    for field in TABLES[name]:
        n_found = table.column_names.count(field.name)
        if n_found > 1 or (n_found == 0 and not field.nullable and field.name not in later):
            raise Unfit(f"{name}.{field.name} is {'there twice' if n_found else 'missing'}")
        if n_found and not _is_like(table.schema.field(field.name).type, field.type):
            raise Unfit(f"{name}.{field.name} is of type {table.schema.field(field.name).type} and not {field.type}")
        missing = pa.scalar(later.get(field.name), field.type)
        columns[field.name] = table[field.name] if n_found else pa.repeat(missing, len(table))
    return pa.table(columns)


def distinct(table: pa.Table, names: list[str]) -> set[tuple[Any, ...]]:
    """Returns the distinct rows of a few columns. Fast where equal rows follow each other, as ours do."""
    if not len(table):
        return set()
    codes = _codes(table, names)
    firsts = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
    _, order = np.unique(codes[firsts], return_index=True)
    rows = table.select(names).take(numbers(firsts[order]))
    return set(zip(*(rows[name].to_pylist() for name in names), strict=True))


def pictures(tables: Mapping[str, pa.Table]) -> set[str]:
    """Returns the pictures that the tables of a shard speak of."""
    told = [distinct(table, ["image_id"]) for table in tables.values() if "image_id" in table.column_names]
    return {image_id for (image_id,) in set().union(*told) if image_id is not None}


def _check_columns(name: str, table: pa.Table, run: Run) -> None:
    if len(table) > MOST_ROWS:
        raise Unfit(f"{name} has {counted(len(table), 'row')}, more than the {MOST_ROWS:,} of a shard")
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        raise Unfit(f"{name} is damaged or holds text that is not UTF-8 ({error})") from error
    for field in TABLES[name]:
        _check_column(f"{name}.{field.name}", table[field.name], field, run)


def _check_column(name: str, column: pa.ChunkedArray, field: pa.Field, run: Run) -> None:
    if column.null_count and not field.nullable:
        raise Unfit(f"{name}: {column.null_count} nulls")
    values, kind = column, field.type
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        values, kind = pc.list_flatten(column), kind.value_type
        if values.null_count:
            raise Unfit(f"{name}: {values.null_count} nulls in its lists")
    if pa.types.is_string(kind):
        _check_text(name, values)
    elif pa.types.is_floating(kind):
        n_bad = len(values) - values.null_count - (pc.sum(pc.is_finite(values)).as_py() or 0)
        if n_bad:
            raise Unfit(f"{name}: {n_bad} of {len(values)} values are NaN or infinite")
    _check_range(name, values, field, run)
    if is_json(field):
        _check_json(name, values)


def _check_range(name: str, values: pa.ChunkedArray, field: pa.Field, run: Run) -> None:
    low, high = _bounds(name, field, run)
    if low is None:
        return
    found = pc.min_max(values).as_py()
    if found["min"] is not None and not (low <= found["min"] and found["max"] <= high):
        raise Unfit(f"{name} is from {found['min']} to {found['max']}, which is not in {low} … {high}")
    if field.name == "rank" and pc.any(pc.equal(values, one_number(0))).as_py():
        raise Unfit(f"{name} is 0, and ranks count from 1 and −1")


def _bounds(name: str, field: pa.Field, run: Run) -> tuple[Any, Any]:
    """The least and largest value of a column in a shard of `run`, both None where any will do."""
    if name in SHARES:
        return -_ROUNDING, 1 + _ROUNDING
    if pa.types.is_timestamp(field.type):
        return _TIMES
    whole = {
        "layer": (0, run.model.n_layers - 1),
        "unit": (0, run.model.d_mlp - 1),
        "rank": (-run.settings.bottom_k, run.settings.top_k),
    }
    is_list = pa.types.is_list(field.type)
    is_whole = pa.types.is_integer(field.type.value_type if is_list else field.type)
    return whole.get(field.name, (0, math.inf)) if is_whole else (None, None)


def _check_text(name: str, values: pa.ChunkedArray) -> None:
    """Raises `Unfit` for a text, or all texts together, beyond the limits; lengths are looked up by dictionary."""
    n_bytes = 0
    for chunk in values.chunks if isinstance(values, pa.ChunkedArray) else [values]:
        is_coded = pa.types.is_dictionary(chunk.type)
        texts = chunk.dictionary if is_coded else chunk
        if is_coded and texts.null_count:
            raise Unfit(f"{name}: a null among its words")
        lengths = as_numpy(pc.binary_length(texts))
        if lengths.max(initial=0) > MOST_TEXT_BYTES:
            raise Unfit(f"{name}: a text of {lengths.max():,} bytes, more than {MOST_TEXT_BYTES:,}")
        if is_coded:
            lengths = lengths[as_numpy(chunk.indices.drop_null())]
        n_bytes += int(lengths.sum(dtype=np.int64))
    if n_bytes > MOST_TEXTS_BYTES:
        raise Unfit(f"{name}: texts of {n_bytes:,} bytes, more than {MOST_TEXTS_BYTES:,}")


def _check_json(name: str, values: pa.ChunkedArray) -> None:
    for text in values.unique().drop_null().to_pylist():
        try:
            value = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise Unfit(f"{name}: {quoted(text)} is not JSON") from error
        if _is_deeper(value, MOST_DEPTH):
            raise Unfit(f"{name}: JSON of more than {MOST_DEPTH} levels")


def _refuse(constant: str) -> float:
    raise ValueError(constant)


def _is_deeper(value: Any, most: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most < 0 or any(_is_deeper(item, most - 1) for item in inner if isinstance(item, dict | list))


def _check_distinct(name: str, table: pa.Table) -> None:
    codes = _codes(table, list(KEYS[name]))
    if len(codes) > 1 and not (codes[1:] > codes[:-1]).all():
        n_distinct = len(np.unique(codes))
        if n_distinct != len(codes):
            raise Unfit(f"{len(codes)} {name} rows but {n_distinct} distinct ({', '.join(KEYS[name])})")


def _check_concepts(tables: Mapping[str, pa.Table]) -> None:
    """Raises `Unfit` for a score or budget row without its concept. What is added later has its own in other shards."""
    there = distinct(tables["concept"], list(_OF_CONCEPTS)) if "concept" in tables else set()
    for name in ("score", "budget"):
        if name in tables and (orphans := distinct(tables[name], list(_OF_CONCEPTS)) - there):
            raise Unfit(f"{name} rows without a concept: {quoted(min(orphans))}")


def _methods(run: Run) -> list[str]:
    """What scores of a run may be by: its methods, each by itself or over the grey picture."""
    return [name for method in run.settings.methods for name in (method, method + MINUS_BLANK)]


def _check_among(name: str, found: set[tuple[Any, ...]], wanted: Iterable[str], what: str) -> None:
    if others := {value for (value,) in found} - set(wanted):
        raise Unfit(f"{name} is {quoted(min(others))}, which is not among {what}")


def _is_like(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column's type is the schema's; text may be by dictionary, and the item of a list have any name."""
    if pa.types.is_dictionary(found):
        return found.value_type == wanted == pa.string()
    if pa.types.is_list(wanted):
        return pa.types.is_list(found) and found.value_type == wanted.value_type
    if pa.types.is_fixed_size_list(wanted):
        is_list = pa.types.is_fixed_size_list(found)
        return is_list and (found.value_type, found.list_size) == (wanted.value_type, wanted.list_size)
    return found == wanted


def _codes(table: pa.Table, names: list[str]) -> np.ndarray:
    """Returns a whole number for each row, equal where these columns are; empty cells are equal to each other."""
    codes, n_codes = np.zeros(len(table), np.int64), 1
    for name in names:
        column, n_values = _column_codes(table[name])
        if n_codes * n_values >= 2**63:
            codes = np.unique(codes, return_inverse=True)[1]
            n_codes = int(codes.max(initial=0)) + 1
        codes, n_codes = codes * n_values + column, n_codes * n_values
    return codes


def _column_codes(column: pa.ChunkedArray) -> tuple[np.ndarray, int]:
    """The codes of one column, from 0, and how many there may be."""
    array = column.combine_chunks()
    if pa.types.is_string(array.type):
        array = array.dictionary_encode()
    if pa.types.is_dictionary(array.type):
        words = array.dictionary.dictionary_encode()  # a stranger's dictionary may name a word twice
        known = as_numpy(words.indices)
        known = np.append(known, len(words.dictionary)).astype(np.int64)  # the last one is for nulls
        return known[as_numpy(array.indices, len(known) - 1)], len(words.dictionary) + 1
    if pa.types.is_integer(array.type):
        least = (pc.min(array).as_py() or 0) - 1
        values = as_numpy(array.cast(pa.int64()), least) - least
        return values, int(values.max(initial=0)) + 1
    values, codes = np.unique(array.to_numpy(zero_copy_only=False), return_inverse=True)
    return codes, len(values) + 1

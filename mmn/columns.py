"""Arrow arrays of what Python and NumPy hold, and back, without pandas.

`pyarrow.array`, `pyarrow.scalar`, `to_numpy` and every function that calls one of them import pandas first, be it for a
list of two numbers: 24 MB and half a second, of which scoring has no other use. Here the buffers are read and made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import TypeVar

import numpy as np
import pyarrow as pa

Item = TypeVar("Item")


def numbers(values: np.ndarray, is_missing: np.ndarray | None = None) -> pa.Array:
    """Numbers of NumPy's type, without a copy; empty where `is_missing`. NaN stays NaN."""
    values = np.ascontiguousarray(values)
    there = None if is_missing is None else _bits(~is_missing)
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [there, pa.py_buffer(values)])


def whole_numbers(values: Sequence[int]) -> pa.Array:
    """Numbers of 64 bits."""
    return numbers(np.array(values, np.int64))


def flags(values: Sequence[bool | None]) -> pa.Array:
    """True, False, and None where a cell is empty."""
    is_true = np.array([bool(value) for value in values], bool)
    return pa.Array.from_buffers(pa.bool_(), len(values), [_there(values), _bits(is_true)])


def mask(values: np.ndarray) -> pa.Array:
    """True and False of NumPy's."""
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, _bits(values)])


def texts(values: Sequence[str | None]) -> pa.Array:
    """Texts as UTF-8, and None where a cell is empty."""
    encoded = [(value or "").encode() for value in values]
    buffers = [_there(values), pa.py_buffer(_offsets(encoded)), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def lists(values: Sequence[Sequence[Item]], column: Callable[[list[Item]], pa.Array]) -> pa.Array:
    """Lists, whose items `column` makes an array of."""
    return pa.ListArray.from_arrays(numbers(_offsets(values)), column(list(chain.from_iterable(values))))


def one_number(value: int) -> pa.Scalar:
    """A number of 64 bits, as what a function of `pyarrow.compute` is given."""
    return whole_numbers([value])[0]


def as_numpy(column: pa.Array | pa.ChunkedArray, filler: float = 0) -> np.ndarray:
    """A column of numbers as NumPy's, with `filler` in empty cells; read-only where nothing had to be copied."""
    pieces = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = [_piece_as_numpy(piece, filler) for piece in pieces if len(piece)]
    return np.concatenate(parts) if len(parts) > 1 else parts[0] if parts else np.empty(0, _kind(column))


def _piece_as_numpy(piece: pa.Array, filler: float) -> np.ndarray:
    there, data = piece.buffers()
    span = slice(piece.offset, piece.offset + len(piece))
    values = np.frombuffer(data, _kind(piece))[span]
    if not piece.null_count:
        return values
    is_there = np.unpackbits(np.frombuffer(there, np.uint8), bitorder="little")[span].astype(bool)
    return np.where(is_there, values, values.dtype.type(filler))


def _kind(column: pa.Array | pa.ChunkedArray) -> np.dtype:
    return np.dtype(column.type.to_pandas_dtype())


def _offsets(values: Sequence[Sequence[object]]) -> np.ndarray:
    ends = np.cumsum([0, *map(len, values)])
    assert ends[-1] < 2**31, f"{ends[-1]:,} items, more than a column's offsets count"
    return ends.astype(np.int32)


def _there(values: Sequence[object]) -> pa.Buffer | None:
    is_there = np.array([value is not None for value in values], bool)
    return None if is_there.all() else _bits(is_there)


def _bits(values: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))

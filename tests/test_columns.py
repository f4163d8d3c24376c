"""Arrow arrays that are made without pandas are what `pyarrow.array` makes."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmn.columns import as_numpy, flags, lists, mask, numbers, one_number, texts, whole_numbers

TEXTS = st.lists(st.none() | st.text(max_size=5), max_size=20)


def same(found: pa.Array, wanted: pa.Array) -> bool:
    found.validate(full=True)
    return found.type == wanted.type and found.null_count == wanted.null_count and found.equals(wanted)


@settings(deadline=None)  # the first array that pyarrow makes loads pandas
@given(TEXTS)
def test_texts(values):
    assert same(texts(values), pa.array(values, pa.string()))


@settings(deadline=None)
@given(st.lists(st.none() | st.booleans(), max_size=20))
def test_flags(values):
    assert same(flags(values), pa.array(values, pa.bool_()))


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_whole_numbers(values):
    assert same(whole_numbers(values), pa.array(values, pa.int64()))


@settings(deadline=None)
@given(st.lists(TEXTS.filter(lambda values: None not in values), max_size=6))
def test_lists_of_texts(values):
    assert same(lists(values, texts), pa.array(values, pa.list_(pa.string())))


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.int64, np.float32, np.float64])
def test_numbers_with_and_without_missing_ones(kind):
    values, is_missing = np.arange(24, dtype=kind)[::2], np.arange(12) % 3 == 0
    assert same(numbers(values), pa.array(values))
    assert same(numbers(values, is_missing), pa.array(values, mask=is_missing))


def test_a_mask():
    values = np.arange(20) % 3 == 0
    assert same(mask(values), pa.array(values))


def test_a_number_that_is_none_stays_one():
    assert numbers(np.array([1.0, np.nan])).null_count == 0


@settings(deadline=None)
@given(st.lists(st.lists(st.none() | st.integers(-(2**31), 2**31 - 1), max_size=20), max_size=3), st.integers(0, 9))
def test_numpy_of_a_column_in_pieces_some_cut_from_longer_ones(pieces, start):
    column = pa.chunked_array([pa.array(piece, pa.int32())[start:] for piece in pieces], pa.int32())
    wanted = [-1 if value is None else value for value in column.to_pylist()]
    found = as_numpy(column, -1)
    assert found.dtype == np.dtype(np.int32)
    assert found.tolist() == wanted
    assert as_numpy(column.combine_chunks(), -1).tolist() == wanted


def test_one_number_is_a_scalar():
    assert one_number(-3) == pa.scalar(-3)

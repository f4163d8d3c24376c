"""The k best of each row, by both ways to them, against Python's own sort."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmn.units.top_tokens import CROWD, TopTokens, _by_topk, top_tokens

Way = Callable[[Tensor, int], TopTokens]
both_ways = pytest.mark.parametrize("way", [top_tokens, _by_topk])


def assert_best(top: TopTokens, values: Sequence[Sequence[float]], k: int) -> None:
    for row, ids, scores in zip(values, top.token_ids.tolist(), top.scores.tolist(), strict=True):
        assert ids == sorted(range(len(row)), key=lambda column: (-row[column], column))[:k]
        assert scores == [row[column] for column in ids]


@both_ways
@given(st.lists(st.lists(st.integers(-3, 3), min_size=12, max_size=12), min_size=1, max_size=4), st.integers(1, 11))
def test_equal_scores_come_by_rising_id(way: Way, values: list[list[int]], k: int) -> None:
    assert_best(way(torch.tensor(values, dtype=torch.float32), k), values, k)


@both_ways
@pytest.mark.parametrize("width", [63, 64, 65, 499, 1000])
@pytest.mark.parametrize("k", [1, 10, 40])
def test_best_of_many(way: Way, width: int, k: int) -> None:
    """Groups that divide the columns and groups that leave some over, which may hold the best."""
    values = torch.randn(50, width, generator=torch.Generator().manual_seed(width))
    values[:, -1] += 2
    assert_best(way(values, k), values.tolist(), k)


@both_ways
def test_a_row_of_equals_among_others(way: Way) -> None:
    values = torch.randn(3, 64 * CROWD, generator=torch.Generator().manual_seed(0))
    values[1] = 0
    values[2] = -torch.inf
    assert_best(way(values, 3), values.tolist(), 3)


@both_ways
def test_not_a_number_comes_first(way: Way) -> None:
    """Or weights that are not finite would decode to words."""
    values = torch.arange(400.0).reshape(2, 200)
    values[0, 199] = values[1, 7] = torch.nan
    assert way(values, 2).token_ids[:, 0].tolist() == [199, 7]


def test_no_rows() -> None:
    assert top_tokens(torch.empty(0, 30), 10).token_ids.shape == (0, 10)

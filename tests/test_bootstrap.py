"""Intervals by picture: hand-checked means, coverage, and concepts that do not count as pictures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mmn.bootstrap import interval_table, mean_intervals


def test_a_pictures_concepts_are_averaged_first_and_count_once() -> None:
    rows = pd.DataFrame({"image_id": ["a", "a", "a", "b"], "k": [1] * 4, "value": [0.0, 0.0, 0.0, 1.0]})
    found = interval_table(rows, ["k"], "value")
    assert found[["k", "mean", "n"]].to_dict("records") == [{"k": 1, "mean": 0.5, "n": 2}]
    assert (found["low"].item(), found["high"].item()) == (0.0, 1.0)


def test_groups_keep_their_names_and_missing_values_do_not_count() -> None:
    rows = pd.DataFrame(
        {"image_id": list("abab"), "method": list("xxyy"), "k": [1, 1, 2, 2], "value": [1.0, 3.0, 5.0, np.nan]}
    )
    found = interval_table(rows, ["method", "k"], "value").set_index(["method", "k"])
    assert found.loc[("x", 1), ["mean", "n"]].tolist() == [2.0, 2]
    assert found.loc[("y", 2), ["mean", "low", "high", "n"]].tolist() == [5.0, 5.0, 5.0, 1]
    assert len(found) == 2


def test_intervals_cover_the_mean_as_often_as_they_say() -> None:
    samples = np.random.default_rng(1).normal(size=(100, 400))  # 400 experiments of 100 pictures
    _, low, high = mean_intervals(samples)
    assert 0.90 < np.mean((low < 0) & (high > 0)) < 0.98


def test_columns_of_one_or_no_picture() -> None:
    mean, low, high = mean_intervals(np.array([[2.0, np.nan], [np.nan, np.nan]]))
    assert (mean[0], low[0], high[0]) == (2.0, 2.0, 2.0)
    assert np.isnan([mean[1], low[1], high[1]]).all()


@pytest.mark.filterwarnings("error")
def test_the_same_rows_give_the_same_interval() -> None:
    rows = pd.DataFrame({"image_id": [str(i) for i in range(50)], "k": 1, "value": np.arange(50.0)})
    pd.testing.assert_frame_equal(interval_table(rows, ["k"], "value"), interval_table(rows, ["k"], "value"))

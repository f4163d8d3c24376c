"""Intervals by picture: they cover what they say, shares are never certain, and too few pictures have none."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from mmn.statistics.beta_distribution import beta_quantile, t_quantile
from mmn.statistics.interval_words import bracket, few_note, interval_note, interval_words, percent
from mmn.statistics.intervals import (
    ANYWHERE,
    N_LEAST,
    draw_intervals,
    interval_table,
    mean_intervals,
    ratio_intervals,
)

REPEATS = 4000  # of .95: a deviation of .0034
WORLDS: dict[str, tuple[float, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]]] = {
    "normal": (0.0, lambda draw, shape: draw.normal(size=shape)),
    "exponential": (1.0, lambda draw, shape: draw.exponential(size=shape)),
    "lognormal .5": (np.exp(0.125), lambda draw, shape: draw.lognormal(0, 0.5, shape)),
    "lognormal 1": (np.exp(0.5), lambda draw, shape: draw.lognormal(0, 1, shape)),
    "beta": (0.2, lambda draw, shape: draw.beta(0.2, 0.8, shape)),
    "nouns of .98": (0.98, lambda draw, shape: draw.binomial(3, 0.98, shape) / 3),
} | {
    f"Bernoulli {p}": (p, lambda draw, shape, p=p: (draw.random(shape) < p).astype(float))
    for p in (0.02, 0.1, 0.5, 0.9, 0.98)
}


def coverage(true: float, low: np.ndarray, high: np.ndarray) -> float:
    return float(np.mean((low <= true) & (true <= high)))


@pytest.mark.parametrize("n", [N_LEAST, 10, 20, 100])
@pytest.mark.parametrize("world", WORLDS)
def test_intervals_cover_the_mean_as_often_as_they_say(world: str, n: int) -> None:
    true, sample = WORLDS[world]
    _, low, high = mean_intervals(sample(np.random.default_rng(7), (n, REPEATS)))
    assert coverage(true, low, high) >= 0.93


def test_intervals_are_hardly_wider_than_student_s_where_nothing_is_skewed() -> None:
    samples = np.random.default_rng(3).normal(size=(100, REPEATS))
    _, low, high = mean_intervals(samples)
    student = 2 * 1.984 * samples.std(0, ddof=1) / 10
    assert (high - low >= student - 1e-3).all()
    assert np.median((high - low) / student) < 1.02


@pytest.mark.parametrize("n", [10, 20, 100])
def test_ratios_cover_with_pictures_as_what_varies(n: int) -> None:
    """Pictures of one to five units, of which a share of their own is kept: .8 on average, large pictures alike."""
    draw = np.random.default_rng(1)
    counts = draw.integers(1, 6, (n, REPEATS))
    kept = draw.binomial(counts, draw.beta(4, 1, counts.shape))
    ratio, low, high = ratio_intervals(kept.astype(float), counts.astype(float))
    assert coverage(0.8, low, high) >= 0.93
    np.testing.assert_allclose(ratio, kept.sum(0) / counts.sum(0))
    assert (low.min(), high.max()) == (pytest.approx(max(low.min(), 0)), pytest.approx(min(high.max(), 1))), "shares"


@pytest.mark.parametrize("n", [10, 20, 100])
def test_draws_of_a_picture_are_no_further_pictures(n: int) -> None:
    """Four draws of each picture that differ little: taken as 4 n pictures, an interval would be half as wide."""
    draw = np.random.default_rng(2)
    values = draw.normal(size=(n, REPEATS, 1)) + draw.normal(0, 0.1, (n, REPEATS, 4))
    values[draw.random(values.shape) < 0.2] = np.nan
    _, low, high = draw_intervals(values, ANYWHERE)
    assert coverage(0.0, low, high) >= 0.93


def test_paired_differences_have_the_interval_of_the_difference() -> None:
    """Before and after hang together: the ratio's interval is far narrower than either mean's."""
    draw = np.random.default_rng(4)
    before = draw.uniform(0.2, 1, (50, 1))
    after = before * draw.uniform(0.45, 0.55, (50, 1))
    _, low, high = ratio_intervals(after, before, ANYWHERE)
    _, after_low, after_high = mean_intervals(after)
    assert (high - low) * before.mean() < (after_high - after_low) / 4


@pytest.mark.parametrize("n", [N_LEAST, 20])
def test_a_share_of_all_pictures_is_not_certain(n: int) -> None:
    values = np.stack([np.ones(n), np.zeros(n)], axis=1)
    mean, low, high = mean_intervals(values)
    assert mean.tolist() == [1, 0]
    assert [low[0], high[0]] == pytest.approx([0.025 ** (1 / n), 1])
    assert [low[1], high[1]] == pytest.approx([0, 1 - 0.025 ** (1 / n)])
    kept = ratio_intervals(np.full((n, 1), 4.0), np.full((n, 1), 4.0))
    drawn = draw_intervals(np.ones((n, 1, 3)))
    assert kept[1] == pytest.approx(low[0])
    assert drawn[1] == pytest.approx(low[0])


def test_shares_have_the_exact_interval() -> None:
    """Clopper and Pearson 1934: 9 of 10."""
    _, low, high = mean_intervals(np.array([[1.0]] * 9 + [[0.0]]))
    assert (low[0], high[0]) == (pytest.approx(0.554984, abs=1e-6), pytest.approx(0.997471, abs=1e-6))


def test_a_difference_of_shares_may_lie_below_zero() -> None:
    values = np.array([[1.0]] + [[0.0]] * 19)
    _, low, high = mean_intervals(values, ANYWHERE)
    assert low[0] < 0 < high[0]


def test_three_of_three_have_no_interval() -> None:
    for found in (
        mean_intervals(np.ones((3, 1))),
        ratio_intervals(np.ones((3, 1)), np.ones((3, 1))),
        draw_intervals(np.ones((3, 1, 5))),
    ):
        assert found[0].tolist() == [1.0]
        assert np.isnan(found[1:]).all()


def test_pictures_that_are_all_alike_tell_no_interval() -> None:
    mean, low, high = mean_intervals(np.full((20, 1), 0.3))
    assert mean == pytest.approx(0.3)
    assert np.isnan([low, high]).all()


def test_intervals_of_shares_stay_among_shares() -> None:
    values = np.array([[0.99, 2.0]] * 9 + [[0.2, -1.0]])
    _, low, high = mean_intervals(values)
    assert (low[0] >= 0, high[0] <= 1, high[1] > 2) == (True, True, True)


def test_columns_of_few_or_no_pictures_beside_others() -> None:
    values = np.random.default_rng(0).normal(size=(30, 3))
    values[5:, 1] = np.nan
    values[:, 2] = np.nan
    mean, low, high = mean_intervals(values)
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [False, True, True]
    assert np.isnan(mean).tolist() == [False, False, True]
    alone = mean_intervals(values[:, :1])
    assert (low[0], high[0]) == (alone[1][0], alone[2][0]), "neighbours change nothing"


def test_a_pictures_concepts_are_averaged_first_and_count_once() -> None:
    rows = pd.DataFrame({"image_id": ["a", "a", "a", "b"], "k": [1] * 4, "value": [0.0, 0.0, 0.0, 1.0]})
    found = interval_table(rows, ["k"], "value")
    assert found[["k", "mean", "n"]].to_dict("records") == [{"k": 1, "mean": 0.5, "n": 2}]
    many = pd.concat([rows.assign(image_id=rows["image_id"] + str(number)) for number in range(10)])
    [wide] = interval_table(many, ["k"], "value").to_dict("records")
    _, low, high = mean_intervals(np.array([[0.0], [1.0]] * 10))
    assert (wide["low"], wide["high"], wide["n"]) == (low[0], high[0], 20)


def test_groups_keep_their_names_and_missing_values_do_not_count() -> None:
    rows = pd.DataFrame(
        {"image_id": list("abab"), "method": list("xxyy"), "k": [1, 1, 2, 2], "value": [1.0, 3.0, 5.0, np.nan]}
    )
    found = interval_table(rows, ["method", "k"], "value").set_index(["method", "k"])
    assert found.loc[("x", 1), ["mean", "n"]].tolist() == [2.0, 2]
    assert found.loc[("y", 2), ["mean", "n"]].tolist() == [5.0, 1]
    assert len(found) == 2


@pytest.mark.filterwarnings("error")
def test_no_warning_for_columns_of_nothing() -> None:
    assert np.isnan(mean_intervals(np.full((9, 2), np.nan))).all()
    assert np.isnan(ratio_intervals(np.zeros((9, 1)), np.zeros((9, 1)))).all()
    assert np.isnan(draw_intervals(np.full((9, 1, 2), np.nan))).all()


def test_hundreds_of_columns_are_fast() -> None:
    draw = np.random.default_rng(0)
    values = np.hstack([draw.random((512, 200)), (draw.random((512, 200)) < draw.random(200)).astype(float)])
    started = time.process_time()
    mean_intervals(values)
    assert time.process_time() - started < 1.0  # .07 s alone; a busy machine takes longer


def test_quantiles_are_those_of_the_tables() -> None:
    freedom = np.array([1.0, 4, 9, 19, 99])
    assert t_quantile(0.05, freedom) == pytest.approx([12.7062, 2.77645, 2.26216, 2.09302, 1.98422], abs=1e-4)
    a, b = np.array([1.0, 2.0, 300.0]), np.array([1.0, 1.0, 213.0])
    assert beta_quantile(0.025, a, b)[:2] == pytest.approx([0.025, 0.025**0.5])
    assert beta_quantile(0.025, a, b)[2] == pytest.approx(1 - beta_quantile(0.975, b, a)[2])


def test_intervals_in_words() -> None:
    assert interval_words(0.4929, 0.605, 20, ".1%") == "49.3 % to 60.5 %"
    assert interval_words(-0.5, 1.25, 20, ".2f") == "-0.50 to 1.25"
    assert interval_words(np.nan, np.nan, 3, ".1%") == "3 pictures are too few for an interval"
    assert interval_words(np.nan, np.nan, 1, ".1%") == "1 picture is too few for an interval"
    assert interval_words(np.nan, np.nan, 20, ".1%") == "no interval: all 20 pictures have the same value"
    assert (bracket(0.1, 0.2, ".0%"), bracket(np.nan, np.nan, ".0%")) == (" [10 %, 20 %]", "")
    assert [percent(share) for share in (0.95, -0.04, -0.001)] == ["95 %", "−4 %", "0 %"]


def test_charts_and_tables_say_which_of_their_points_have_no_interval() -> None:
    assert interval_note("band", [20, 30]) == "band: 95 % interval by picture"
    assert interval_note("line", [3, 30], "hollow") == (
        "line: 95 % interval by picture; none for fewer than 8 pictures (hollow)"
    )
    assert interval_note("line", [2, 3]) == "no intervals: 3 pictures are too few for an interval, which needs 8"
    assert few_note([20, 30]) == ""
    assert few_note([3, 30]) == "3 pictures are too few for a 95 % interval, which needs 8"
    assert few_note([1, 5, 30]) == "1 to 5 pictures are too few for a 95 % interval, which needs 8"

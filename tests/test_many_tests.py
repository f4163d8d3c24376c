"""Tests of many rows: the correction and the paired test against numbers by hand, and how often both are wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mmn.statistics.many_tests import (
    LEAST_FLIPPED,
    N_FLIPS,
    Q,
    at_least_by_chance,
    benjamini_hochberg,
    marked,
    sign_flip,
    survivors,
    survivors_line,
    swapped_labels,
)


def test_the_example_of_benjamini_and_hochberg() -> None:
    """Their section 4: fifteen tests, of which the four smallest survive at q = .05 (Bonferroni keeps three)."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344]
    p += [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    order = np.random.default_rng(0).permutation(15)
    assert benjamini_hochberg(np.array(p)[order]).tolist() == (order < 4).tolist()


def test_a_small_p_saves_those_below_the_line_that_exceed_their_own_bound() -> None:
    assert benjamini_hochberg(np.array([0.03, 0.035, 0.036])).all()  # 3 · .05 / 3; .03 alone exceeds .05 / 3
    assert not benjamini_hochberg(np.array([0.03, 0.035, 0.06])).any()


def test_what_was_not_tested_neither_counts_nor_survives() -> None:
    assert benjamini_hochberg(np.array([0.04, np.nan, np.nan])).tolist() == [True, False, False]
    assert benjamini_hochberg(np.array([np.nan])).tolist() == [False]
    assert benjamini_hochberg(np.array([])).tolist() == []


def test_a_paired_difference_by_hand() -> None:
    # of the 8 sign patterns of 1, 2, 3 the sums 6 and -6 are as extreme; of 3, -1, 2 (sum 4) also 6 and -6
    assert sign_flip(np.array([1.0, 2.0, 3.0])) == 2 / 8
    assert sign_flip(np.array([3.0, -1.0, np.nan, 2.0])) == 4 / 8
    assert sign_flip(np.zeros(4)) == 1
    assert sign_flip(np.ones(5)) == 2 / 32  # five pictures cannot reach .05
    assert np.isnan(sign_flip(np.array([np.nan])))


def test_many_pictures_are_drawn_from_and_p_is_never_zero() -> None:
    rng = np.random.default_rng(1)
    assert sign_flip(rng.normal(1, 1, 60)) == 1 / (N_FLIPS + 1)
    # 14 pictures: all 16,384 patterns of ±1 with |sum| ≥ 6, by the binomial: 2 · P(X ≥ 10) = .1796
    values = np.array([1.0] * 10 + [-1.0] * 4)
    assert sign_flip(values) == pytest.approx(0.1796, abs=0.012)  # three deviations of 9,999 draws


def test_without_a_difference_one_in_twenty_is_below_a_twentieth() -> None:
    rng = np.random.default_rng(2)
    for n in (8, 30):
        p = np.array([sign_flip(rng.exponential(1, n) - rng.exponential(1, n)) for _ in range(600)])
        assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.027)  # three deviations of 600


def test_own_pictures_against_others_by_hand() -> None:
    is_own = np.array([True, True, False, False, False])
    # of the ten pairs of 9, 8, 1, 2, 3 (mean 4.6) only 9 and 8 are as far from it as 8.5: 1 in 10
    assert swapped_labels(np.array([9.0, 8.0, 1.0, 2.0, 3.0]), is_own) == pytest.approx(0.1, abs=0.01)
    assert swapped_labels(np.ones(5), is_own) == 1
    assert np.isnan(swapped_labels(np.ones(5), np.zeros(5, dtype=bool)))
    values = np.arange(300.0)
    assert swapped_labels(values, values >= 295) == 1 / (N_FLIPS + 1)  # five held-out pictures are enough here
    rng = np.random.default_rng(3)
    p = np.array([swapped_labels(rng.exponential(1, 60), np.arange(60) < 5) for _ in range(600)])
    assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.027)


def test_a_share_far_above_what_chance_expects_is_unlikely() -> None:
    p = at_least_by_chance(np.array([0.3, 0.0, 0.001, 0.2]), np.array([0.00001, 0.01, 0.01, 0.0]))
    assert p.tolist() == pytest.approx([0.00001 / 0.3, 1, 1, 0])
    rng = np.random.default_rng(4)  # units common to two draws of 5 of 50: .5 on average
    common = np.array([len({*rng.choice(50, 5, False)} & {*rng.choice(50, 5, False)}) for _ in range(2000)])
    p = at_least_by_chance(common.astype(float), np.full(2000, 0.5))
    assert all((p <= level).mean() <= level for level in (0.05, 0.2, 0.5))


def test_a_table_says_how_many_comparisons_it_makes() -> None:
    rows = marked(pd.DataFrame({"lemma": ["dog", "cat", "sea"]}), np.array([0.001, 0.9, np.nan]))
    assert rows["is_discovery"].tolist() == [True, False, False]
    assert survivors(rows) == "1 of 2 comparisons with the control survive Benjamini–Hochberg at q = .05"
    assert survivors_line(rows) == [survivors(rows)]
    least = [sign_flip(np.ones(n)) for n in (LEAST_FLIPPED - 1, LEAST_FLIPPED)]
    assert least[0] > Q >= least[1], "the fewest pictures that can tell anything"
    (told,) = survivors_line(rows.assign(n_images=LEAST_FLIPPED - 1), "n_images")
    assert told == f"{survivors(rows)}, and 2 cannot, of fewer than 6 pictures"

"""The colours of scores are told apart by every kind of colour vision, and seen on white and in the dark."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mmn.names import CONTRIBUTION_CENTRED, METHODS, RANDOM

# Machado, Oliveira and Fernandes 2009, severity 1: linear sRGB as it is seen without one kind of cones.
SEEN = {
    "all": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
BACKGROUNDS = ("#ffffff", "#0e1117")  # of paper, and of the app in the dark
SCORES = [name for name in METHODS if not name.startswith(RANDOM)]


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    x, y, z = TO_XYZ @ np.clip(rgb, 0, 1) / TO_XYZ.sum(axis=1)
    x, y, z = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def difference(one: str, other: str) -> float:
    """CIE 1976, the least of all kinds of vision: 2.3 is just seen."""
    seen = [(lab(np.array(matrix) @ linear(one)), lab(np.array(matrix) @ linear(other))) for matrix in SEEN.values()]
    return min(float(np.linalg.norm(first - second)) for first, second in seen)


def contrast(one: str, other: str) -> float:
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("pair", list(itertools.combinations(SCORES, 2)), ids=" and ".join)
def test_two_scores_are_told_apart_by_every_kind_of_colour_vision(pair: tuple[str, str]) -> None:
    one, other = (METHODS[name].colour for name in pair)
    assert difference(one, other) > 10


@pytest.mark.parametrize("score", SCORES)
def test_a_score_is_seen_on_white_and_in_the_dark(score: str) -> None:
    assert min(contrast(METHODS[score].colour, background) for background in BACKGROUNDS) > 2


def test_a_score_that_okabe_and_ito_have_no_colour_for_differs_in_grey_from_every_other() -> None:
    lightness = {name: lab(linear(METHODS[name].colour))[0] for name in SCORES}
    own = lightness.pop(CONTRIBUTION_CENTRED)
    assert min(abs(own - other) for other in lightness.values()) > 8

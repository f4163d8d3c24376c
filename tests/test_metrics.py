"""Caption metrics: hand-checked values."""

from __future__ import annotations

import pytest

from mmn.metrics import WordF1


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("A dog.", "a dog", 1.0),
        ("a dog and a cat", "a dog", 4 / 7),
        ("a a", "a", 2 / 3),
        ("dog", "cat", 0.0),
        ("", "", 1.0),
        ("", "cat", 0.0),
        ("Ein Bär", "ein bär", 1.0),
    ],
)
def test_word_f1(one: str, other: str, expected: float) -> None:
    assert WordF1().compare([one], [other]) == pytest.approx([expected])
    assert WordF1().compare([other], [one]) == pytest.approx([expected])

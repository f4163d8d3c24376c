"""Is it a word, and is a unit interpretable? P1's thresholds at their edges, and the list that is shipped."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from mmn.reading.words import WORDS_PATH, is_interpretable, is_word, load_words, merge_word_lists, write_words

WORDS = ["dog", "tree", "house", "colour", "color", "running", "giraffes", "the"]
NO_WORDS = ["xqz", "."]


@pytest.mark.parametrize("text", [*WORDS, " dog", "dog\n", "Dog", "DOG", "may", "don"])
def test_dictionary_words_in_any_case_and_either_spelling(text: str) -> None:
    assert is_word(text)


@pytest.mark.parametrize("text", ["a", "of", "ox"])
def test_a_word_of_fewer_than_three_letters_does_not_count(text: str) -> None:
    assert not is_word(text)


@pytest.mark.parametrize(
    "text", ["", " ", "dogg", "tion", "dog.", "dog's", "two dogs", "dog1", "123", "▁dog", "Ġdog", "Paris", "hund", "犬"]
)
def test_pieces_punctuation_digits_names_and_other_languages_are_no_words(text: str) -> None:
    assert not is_word(text)


@pytest.mark.parametrize(("n_words", "expected"), [(0, False), (6, False), (7, True), (8, True)])
def test_seven_of_ten_tokens_must_be_words(n_words: int, expected: bool) -> None:
    tokens = WORDS[:n_words] + [NO_WORDS[i % 2] for i in range(10 - n_words)]
    assert is_interpretable(tokens) is expected
    assert is_interpretable(tokens[::-1]) is expected


def test_a_word_that_occurs_twice_counts_twice() -> None:
    assert is_interpretable(["dog"] * 7 + ["."] * 3)


def test_other_than_ten_tokens_are_our_mistake() -> None:
    with pytest.raises(AssertionError, match="3 tokens"):
        is_interpretable(["dog"] * 3)


def test_the_list_is_lower_case_a_to_z_sorted_and_distinct() -> None:
    words = gzip.decompress(WORDS_PATH.read_bytes()).decode().split()
    assert words == sorted(set(words))
    assert all(re.fullmatch("[a-z]{3,}", word) for word in words)
    assert 60_000 < len(words) < 70_000
    assert load_words() == set(words)


def test_the_shipped_file_is_what_writing_its_words_gives(tmp_path: Path) -> None:
    write_words(sorted(load_words()), tmp_path / "words.gz")
    assert gzip.decompress((tmp_path / "words.gz").read_bytes()) == gzip.decompress(WORDS_PATH.read_bytes())
    again = tmp_path / "again.gz"
    write_words(sorted(load_words()), again)
    assert again.read_bytes() == (tmp_path / "words.gz").read_bytes()


def test_merging_drops_names_possessives_accents_and_short_entries(tmp_path: Path) -> None:
    (tmp_path / "us").write_text("Paris\ncolor\ndog\ndog's\nox\nAAA\nMay\nmay\n", encoding="utf-8")
    (tmp_path / "gb").write_text("colour\ndog\ncafé\n", encoding="utf-8")
    assert merge_word_lists([tmp_path / "us", tmp_path / "gb"]) == ["color", "colour", "dog", "may"]


def test_the_licence_is_shipped_with_the_words() -> None:
    notice = (WORDS_PATH.parent / "README.md").read_text(encoding="utf-8")
    assert "Copyright 2000-2011 by Kevin Atkinson" in notice
    assert "Permission to use, copy, modify, distribute and sell these word" in notice

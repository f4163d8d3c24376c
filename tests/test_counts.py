"""One picture is no pictures: counts in words agree, and come from one function in every sentence of ours."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmn.counts import counted, counted_are
from mmn.errors import were_set_aside

ROOT = Path(__file__).parents[1]
THINGS = (
    "picture|unit|noun|concept|caption|draw|row|run|shard|figure|failure|layer|token|image|measurement|circuit|look"
)
AFTER = re.compile(rf" (?:image |new |small |random |held-out |sampled |other )?(?:(?:{THINGS})s|classes)\b")
COUNT = re.compile(r"\blen\(|\bn_\w+$|\['(?:n|k|n_\w+)'\]$|\['n_\w+'\]|^n$|\.n_\w+$")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (counted(0, "picture"), "0 pictures"),
        (counted(1, "picture"), "1 picture"),
        (counted(1024.0, "image token"), "1,024 image tokens"),
        (counted(15.7, "unit"), "16 units"),
        (counted(0.9, "unit"), "1 unit"),
        (counted(1, "class"), "1 class"),
        (counted(2, "class"), "2 classes"),
        (counted_are(1, "noun"), "1 noun is"),
        (counted_are(3, "noun"), "3 nouns are"),
        (were_set_aside(1), "1 broken file or folder was set aside"),
        (were_set_aside(2), "2 broken files or folders were set aside"),
    ],
)
def test_one_is_counted_as_one(said: str, words: str) -> None:
    assert said == words


def uncounted(source: str) -> Iterator[str]:
    """The f-strings in which a number stands before a plural that would be wrong of one; what we assert is not read."""
    tree = ast.parse(source)
    asserted = {id(part) for one in ast.walk(tree) if isinstance(one, ast.Assert) for part in ast.walk(one)}
    for text in ast.walk(tree):
        if isinstance(text, ast.JoinedStr) and id(text) not in asserted:
            for value, after in zip(text.values, text.values[1:], strict=False):
                if isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant):
                    name = ast.unparse(value.value)
                    is_count = COUNT.search(name) and not name.endswith(" or 'no'")  # which is never of one
                    if is_count and AFTER.match(str(after.value)):
                        yield f"line {text.lineno}: {{{name}}}{after.value!r}"


def test_every_sentence_counts_by_one_function() -> None:
    files = [file for room in ("mmn", "app", "pages") for file in sorted((ROOT / room).rglob("*.py"))]
    found = [f"{file.relative_to(ROOT)}, {one}" for file in files for one in uncounted(file.read_text())]
    assert found == [], "write counted(n, 'picture'), of mmn.counts"


@pytest.mark.parametrize("source", ['f"{len(rows)} rows"', "f\"{one['n_images']:,} pictures\"", 'f"{n} random units"'])
def test_a_sentence_that_counts_by_itself_would_be_noticed(source: str) -> None:
    assert list(uncounted(source))
    assert not list(uncounted(f"assert n == 2, {source}"))

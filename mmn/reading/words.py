"""Is a decoded token an English word, and is a unit interpretable? P1's filter (arXiv 2308.01544; METHODS: Decoding).

P1 keeps a unit when at least 7 of its 10 most probable tokens are English dictionary words of three letters or more;
the dictionary is SCOWL, American and British. The list lies in `data/words.txt.gz`, with its licence and how it was
made in `data/README.md`. P1 does not say what it does with names; ours is: an entry counts when SCOWL has it in lower
case, so "rose" and "may" are words, and "Paris", "IBM" and possessives are not. Tokens are compared without regard to
case, since "Dog" begins a sentence.

The file is rebuilt by `python -m mmn.reading.words AMERICAN-ENGLISH BRITISH-ENGLISH` (paths of two Debian word lists).
Left out: words with accents (SCOWL spells the common ones without, too) and other languages.
"""

from __future__ import annotations

import gzip
import re
import sys
from collections.abc import Iterable, Sequence, Set
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

from mmn.reading.sorted_lines import SortedWords

N_TOKENS: Final = 10  # that a unit is decoded to
MIN_WORDS: Final = 7  # of them, for the unit to be interpretable
MIN_LETTERS: Final = 3  # of a token, to be a word
WORDS_PATH: Final = Path(__file__).parent / "data" / "words.txt.gz"
_ENTRY: Final = re.compile(rf"[a-z]{{{MIN_LETTERS},}}")


def is_interpretable(tokens: Sequence[str]) -> bool:
    """Whether at least 7 of a unit's 10 most probable tokens are words (P1); `tokens` are decoded texts.

    A word that occurs in two tokens (" dog", "Dog") counts twice: P1 counts tokens.
    """
    assert len(tokens) == N_TOKENS, f"{len(tokens)} tokens, expected {N_TOKENS}: {tokens}"
    return sum(map(is_word, tokens)) >= MIN_WORDS


@lru_cache(maxsize=8192)
def is_word(text: str) -> bool:
    """Whether `text`, less the space around it and its case, is a dictionary word of at least three letters.

    `text` is what the tokenizer decodes a single token to. A token with a digit, a punctuation mark or a vocabulary's
    own sign for a space ("▁dog", "Ġdog") is no word.
    """
    return text.strip().lower() in load_words()


@cache
def load_words() -> Set[str]:
    """The dictionary: lower-case words of a–z, at least three letters each. Read once."""
    return SortedWords(gzip.decompress(WORDS_PATH.read_bytes()).decode("ascii").split())


def merge_word_lists(paths: Iterable[Path]) -> list[str]:
    """The entries of all lists that can be words here: lower case in the list, only a–z, long enough; sorted."""
    entries = {line.strip() for path in paths for line in path.read_text(encoding="utf-8").splitlines()}
    return sorted(entry for entry in entries if _ENTRY.fullmatch(entry))


def write_words(words: Sequence[str], path: Path) -> None:
    """Writes the list so that the same words give the same bytes: no time and no name in the gzip header."""
    path.write_bytes(gzip.compress(("\n".join(words) + "\n").encode("ascii"), compresslevel=9, mtime=0))


if __name__ == "__main__":
    write_words(merge_word_lists(map(Path, sys.argv[1:])), WORDS_PATH)

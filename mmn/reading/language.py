"""Tells whether a text is English: the noun tagger is, and would find nouns in any other language, too.

Three signs of another language, all OURS, none of which needs a model:

    most letters are of another script
    more little words of other languages (und, une, och) than of English, and less than half of all words known
    hardly a word known, and not one little word of English

Known is what the dictionary of `units.words` has. Capitalised words after the first are left out: they may be names.
Without a sign a text is taken for English: what cannot be told is not called foreign. `docs/methods.md` gives the error
rates, and `tests/test_language.py` holds them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from mmn.reading.words import load_words

MOST_KNOWN: Final = 0.5  # share of known words beside which little words of other languages are believed
FEW_KNOWN: Final = 0.3  # share of known words that is a sign by itself
MIN_WORDS: Final = 3  # for that sign
_WORD: Final = re.compile(r"[^\W\d_]{2,}")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEUTRAL: Final = _words("all am an as at be by do en go he in is it me no on or so to up us we")
_ENGLISH: Final = _words(
    "the of and with is are to at by from next near it its this there that two three his her or some"
)
_FOREIGN: Final = _words(
    "ein eine einen einem einer eines der das dem den des und mit auf im ist sind neben zwei drei von vom zum bei für "
    "über sich een het van op met naast zijn twee drie voor "
    "un une le la les des du de et dans sur avec au aux deux trois est sont près qui "
    "una unos unas el los las con por dos tres del sobre junto "
    "il lo gli di su della nel nella sulla sono due tre accanto "
    "um uma os na da dos das em com ao pela dois duas "
    "och på ett med av två som og til ved hos "
    "ze oraz jest dwa dwie ve "
    "bir iki yanında "
    "dan di seekor seorang sebuah yang dua pada "
    "một và trên trong con "
    "ja egy és az cu și pe lângă isang ang sa mga kwenye"
)  # Germanic, Romance, Slavic and other languages with Latin letters; what English has, too, does not count


def is_english(text: str) -> bool:
    """Whether nothing says that `text` is in another language."""
    return not (_is_of_another_script(text) or _has_foreign_words(text))


def _is_of_another_script(text: str) -> bool:
    letters = [char for char in text if char.isalpha()]
    n_latin = sum(unicodedata.name(char, "").startswith("LATIN") for char in letters)
    return len(letters) > 1 and n_latin < len(letters) / 2


def _has_foreign_words(text: str) -> bool:
    found = _WORD.findall(unicodedata.normalize("NFC", text))
    words = [word.lower() for index, word in enumerate(found) if not index or word.islower() or text.isupper()]
    telling = [word for word in words if word not in _NEUTRAL]
    known = sum(word in load_words() or word in _ENGLISH for word in telling)
    n_foreign = sum(word in _FOREIGN and word not in load_words() for word in telling)
    n_english = sum(word in _ENGLISH for word in words)
    if n_foreign > n_english and known < MOST_KNOWN * len(telling):
        return True
    return len(telling) >= MIN_WORDS and known < FEW_KNOWN * len(telling) and not n_english

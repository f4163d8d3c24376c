"""The nouns of an English text, and the lemma of each.

The default tagger is HanTa with lemminflect's lemmas: HanTa's own are bad (skis -> sky), and words that it leaves
unclassified or takes for another open class (giraffe) are nouns when the lexicon knows them as nothing else.

Nouns with nothing but spaces between them are a compound ("stop sign"): each is a noun of its own (P2: every noun), and
flags say so; all but the last stand before the head. Some compounds begin with no noun ("hot dog"): the usual ones of
pictures are listed, and their head is flagged. Words that name one thing by their plural ("glasses", "pants") keep it.

Left out: any language but English (`mmn.reading.language`), other compounds that begin with no noun.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from mmn.reading.tagger_tables import shrink_hanta, shrink_lemminflect

TAGGER_VERSION: Final = " + ".join(f"{name} {importlib.metadata.version(name)}" for name in ("HanTa", "lemminflect"))

_APOSTROPHES: Final = "'’"
_LETTER: Final = r"[^\W_][\u0300-\u036f]*"  # or digit, with the accents that follow it when they are separate
WORDS: Final = re.compile(
    rf"n[{_APOSTROPHES}]t\b"  # the rest of "isn't", after "is"
    rf"|[{_APOSTROPHES}](?:s|re|ll|ve|d|m)\b"  # the dog's -> dog, 's
    rf"|(?:{_LETTER})+?(?=n[{_APOSTROPHES}]t\b)"
    rf"|(?:{_LETTER})+(?:-(?:{_LETTER})+)*"  # fire-engine
    r"|[^\w\s]",
    re.IGNORECASE,
)
_NOUN_TAGS: Final = ("NN", "NP")
_OPEN_TAGS: Final = ("UNC", "AJ", "AV0", "VV", "ITJ")  # where a word known only as a noun is put by mistake
_DETERMINER_TAGS: Final = ("AT0", "CRD", "DPS", "DT0")
_PLURALS: Final = frozenset(
    re.findall(
        r"\S+",
        "binoculars bleachers breeches capris chinos clippers clothes corduroys dungarees earbuds earphones eyeglasses "
        "fries glasses goggles goods groceries handcuffs headphones jeans khakis knickers leggings overalls pajamas "
        "panties pants pliers pyjamas scissors shears shorts slacks spectacles stairs sunglasses suspenders sweatpants "
        "tights tongs trousers tweezers underpants woods",
    )
)  # which name one thing, or not what their singular names; nouns like "series" the lexicon itself keeps
_SEEN_THROUGH: Final = ("eye", "opera", "reading", "safety", "sun")  # kinds of glasses that are not for drinking
_OTHER_COMPOUNDS: Final = frozenset(
    re.findall(
        r"\w+ \w+",
        "cutting board, dining chair, dining room, dining table, folding chair, french fries, frying pan, "
        "grizzly bear, hot dog, hot tub, living room, parking lot, parking meter, polar bear, potted plant, "
        "remote control, rocking chair, running shoe, sewing machine, shopping bag, shopping cart, sleeping bag, "
        "steering wheel, stop light, stop sign, swimming pool, waiting room, washing machine",
    )
)  # whose first word the tagger may take for no noun


@dataclass(frozen=True)
class NounSpan:
    """A noun at the characters [start, end) of a text, with its lemma in lower case.

    `is_compound`: a part of a compound. `is_modifier`: a part that stands before the head ("stop" of "stop sign").
    """

    start: int
    end: int
    lemma: str
    is_compound: bool = False
    is_modifier: bool = False


class Tagger(Protocol):
    """Anything that finds the nouns of a text, in the order of the text."""

    def __call__(self, text: str, /) -> Sequence[NounSpan]:
        """The noun spans of `text`, not overlapping, by start."""


@functools.lru_cache(maxsize=8192)  # captions repeat, and repeat their references
def tag_nouns(text: str) -> tuple[NounSpan, ...]:
    """The default tagger: HanTa decides on the class in context, lemminflect on the lemma and on HanTa's misses."""
    words = [(match.start(), match.end(), match.group()) for match in WORDS.finditer(text)]
    tags = _hanta().tag_sent([unicodedata.normalize("NFC", word) for _, _, word in words], taglevel=0)
    nouns = [
        NounSpan(start, end, _lemma_in_context(words, tags, index))
        for index, (start, end, word) in enumerate(words)
        if word[0].isalpha() and _is_noun(word, tags, index)
    ]
    return tuple(_with_compounds(text, nouns))


@functools.lru_cache(maxsize=8192)
def lemma_of(word: str) -> str:
    """The noun lemma of `word`, lower case; a word that the lexicon lacks loses at most a plural s (corgis -> corgi).

    Of several lemmas the lexicon's first, but -f before -ve (leaves -> leaf, not leave). Of a hyphenated or
    several-word noun the last part is inflected (fire-engines -> fire-engine). Words that name one thing by their
    plural keep it (glasses, pants).
    """
    word = unicodedata.normalize("NFC", word).lower()
    head = re.search(r"[^\s-]+$", word)
    if head is None:
        return word
    form = head.group()
    return word if form in _PLURALS else word[: head.start()] + _singular(form)


def _singular(form: str) -> str:
    with _lock:
        lemmas = _lemminflect().getLemma(form, upos="NOUN", lemmatize_oov=form.endswith("s") and form != "s")
    if form.endswith("ves"):
        lemmas = sorted(lemmas, key=lambda lemma: not lemma.endswith(("f", "fe")))
    return lemmas[0].lower() if lemmas else form


def _lemma_in_context(words: Sequence[tuple[int, int, str]], tags: Sequence[str], index: int) -> str:
    """The lemma of the noun at `index`: counted, of something or of a kind (wine), glasses are for drinking."""
    word = words[index][2]
    if _is_new_name(word, tags[index]):
        return word.lower()
    if word.lower() != "glasses":
        return lemma_of(word)
    is_of = any(after.lower() == "of" for _, _, after in words[index + 1 : index + 2])
    before = words[index - 1][2].lower() if index else ""
    is_kind = bool(before) and _is_noun(before, tags, index - 1) and before not in _SEEN_THROUGH
    return "glass" if is_of or is_kind or (before and tags[index - 1] == "CRD") else lemma_of(word)


def _with_compounds(text: str, nouns: Sequence[NounSpan]) -> Iterator[NounSpan]:
    """The nouns with their flags: nouns with only spaces between them are one compound, whose last is the head."""
    for index, noun in enumerate(nouns):
        is_modifier = _are_together(text, nouns[index : index + 2])
        is_head = _are_together(text, nouns[max(index - 1, 0) : index + 1]) or _is_listed(text, noun)
        yield replace(noun, is_compound=is_modifier or is_head, is_modifier=is_modifier)


def _are_together(text: str, pair: Sequence[NounSpan]) -> bool:
    return len(pair) == 2 and text[pair[0].end : pair[1].start].isspace()


def _is_listed(text: str, head: NounSpan) -> bool:
    """Whether the noun heads one of `_OTHER_COMPOUNDS`."""
    before, form = text[: head.start].lower().split()[-1:], text[head.start : head.end].lower()
    return any(f"{word} {one}" in _OTHER_COMPOUNDS for word in before for one in (head.lemma, form))


def _is_noun(word: str, tags: Sequence[str], index: int) -> bool:
    classes = _word_classes(word.lower())
    if tags[index].startswith(_NOUN_TAGS):
        return not classes or "NOUN" in classes  # HanTa may call any capitalised word a name
    if tags[index].startswith(_OPEN_TAGS) and classes == {"NOUN"}:
        return True
    return "NOUN" in classes and _heads_its_phrase(tags, index)


def _heads_its_phrase(tags: Sequence[str], index: int) -> bool:
    """An adjective with a determiner before it and a preposition after it has no other noun to belong to.

    HanTa takes the key of "a key next to a dog" for an adjective, for it takes "next" for an ordinal.
    """
    before = index
    while before >= 0 and tags[before] == "AJ0":
        before -= 1
    after = index + 2 if tags[index + 1 : index + 2] == ["ORD"] else index + 1
    is_between = before >= 0 and tags[before] in _DETERMINER_TAGS and tags[after : after + 1] in (["PRP"], ["PRF"])
    return tags[index] == "AJ0" and is_between


def _is_new_name(word: str, tag: str) -> bool:
    """A name that the lexicon lacks has no plural to undo (Paris)."""
    return tag.startswith("NP") and not _word_classes(word.lower())


@functools.lru_cache(maxsize=8192)
def _word_classes(word: str) -> frozenset[str]:
    """Every class that the lexicon knows `word` in; empty for an unknown word."""
    with _lock:
        return frozenset(_lemminflect().getAllLemmas(unicodedata.normalize("NFC", word)))


# The tagger's and the lexicon's tables: read once, when first asked for. lemminflect fills its own lazily, hence the
# lock around its calls, too; both are then only read.
_lock = threading.RLock()


@functools.cache
def _loaded_hanta() -> Any:
    from HanTa import HanoverTagger  # 0.1 s that only captioning needs

    # A full path: given a bare name HanTa unpickles a file of that name in the working directory, whoever put it there.
    model = Path(HanoverTagger.__file__).with_name("morphmodel_en.pgz")
    tagger = HanoverTagger.HanoverTagger(str(model))
    shrink_hanta(tagger)
    tagger.analyze_forward = functools.lru_cache(8192)(tagger.analyze_forward)  # of a word, whatever its sentence
    return tagger


def _hanta() -> Any:
    with _lock:
        return _loaded_hanta()


@functools.cache
def _lemminflect() -> Any:
    import lemminflect

    shrink_lemminflect(lemminflect)
    return lemminflect

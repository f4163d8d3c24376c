"""The nouns of a caption, each with the token whose logit stands for it and the pass that predicts that token.

Steps: a tagger finds the noun spans of the text · spans of one lemma become one concept, at its first occurrence ·
character offsets of the generated tokens give the position: the token that holds the noun's first character.
P2 (arXiv 2311.07470) takes every noun and its first sub-token; offsets instead of a search through token ids, so that
a dropped noun cannot shift the others, are ours.

The default tagger is HanTa with lemminflect's lemmas: HanTa's own are bad (skis -> sky), and words that it leaves
unclassified or takes for another open class (giraffe) are nouns when the lexicon knows them as nothing else.

Left out: compounds of several words ("fire engine" is two concepts), and any language but English.
"""

from __future__ import annotations

import bisect
import functools
import importlib.metadata
import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from mmn.core import Concept
from mmn.errors import UsageError

TAGGER_VERSION: Final = " + ".join(f"{name} {importlib.metadata.version(name)}" for name in ("HanTa", "lemminflect"))

_APOSTROPHES: Final = "'’"
_LETTER: Final = r"[^\W_][\u0300-\u036f]*"  # or digit, with the accents that follow it when they are separate
_WORDS: Final = re.compile(
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
_CARRIERS: Final = ("a", "the", "with")  # what stands before a target word; one whose tokens the word leaves alone


@dataclass(frozen=True)
class GeneratedCaption:
    """A caption as it was generated: token j covers the characters [token_ends[j-1], token_ends[j]) of `text`.

    Invariant: `token_ends` never decreases and ends with the text, so the tokens' spans tile it.
    """

    text: str
    token_ids: tuple[int, ...]
    token_ends: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.token_ids) == len(self.token_ends), (self.token_ids, self.token_ends)
        assert list(self.token_ends) == sorted(self.token_ends), self.token_ends
        assert (self.token_ends[-1] if self.token_ends else 0) == len(self.text), (self.text, self.token_ends)


@dataclass(frozen=True)
class NounSpan:
    """A noun at the characters [start, end) of a text, with its lemma in lower case."""

    start: int
    end: int
    lemma: str


class Tagger(Protocol):
    """Anything that finds the nouns of a text, in the order of the text."""

    def __call__(self, text: str, /) -> Sequence[NounSpan]:
        """The noun spans of `text`, not overlapping, by start."""


def find_concepts(
    caption: GeneratedCaption, references: tuple[str, ...], tagger: Tagger | None = None
) -> tuple[Concept, ...]:
    """The caption's nouns in the order of their first occurrence, one concept per lemma (METHODS: Conventions).

    `position` is the token that holds the first character of the first occurrence, also when that token begins with
    characters of the word before (a merge): it is the pass that emits the noun's beginning. Two nouns in one such
    token are both `is_shared_token`.

    Args:
        caption: text and tokens as generated; tokens after the end already cut.
        references: captions that people gave the picture; without any, `is_in_reference` is None.
        tagger: finds the nouns; HanTa and lemminflect unless given.
    """
    tag = tagger or tag_nouns
    spans = tag(caption.text)
    n_mentions = Counter(span.lemma for span in spans)
    firsts = {span.lemma: span for span in reversed(spans)}
    known = _reference_lemmas(references, tag)
    concepts = [
        _concept(caption, span, n_mentions[span.lemma], known)
        for span in sorted(firsts.values(), key=lambda span: span.start)
    ]
    n_of_token = Counter(concept.token_id for concept in concepts)
    return tuple(
        replace(concept, is_first=index == 0, is_shared_token=n_of_token[concept.token_id] > 1)
        for index, concept in enumerate(concepts)
    )


def token_ends_of(token_ids: Sequence[int], decode: Callable[[list[int]], str]) -> tuple[str, tuple[int, ...]]:
    """The decoded text, and for each token the offset in it where the token's characters end.

    Works for any tokenizer, from decoding every prefix: token j ends where prefix j stops agreeing with the text. A
    space belongs to the token that brings it. A token that holds only some bytes of a character decodes to U+FFFD until
    the rest is there; the character is the first such token's, for that is the one that begins it. A token that adds
    nothing (a skipped special) covers an empty span.
    """
    text = decode(list(token_ids))
    ends: list[int] = []
    for n_tokens in range(1, len(token_ids) + 1):
        prefix = text if n_tokens == len(token_ids) else decode(list(token_ids[:n_tokens]))
        ends.append(max(ends[-1] if ends else 0, _agreement(prefix, text)))
    return text, tuple(ends)


def target_concept(
    word: str, at: Concept, encode: Callable[[str], list[int]], references: tuple[str, ...] = ()
) -> Concept:
    """A word of the user's choice, scored at the position of the noun `at`, whether the caption says it or not.

    `token_id` is the first token that holds a character of the word as it stands inside a caption, after a space; a
    token of the space alone is passed over, as `find_concepts` does.

    Args:
        word: one word or several; the first sub-token counts.
        at: the concept whose position is used.
        encode: text to token ids; specials around them do no harm.
        references: as for `find_concepts`.

    Raises:
        UsageError: `word` is empty, or no token of it is left.
    """
    word = unicodedata.normalize("NFC", " ".join(word.split()))
    added = _added_tokens(word, encode) if word else []
    if not added:
        raise UsageError(f"the target {word!r} has no token of its own in this model: choose another word")
    lemma = lemma_of(word.lower())
    known = _reference_lemmas(references, tag_nouns)
    return Concept(
        noun=word.lower(),
        lemma=lemma,
        n_mentions=at.n_mentions if lemma == at.lemma else 0,
        token_id=added[0],
        position=at.position,
        is_first=False,
        is_multi_token=len(added) > 1,
        is_shared_token=added[0] == at.token_id,
        is_in_reference=None if known is None else lemma in known,
        target_at=at.noun,
    )


@functools.lru_cache(maxsize=8192)  # captions repeat, and repeat their references
def tag_nouns(text: str) -> tuple[NounSpan, ...]:
    """The default tagger: HanTa decides on the class in context, lemminflect on the lemma and on HanTa's misses."""
    words = [(match.start(), match.end(), match.group()) for match in _WORDS.finditer(text)]
    tags = _hanta().tag_sent([unicodedata.normalize("NFC", word) for _, _, word in words], taglevel=0)
    return tuple(
        NounSpan(start, end, word.lower() if _is_new_name(word, tags[index]) else lemma_of(word))
        for index, (start, end, word) in enumerate(words)
        if word[0].isalpha() and _is_noun(word, tags, index)
    )


@functools.lru_cache(maxsize=8192)
def lemma_of(word: str) -> str:
    """The noun lemma of `word`, lower case; a word that the lexicon lacks loses at most a plural s (corgis -> corgi).

    Of several lemmas the lexicon's first, but -f before -ve (leaves -> leaf, not leave). Of a hyphenated or
    several-word noun the last part is inflected (fire-engines -> fire-engine).
    """
    word = unicodedata.normalize("NFC", word).lower()
    head = re.search(r"[^\s-]+$", word)
    if head is None:
        return word
    form = head.group()
    with _lock:
        lemmas = _lemminflect().getLemma(form, upos="NOUN", lemmatize_oov=form.endswith("s") and form != "s")
    if form.endswith("ves"):
        lemmas = sorted(lemmas, key=lambda lemma: not lemma.endswith(("f", "fe")))
    return word[: head.start()] + (lemmas[0].lower() if lemmas else form)


def _concept(caption: GeneratedCaption, span: NounSpan, n_mentions: int, known: frozenset[str] | None) -> Concept:
    """`is_first` and `is_shared_token` are set once all concepts are known."""
    position = _token_of(caption, span.start)
    return Concept(
        noun=caption.text[span.start : span.end].lower(),
        lemma=span.lemma,
        n_mentions=n_mentions,
        token_id=caption.token_ids[position],
        position=position,
        is_first=False,
        is_multi_token=_token_of(caption, span.end - 1) != position,
        is_shared_token=False,
        is_in_reference=None if known is None else span.lemma in known,
    )


def _token_of(caption: GeneratedCaption, offset: int) -> int:
    """The token that holds the character at `offset`; an empty span holds none."""
    assert 0 <= offset < len(caption.text), (offset, caption.text)
    return bisect.bisect_right(caption.token_ends, offset)


def _agreement(prefix: str, text: str) -> int:
    """Characters that the two share from the start, with one that `prefix` has begun but not yet completed."""
    n_shared = next(
        (i for i, (a, b) in enumerate(zip(prefix, text, strict=False)) if a != b), min(len(prefix), len(text))
    )
    has_begun = n_shared < min(len(prefix), len(text)) and prefix[n_shared] == "\ufffd"
    return n_shared + has_begun


def _added_tokens(word: str, encode: Callable[[str], list[int]]) -> list[int]:
    """The tokens of `word` after another word, without those of the space alone and of specials at the end."""
    for carrier in _CARRIERS:
        before, spaced, after = encode(carrier), encode(f"{carrier} "), encode(f"{carrier} {word}")
        n_closing = _n_shared(reversed(before), reversed(after))
        n_kept = _n_shared(before, after)
        if n_kept + n_closing < len(before):
            continue  # the carrier's own tokens changed: it merged with the word
        n_kept = min(n_kept, len(after) - n_closing)
        added = after[n_kept : len(after) - n_closing]
        space = spaced[n_kept : len(spaced) - n_closing]
        return added[len(space) :] if space and added[: len(space)] == space else added
    raise UsageError(f"the target {word!r} merges with the word before it in this model: choose another word")


def _n_shared(first: Iterable[int], second: Iterable[int]) -> int:
    count = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        count += 1
    return count


def reference_lemmas(references: tuple[str, ...]) -> frozenset[str]:
    """The lemmas that `is_in_reference` finds a concept's lemma among."""
    return _reference_lemmas(references, tag_nouns) or frozenset()


def _reference_lemmas(references: tuple[str, ...], tag: Tagger) -> frozenset[str] | None:
    """Lemmas of the references' nouns, and of all their words taken as nouns: a tagger's miss there is no absence."""
    if not references:
        return None
    nouns = {span.lemma for text in references for span in tag(text)}
    return frozenset(nouns | {lemma_of(word) for text in references for word in _WORDS.findall(text)})


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
    tagger.analyze_forward = functools.lru_cache(8192)(tagger.analyze_forward)  # of a word, whatever its sentence
    return tagger


def _hanta() -> Any:
    with _lock:
        return _loaded_hanta()


@functools.cache
def _lemminflect() -> Any:
    import lemminflect

    return lemminflect

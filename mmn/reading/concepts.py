"""The nouns of a caption, each with the token whose logit stands for it and the pass that predicts that token.

Steps: a tagger finds the noun spans of the text · spans of one lemma become one concept, at its first occurrence ·
character offsets of the generated tokens give the position: the token that holds the noun's first character.
P2 (arXiv 2311.07470) takes every noun and its first sub-token; offsets instead of a search through token ids, so that
a dropped noun cannot shift the others, are ours.

A caption that was cut in a word ends before that word (`n_whole_tokens`): "straw" of "strawberry" is another noun.
Nouns of a caption that is not English are not sought (`reading.language`): the tagger (`reading.nouns`) is English.
"""

from __future__ import annotations

import bisect
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mmn.core import Concept
from mmn.errors import UsageError
from mmn.reading.language import is_english
from mmn.reading.nouns import WORDS, NounSpan, Tagger, lemma_of, tag_nouns
from mmn.reading.synonyms import NO_SYNONYMS, Synonyms, shipped_synonyms

_BROKEN: Final = "\ufffd"  # stands for some bytes of a character while the rest is missing
_UNFINISHED: Final = re.compile(f"(?<!{_BROKEN}){_BROKEN}{{1,3}}$|(?<=-)$")  # what a word may go on with, at the end
_SPACELESS: Final = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")  # in names of letters
_CARRIERS: Final = ("a", "the", "with")  # what stands before a target word; one whose tokens the word leaves alone


@dataclass(frozen=True)
class GeneratedCaption:
    """A caption as it was generated: token j covers the characters [token_ends[j-1], token_ends[j]) of `text`.

    Invariant: `token_ends` never decreases and ends with the text, so the tokens' spans tile it. `is_cut`: the limit of
    new tokens ended it, and the model would have gone on.
    """

    text: str
    token_ids: tuple[int, ...]
    token_ends: tuple[int, ...]
    is_cut: bool = False

    def __post_init__(self) -> None:
        assert len(self.token_ids) == len(self.token_ends), (self.token_ids, self.token_ends)
        assert list(self.token_ends) == sorted(self.token_ends), self.token_ends
        assert (self.token_ends[-1] if self.token_ends else 0) == len(self.text), (self.text, self.token_ends)


def find_concepts(
    caption: GeneratedCaption, references: tuple[str, ...], tagger: Tagger | None = None
) -> tuple[Concept, ...]:
    """The caption's nouns in the order of their first occurrence, one concept per lemma (METHODS: Conventions).

    `position` is the token that holds the first character of the first occurrence, also when that token begins with
    characters of the word before (a merge): it is the pass that emits the noun's beginning. Two nouns in one such
    token are both `is_shared_token`.

    Args:
        caption: text and tokens as generated; tokens after the end already cut.
        references: captions that people gave the picture; without any, `is_in_reference` is None. A reference says a
            noun by any word for what it means, of the list that ships (`reading.synonyms`).
        tagger: finds the nouns, in whatever language; unless given, that of `reading.nouns`, of English captions alone.
            With one no word has a synonym.
    """
    if tagger is None and not is_english(caption.text):
        return ()
    tag = tagger or tag_nouns
    spans = tag(caption.text)
    n_mentions = Counter(span.lemma for span in spans)
    firsts = {span.lemma: span for span in reversed(spans)}
    known = _said_by_references(references, tagger, caption.text, tuple(firsts))
    concepts = [
        _concept(caption, span, n_mentions[span.lemma], known.get(span.lemma))
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


def n_whole_tokens(token_ids: Sequence[int], decode: Callable[[list[int]], str]) -> int:
    """How many of the tokens before the last one are left when a word that the last one goes on with is dropped whole.

    The last token is what the model would have said next: only it tells "straw" from "straw|berry". A hyphen goes on
    with a word, too (fire|-engine); in scripts without spaces each character may end one. Exact, and the same for any
    batch, since it is greedy like the rest.

    Args:
        token_ids: a caption that the limit of tokens cut, and the token after it.
        decode: token ids to text, specials skipped.
    """
    ahead = _UNFINISHED.sub(lambda found: "x" * max(len(found.group()), 1), decode(list(token_ids)))
    inside = {at for word in WORDS.finditer(ahead) for at in range(word.start() + 1, word.end())}
    for n_tokens in range(len(token_ids) - 1, 0, -1):
        text = decode(list(token_ids[:n_tokens]))
        is_whole = len(text) not in inside or _is_spaceless(ahead[len(text) - 1])
        if is_whole and ahead.startswith(text):  # not so where the text ends in some bytes of a character
            return n_tokens
    return 0


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
    added = added_tokens(word, encode) if word else []
    if not added:
        raise UsageError(f"the target {word!r} has no token of its own in this model: choose another word")
    lemma = lemma_of(word.lower())
    known = _said_by_references(references, None, word, (lemma,))
    return Concept(
        noun=word.lower(),
        lemma=lemma,
        n_mentions=at.n_mentions if lemma == at.lemma else 0,
        token_id=added[0],
        position=at.position,
        is_first=False,
        is_multi_token=len(added) > 1,
        is_shared_token=added[0] == at.token_id,
        is_in_reference=known.get(lemma),
        target_at=at.noun,
    )


def _concept(caption: GeneratedCaption, span: NounSpan, n_mentions: int, is_in_reference: bool | None) -> Concept:
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
        is_in_reference=is_in_reference,
        is_compound=span.is_compound,
        is_modifier=span.is_modifier,
    )


def _is_spaceless(char: str) -> bool:
    return unicodedata.name(char, "").startswith(_SPACELESS)


def _token_of(caption: GeneratedCaption, offset: int) -> int:
    """The token that holds the character at `offset`; an empty span holds none."""
    assert 0 <= offset < len(caption.text), (offset, caption.text)
    return bisect.bisect_right(caption.token_ends, offset)


def _agreement(prefix: str, text: str) -> int:
    """Characters that the two share from the start, with one that `prefix` has begun but not yet completed."""
    n_shared = next(
        (i for i, (a, b) in enumerate(zip(prefix, text, strict=False)) if a != b), min(len(prefix), len(text))
    )
    has_begun = n_shared < min(len(prefix), len(text)) and prefix[n_shared] == _BROKEN
    return n_shared + has_begun


def added_tokens(word: str, encode: Callable[[str], list[int]]) -> list[int]:
    """The tokens of `word` after another word, without those of the space alone and of specials at the end.

    Raises:
        UsageError: the word merges with whatever stands before it.
    """
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


def reference_lemmas(references: Sequence[str], tagger: Tagger | None = None) -> frozenset[str]:
    """Lemmas of the references' nouns, and of all their words taken as nouns: a tagger's miss there is no absence.

    Of references in another language than the tagger's none: they say nothing of the caption's nouns.
    """
    read = read_references(references, tagger)
    nouns = {span.lemma for text in read for span in (tagger or tag_nouns)(text)}
    return frozenset(nouns | {lemma_of(word) for text in read for word in WORDS.findall(text)})


def mentioned_names(
    references: Sequence[str], synonyms: Synonyms, tagger: Tagger | None = None
) -> frozenset[str] | None:
    """What references mention (`Synonyms.mentioned_in`); None without one in the tagger's language."""
    read = read_references(references, tagger)
    return synonyms.mentioned_in(read, reference_lemmas(read, tagger)) if read else None


def read_references(references: Sequence[str], tagger: Tagger | None = None) -> tuple[str, ...]:
    """The references in the tagger's language: English, unless one is given."""
    return tuple(text for text in references if tagger is not None or is_english(text))


def _said_by_references(
    references: Sequence[str], tagger: Tagger | None, text: str, lemmas: Sequence[str]
) -> dict[str, bool]:
    """Whether references say each noun of a text; {} where they tell nothing."""
    synonyms = shipped_synonyms() if tagger is None else NO_SYNONYMS
    mentioned = mentioned_names(references, synonyms, tagger)
    return {} if mentioned is None else synonyms.are_mentioned(text, lemmas, mentioned)

"""Which object does a word mean? The words of COCO's 80 objects, and those that a user adds or puts in their place.

    word ─► its lemma ─► the object that it means, by a list of `word,object` ("puppy" ─► dog, "cell phone", "phone" ─►
        cell phone); a word that is not listed means itself
    text ─► names of several words first ("a hot dog" is no dog), then single words

CHAIR (Rohrbach et al. 2018, arXiv 1809.02156; their code was read) maps the words of captions to COCO's categories by
such a list. `coco_words.csv` is OURS, written for everyday captions, and not theirs: numbers are near to theirs, and
not the same. Names of several words that their last word tells already ("dining table", "mountain goat") need no line.

Left out: what a word means in its sentence ("a mouse" is one thing, on a desk or in a field).
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from mmn.counts import counted
from mmn.errors import UsageError
from mmn.printable import printable, quoted
from mmn.reading.nouns import WORDS, lemma_of
from mmn.safety.regular_files import read_regular
from mmn.safety.roots import require_inside

SHIPPED_PATH: Final = Path(__file__).with_name("coco_words.csv")
HEADER: Final = ["word", "object"]
OFF, ONLY = "none", "only:"
MOST_BYTES: Final = 2_000_000
_EXAMPLE: Final = "give lines of word,object, as puppy,dog, below a first line 'word,object'"


@dataclass(frozen=True)
class Name:
    """A name in a text: the lemmas of its words, and the lemma of all."""

    parts: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Synonyms:
    """The object that each word means; words are lemmas, of one word or several."""

    object_of: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def objects(self) -> frozenset[str]:
        """All objects that words mean."""
        return frozenset(self.object_of.values())

    @cached_property
    def n_synonyms(self) -> int:
        """Words that are not their object's own name."""
        return sum(word != name for word, name in self.object_of.items())

    @cached_property
    def digest(self) -> str:
        """A hash of the list; empty for an empty one."""
        lines = repr(sorted(self.object_of.items())).encode()
        return hashlib.sha256(lines).hexdigest()[:16] if self.object_of else ""

    def meaning(self, name: str) -> str:
        """The object that a lemma means; the lemma itself, where it is none of the list."""
        return self.object_of.get(name) or self.object_of.get(name.replace("-", " "), name)

    def is_listed(self, name: str) -> bool:
        """Whether a name is one of the list's, or a word for one."""
        return self.meaning(name) in self.objects

    def names(self, text: str) -> tuple[Name, ...]:
        """The names in a text, in its order: of several words where the list has them, else word by word."""
        return self._names_of(text)

    @cached_property
    def _names_of(self) -> Callable[[str], tuple[Name, ...]]:
        """The same, kept: one caption is judged by many measures."""
        return functools.lru_cache(maxsize=4096)(lambda text: tuple(self._read(text)))

    def _read(self, text: str) -> Iterator[Name]:
        words = [word.lower() for word in WORDS.findall(text)]
        at = 0
        while at < len(words):
            n = self._n_words(words[at : at + self._longest])
            yield Name(tuple(map(lemma_of, words[at : at + n])), _joined(words[at : at + n]))
            at += n

    def mentions(self, text: str, nouns: Collection[str]) -> list[str]:
        """The names of listed objects in a text, each as often as it is said; single words only where they are among
        its `nouns`, for "orange" may be a colour.
        """
        found = [one for one in self.names(text) if len(one.parts) > 1 or one.parts[0] in nouns]
        return [one.name for one in found if self.is_listed(one.name)]

    def senses(self, text: str, nouns: Iterable[str]) -> dict[str, str | None]:
        """What each noun of a text is called for: the name that it ends ("dog" of a hot dog), None for a word before
        that, and itself where it stands alone once.
        """
        found: dict[str, list[str | None]] = {}
        for one in self.names(text):
            for part in one.parts[:-1]:
                found.setdefault(part, []).append(None)
            found.setdefault(one.parts[-1], []).append(one.name)
        return {noun: _sense(noun, found.get(noun, [noun])) for noun in nouns}

    def mentioned(self, text: str) -> tuple[set[str], set[str]]:
        """The names in a text with the words that they are made of, and those of these words that mean another object
        ("dog" of a hot dog, but not "glass" of a wine glass).
        """
        said: set[str] = set()
        others: set[str] = set()
        for one in self.names(text):
            said.add(one.name)
            for part in one.parts if len(one.parts) > 1 else ():
                is_other = self.is_listed(part) and self.meaning(part) != self.meaning(one.name)
                (others if is_other else said).add(part)
        return said, others - said

    def mentioned_in(self, texts: Iterable[str], nouns: Collection[str]) -> frozenset[str]:
        """All that texts mention, whose `nouns` a tagger found: names, their words, and no word that means another
        object there.
        """
        told = [self.mentioned(text) for text in texts]
        said = {name for names, _ in told for name in names}
        others = {part for _, parts in told for part in parts}
        return frozenset((set(nouns) - others) | said)

    def are_mentioned(self, text: str, nouns: Iterable[str], mentioned: Iterable[str]) -> dict[str, bool]:
        """Whether each noun of a text is `mentioned` elsewhere, by its own name or another word for what it means."""
        there = set(map(self.meaning, mentioned))
        return {noun: self.meaning(sense or noun) in there for noun, sense in self.senses(text, nouns).items()}

    @cached_property
    def _longest(self) -> int:
        return max((word.count(" ") + 1 for word in self.object_of), default=1)

    def _n_words(self, words: list[str]) -> int:
        """How many of the words, from the first, are one name."""
        return next((n for n in range(len(words), 1, -1) if _joined(words[:n]) in self.object_of), 1)

    def __str__(self) -> str:
        if not self.object_of:
            return "without synonyms"
        return f"with {counted(self.n_synonyms, 'synonym')} of {counted(len(self.objects), 'object')}"


NO_SYNONYMS: Final = Synonyms()


@functools.cache
def shipped_synonyms() -> Synonyms:
    """The list that comes with the program: words of COCO's 80 objects, all lemmas."""
    rows = csv.reader(io.StringIO(SHIPPED_PATH.read_text(encoding="utf-8")))
    assert next(rows) == HEADER, SHIPPED_PATH
    return Synonyms({word: name for word, name in rows})  # noqa: C416 - a wrong row is an error


def read_synonyms(spec: str) -> Synonyms:
    """The synonyms that `--synonyms` asks for: `FILE` adds to the shipped list, `only:FILE` takes its place, `none`.

    Raises:
        UsageError: no such file, not UTF-8, no CSV of `word,object`, a line without either, a word of two objects, an
            object that is itself a word for another one.
        BrokenFileError: no regular file, or too large.
        OutsideRootsError: outside the folders that this process may read.
    """
    if spec == OFF:
        return NO_SYNONYMS
    path = Path(spec.removeprefix(ONLY)).expanduser()
    told = _read(path)
    base = {} if spec.startswith(ONLY) else dict(shipped_synonyms().object_of)
    merged = {name: name for name in told.values()} | base | told
    for word, name in told.items():
        if merged[name] != name:
            raise UsageError(
                f"{printable(path)}: {quoted(word)} means {quoted(name)}, which itself is a word for "
                f"{quoted(merged[name])}: give the object {quoted(merged[name])}, or a line {name},{name}"
            )
    return Synonyms({word: _last(merged, name) for word, name in merged.items()})


def _last(object_of: Mapping[str, str], name: str) -> str:
    """Of a word of the shipped list whose object the file maps to another one: that one."""
    return object_of.get(name, name)


def _read(path: Path) -> dict[str, str]:
    """The lemmas of a file's words, and of the objects that they mean."""
    where, found = printable(path), dict[str, str]()
    for number, cells in _lines(path):
        if len(cells) != len(HEADER) or not all(cells):
            raise UsageError(f"{where}, line {number}: {quoted(','.join(cells), 60)} is no pair; {_EXAMPLE}")
        word, name = (lemma_of(" ".join(cell.split())) for cell in cells)
        if found.setdefault(word, name) != name:
            raise UsageError(
                f"{where}, line {number}: {quoted(word)} means {quoted(found[word])} already: give it once"
            )
    if not found:
        raise UsageError(f"{where} has no words: {_EXAMPLE}")
    return found


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The number and the stripped cells of each line that is not empty, below the first one."""
    require_inside(path)
    if not path.is_file():
        raise UsageError(f"{printable(path)} is no file of synonyms: {_EXAMPLE}; or give 'none'")
    data = read_regular(path.resolve(), MOST_BYTES, "give a file of word,object")
    try:
        rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        lines = [(rows.line_num, [cell.strip() for cell in row]) for row in rows if any(map(str.strip, row))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{printable(path)} is no CSV in UTF-8 ({error}): {_EXAMPLE}") from error
    if not lines or [cell.lower() for cell in lines[0][1]] != HEADER:
        raise UsageError(f"{printable(path)} does not begin with 'word,object': {_EXAMPLE}")
    yield from lines[1:]


def _joined(words: list[str]) -> str:
    return " ".join([*words[:-1], lemma_of(words[-1])])


def _sense(noun: str, found: list[str | None]) -> str | None:
    return noun if noun in found else next((one for one in found if one is not None), None)

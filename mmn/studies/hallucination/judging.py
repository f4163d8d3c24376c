"""Is an object in a picture, as far as masks and references tell?

    present       outlined, or mentioned by a reference
    hallucinated  named by the caption, and known not to be there
    absent        neither named nor there
    missed        there, and not named
    unknown       nothing is known of it: no references, and an object that the picture's masks do not tell of; parts of
                  compounds that are not there, since a hot dog is no dog; and words before the last of a known name
                  ("traffic" of a traffic light)

A word stands for the object that it means by the run's synonyms ("puppy" for a dog), but a word that the source of
masks itself names an object by for that one alone. CHAIR (Rohrbach et al. 2018, arXiv 1809.02156) counts in two ways:

    listed objects   every mention of a word for an object of the list (COCO's 80, unless another list was given), as
                     published; what is no word for one ("sky", "day") is neither right nor wrong
    all nouns        every noun of a caption once, whatever it is of (OURS)

Torch-free: pages and figures judge what was measured.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from mmn.reading.synonyms import NO_SYNONYMS, Synonyms

PRESENT, HALLUCINATED, ABSENT, MISSED, UNKNOWN = "present", "hallucinated", "absent", "missed", "unknown"
LISTED, NOUNS = "listed objects", "all nouns"
WAYS: Final = (LISTED, NOUNS)
STATES: Final = (PRESENT, HALLUCINATED, ABSENT, MISSED, UNKNOWN)


@dataclass(frozen=True)
class Known:
    """What is known of one picture: its outlined objects, and what its references mention; None for nothing.

    `outlinable` are all objects that its masks' source tells of; None where that was not written down, as in earlier
    versions: then those of all masks of the run. `synonyms` are what it was measured by.
    """

    outlined: frozenset[str] | None
    mentioned: frozenset[str] | None
    outlinable: frozenset[str] | None = None
    synonyms: Synonyms = NO_SYNONYMS


NOTHING: Final = Known(None, None)


@dataclass(frozen=True)
class Judge:
    """Judges objects of pictures; `outlinable` are the objects that masks of the run are of.

    Texts of captions are needed for names of several words alone.
    """

    known: Mapping[str, Known]
    outlinable: frozenset[str]

    @classmethod
    def of(cls, known: Mapping[str, Known]) -> Judge:
        """A judge by what is known of each picture."""
        return cls(known, frozenset(name for one in known.values() for name in one.outlinable or one.outlined or ()))

    def state(self, image_id: str, name: str, *, is_said: bool, is_compound: bool = False) -> str:
        """One of `STATES`."""
        is_there = self.is_there(image_id, name)
        if is_there is None or (is_compound and not is_there):
            return UNKNOWN
        if is_there:
            return PRESENT if is_said else MISSED
        return HALLUCINATED if is_said else ABSENT

    def is_there(self, image_id: str, name: str) -> bool | None:
        """Whether the object is in the picture; None where that is not known."""
        here, meant = self.known.get(image_id, NOTHING), self.meaning(image_id, name)
        if meant in self._there.get(image_id, ()):
            return True
        is_outlinable = here.outlined is not None and meant in self._outlinable(here)
        return False if here.mentioned is not None or is_outlinable else None

    def meaning(self, image_id: str, name: str) -> str:
        """The object of a picture that a name is called for."""
        here = self.known.get(image_id, NOTHING)
        return name if name in self._outlinable(here) else here.synonyms.meaning(name)

    def is_listed(self, image_id: str, name: str) -> bool:
        """Whether a name is a word for one of the listed objects."""
        return self.known.get(image_id, NOTHING).synonyms.is_listed(name)

    def states(
        self, image_id: str, nouns: Collection[str], compounds: Collection[str], text: str = ""
    ) -> dict[str, str]:
        """The state of each noun of a caption of the picture."""
        senses = self.senses(image_id, nouns, text)
        return {one: self._state_of(image_id, one, senses[one], one in compounds) for one in nouns}

    def hallucinated(
        self, image_id: str, nouns: Collection[str], compounds: Collection[str], text: str, way: str
    ) -> tuple[str, ...]:
        """The nouns of a caption that are hallucinated, by one of `WAYS`: `LISTED` are those for listed objects."""
        senses, states = self.senses(image_id, nouns, text), self.states(image_id, nouns, compounds, text)
        found = (one for one in nouns if states[one] == HALLUCINATED)
        return tuple(one for one in found if way == NOUNS or self.is_listed(image_id, senses[one] or one))

    def senses(self, image_id: str, nouns: Iterable[str], text: str) -> dict[str, str | None]:
        """The name that each noun of a caption stands for; None for one that is only a part of another's."""
        return self.known.get(image_id, NOTHING).synonyms.senses(text, nouns)

    def named(self, image_id: str, nouns: Iterable[str], text: str) -> frozenset[str]:
        """The objects that a caption of the picture names, by whatever words."""
        senses = self.senses(image_id, nouns, text).values()
        return frozenset(self.meaning(image_id, name) for name in senses if name is not None)

    def count_listed(self, image_id: str, nouns: Collection[str], text: str) -> tuple[int, int]:
        """Of the mentions of listed objects in a caption: how many are of what is not there, and of how many it is
        known.
        """
        said = self.known.get(image_id, NOTHING).synonyms.mentions(text, nouns)
        are_there = [self.is_there(image_id, name) for name in said]
        return are_there.count(False), len(are_there) - are_there.count(None)

    def knows(self, image_id: str) -> bool:
        """Whether anything is known of a picture."""
        here = self.known.get(image_id, NOTHING)
        return here.outlined is not None or here.mentioned is not None

    def told(self) -> str:
        """The synonyms that pictures were measured by, in words."""
        lists = {one.synonyms.digest: str(one.synonyms) for one in self.known.values()}
        return " or ".join(sorted(lists.values())) or str(NO_SYNONYMS)

    def _state_of(self, image_id: str, noun: str, sense: str | None, is_compound: bool) -> str:
        if sense is None:
            return UNKNOWN
        return self.state(image_id, sense, is_said=True, is_compound=is_compound and sense == noun)

    def _outlinable(self, here: Known) -> frozenset[str]:
        return self.outlinable if here.outlinable is None else here.outlinable

    @cached_property
    def _there(self) -> dict[str, frozenset[str]]:
        """By picture the objects that are there."""
        return {
            image_id: frozenset(
                self.meaning(image_id, name) for name in (one.outlined or set()) | (one.mentioned or set())
            )
            for image_id, one in self.known.items()
        }

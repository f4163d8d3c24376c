"""Is an object in a picture, as far as masks and references tell?

    present       outlined, or mentioned by a reference
    hallucinated  named by the caption, and known not to be there
    absent        neither named nor there
    missed        there, and not named
    unknown       nothing is known of it: no references, and an object that no mask of the run is of; and parts of
                  compounds that are not there, since a hot dog is no dog

Torch-free: pages and figures judge what was measured.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

PRESENT, HALLUCINATED, ABSENT, MISSED, UNKNOWN = "present", "hallucinated", "absent", "missed", "unknown"
STATES: Final = (PRESENT, HALLUCINATED, ABSENT, MISSED, UNKNOWN)


@dataclass(frozen=True)
class Known:
    """What is known of one picture: its outlined objects, and what its references mention; None for nothing."""

    outlined: frozenset[str] | None
    mentioned: frozenset[str] | None


NOTHING: Final = Known(None, None)


@dataclass(frozen=True)
class Judge:
    """Judges objects of pictures; `outlinable` are the objects that masks of the run are of."""

    known: Mapping[str, Known]
    outlinable: frozenset[str]

    @classmethod
    def of(cls, known: Mapping[str, Known]) -> Judge:
        """A judge by what is known of each picture."""
        return cls(known, frozenset(name for one in known.values() for name in one.outlined or ()))

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
        here = self.known.get(image_id, NOTHING)
        if name in (here.outlined or ()) or name in (here.mentioned or ()):
            return True
        is_telling = here.mentioned is not None or (here.outlined is not None and name in self.outlinable)
        return False if is_telling else None

    def states(self, image_id: str, nouns: Iterable[str], compounds: Collection[str]) -> dict[str, str]:
        """The state of each noun of a caption of the picture."""
        return {one: self.state(image_id, one, is_said=True, is_compound=one in compounds) for one in nouns}

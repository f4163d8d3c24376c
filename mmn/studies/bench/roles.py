"""What a planted unit does. A role is what a method should, or should not, find of a noun.

    writer      active where the noun is about to be said, when and only when its object is there; writes the noun
    helper      active there, too; writes what later layers turn into the noun, and nothing that is the noun itself
    seer        active at the image tokens that the object covers; writes there what the noun is said by
    suppressor  active as the writer is; takes from the noun what the writer gives
    erased      active as the writer is, and writes the noun as it does; but the eraser takes it back: no effect
    eraser      active where the erased one wrote, in the last layer
    silent      the most active of all, in the last layer; what it writes no word's logit reads: no effect

OURS. The first three are to be found; the suppressor's sign is to be seen; the erased and the silent one are decoys:
a unit's activation does not tell that they do nothing, nor, of the erased one, does what it writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mmn.core import Neuron


@dataclass(frozen=True)
class Role:
    """A kind of planted unit.

    Attributes:
        name: of the role.
        depth: of its layer: 0 is the first one, 1 the last.
        effect: what zeroing it should take from the noun's logit.
        loudness: its activation where it is active, about; elsewhere it is next to 0.
    """

    name: str
    depth: float
    effect: float
    loudness: float = 5.0

    def layer(self, n_layers: int) -> int:
        """The layer that a unit of this role is planted in."""
        return round(self.depth * (n_layers - 1))


STRENGTH: Final = 1.0  # logits
INDIRECT: Final = 0.5  # logits, of what reaches the noun through later layers: more of it takes the stream elsewhere
SEER: Final = Role("seer", 0.2, INDIRECT)
HELPER: Final = Role("helper", 0.45, INDIRECT)
WRITER: Final = Role("writer", 0.8, STRENGTH)
SUPPRESSOR: Final = Role("suppressor", 0.8, -STRENGTH)
ERASED: Final = Role("erased", 0.8, 0.0)
ERASER: Final = Role("eraser", 1.0, -STRENGTH)
SILENT: Final = Role("silent", 1.0, 0.0, loudness=7.0)
ROLES: Final = (SEER, HELPER, WRITER, SUPPRESSOR, ERASED, ERASER, SILENT)  # as they are planted
WANTED: Final = (WRITER, HELPER, SEER)
DECOYS: Final = (ERASED, SILENT)
NAMED: Final = {role.name: role for role in ROLES}


@dataclass(frozen=True)
class Planted:
    """A unit, the noun that it is about (the name of its object), and its role's name."""

    unit: Neuron
    noun: str
    role: str

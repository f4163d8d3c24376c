"""What became of a number of attacks: the one table that `attacks.py` prints, whatever was attacked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Self

SLOW_S = 5.0  # an attack that takes longer is slow


@dataclass(frozen=True)
class Tally:
    """Counts of attacks of one kind.

    Each attack is tried, and then either refused (by name, with a reason) or accepted: what came of it equals what
    comes of the untouched input. `harmed`, `raw` and `slow` count what must not be: other results than those of the
    untouched input, or a changed file that is none of ours; an exception that is not an `MmnError`; more than `SLOW_S`.
    """

    tried: int = 0
    refused: int = 0
    accepted: int = 0
    harmed: int = 0
    raw: int = 0
    slow: int = 0

    def __add__(self, other: Self) -> Self:
        both = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return type(self)(*(mine + theirs for mine, theirs in both))

    @property
    def is_clean(self) -> bool:
        """Whether nothing happened that must not."""
        return not (self.harmed or self.raw or self.slow)


def table(tallies: dict[str, Tally]) -> str:
    """Returns the Markdown table of some kinds of attacks, with their sum."""
    rows = tallies | {"all": sum(tallies.values(), Tally())}
    lines = [
        "| attacks on | tried | refused | accepted and equal | harmed | raw exceptions | over 5 s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    return "\n".join(lines + [_row(kind, tally) for kind, tally in rows.items()])


def _row(kind: str, tally: Tally) -> str:
    return f"| {kind} | {' | '.join(f'{n:,}' for n in dataclasses.astuple(tally))} |"

"""Groups as sets of units, which `mmn degrade --units` and the other studies take."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from mmn.core import ModelFacts
from mmn.studies.domains.groups import Group
from mmn.units.sets import Shape, UnitSet

_MOST_LETTERS: Final = 36  # of a group's name in the set's


def set_of(group: Group, rule: str, by: str, facts: ModelFacts, run_id: str) -> UnitSet:
    """A group in its order. Its name ends with a part of its digest: found on other pictures it is another set."""
    word = re.sub(r"[^A-Za-z0-9_-]+", "-", group.name).strip("-")[:_MOST_LETTERS] or "group"
    origin = {"rule": rule, "group": group.name, "run": run_id} | ({"by": by} if rule == "dape" else {})
    plain = UnitSet(f"{rule}-{word}", group.units, group.scores, facts.name, facts.fingerprint, Shape.of(facts), origin)
    return UnitSet(
        f"{plain.name}-{plain.digest[:6]}",
        plain.units,
        plain.scores,
        plain.model,
        plain.fingerprint,
        plain.shape,
        origin,
    )


def sets_of(groups: Sequence[Group], rule: str, by: str, facts: ModelFacts, run_id: str) -> dict[str, UnitSet]:
    """The set of each group, by the group's name."""
    return {one.name: set_of(one, rule, by, facts, run_id) for one in groups}

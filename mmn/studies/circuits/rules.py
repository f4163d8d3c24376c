"""How a derivative is taken along a circuit's edges: as it is, or of a model that was made linear around one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

from mmn.models.model import Model
from mmn.studies.circuits.tables import RAJARAM


@dataclass(frozen=True)
class Rule:
    """What the one pass that is differentiated runs in; its values are the plain model's."""

    name: str
    around: Callable[[Model], AbstractContextManager[None]]


def _plain(_model: Model) -> AbstractContextManager[None]:
    """The gradient as it is."""
    return nullcontext()


RULES: Final[Mapping[str, Rule]] = {one.name: one for one in (Rule(RAJARAM, _plain),)}

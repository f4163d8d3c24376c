"""A set of units that somebody saved or wrote down, in order: what studies take instead of each noun's own ranking.

A set belongs to the model that it was made of: `fitting` refuses units that another model does not have, and says it
where the model is another one of the same shape, whose unit of that name is another unit. A set that comes from a file
belongs to none, and any model that has its units will do. In tables it stands where a score's name does, as
`set:NAME@DIGEST`: the digest is of its units in their order, so that a set that has changed is another one. OURS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mmn.core import ModelFacts, Neuron, unit_name
from mmn.counts import counted
from mmn.errors import UsageError
from mmn.names import SET
from mmn.printable import quoted

MOST_UNITS: Final = 1_000_000  # of a set


@dataclass(frozen=True)
class Shape:
    """Where a model's units are: its layers, the units of a layer, and of an expert in each layer."""

    n_layers: int
    d_mlp: int
    d_experts: tuple[int, ...] = ()

    @classmethod
    def of(cls, facts: ModelFacts) -> Shape:
        return cls(facts.n_layers, facts.d_mlp, tuple(facts.d_experts))


@dataclass(frozen=True)
class UnitSet:
    """Units in order, the first one first.

    Attributes:
        name: that it is called by.
        units: distinct.
        scores: one for each unit, None where it has none; () where no unit has one.
        model: the name of the model that it was made of; "" for a set from a file.
        fingerprint: of that model.
        shape: of that model; None for a set from a file.
        origin: how it was made: method, noun, image, k, filter, run, file; those that apply.
    """

    name: str
    units: tuple[Neuron, ...]
    scores: tuple[float | None, ...] = ()
    model: str = ""
    fingerprint: str = ""
    shape: Shape | None = None
    origin: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        assert self.units, f"the set {self.name!r} has no unit"
        assert len(set(self.units)) == len(self.units), f"the set {self.name!r} names a unit twice"
        assert len(self.scores) in (0, len(self.units)), (len(self.scores), len(self.units))

    @property
    def digest(self) -> str:
        """Stands for the units in their order."""
        return hashlib.sha256(" ".join(map(str, self.units)).encode()).hexdigest()[:8]

    @property
    def label(self) -> str:
        """What tables call it, in the place of a score: `set:NAME@DIGEST`."""
        return f"{SET}{self.name}@{self.digest}"

    def flat(self, d_mlp: int) -> list[int]:
        """The units as flat indices, layer · m + i."""
        return [one.layer * d_mlp + one.unit for one in self.units]


def require_units(units: Sequence[Neuron], facts: ModelFacts, of: str) -> None:
    """Raises `UsageError` for the first unit that a model does not have; `of` says whose units they are."""
    for one in units:
        if not (0 <= one.layer < facts.n_layers and 0 <= one.unit < facts.d_mlp):
            raise UsageError(
                f"{of} has {unit_name(one) if one.layer >= facts.n_layers else unit_name(one, facts.d_experts)}, which "
                f"{facts.name} has not: its layers are 0 to {facts.n_layers - 1}, their units 0 to {facts.d_mlp - 1}"
            )


def fitting(chosen: UnitSet, facts: ModelFacts) -> str:
    """Returns what is to be said of using a set on a model; "" where there is nothing.

    Raises:
        UsageError: the set is of a model of another shape, or has units that this one has not.
    """
    of = f"the set {quoted(chosen.name)}"
    if chosen.shape is not None and chosen.shape != Shape.of(facts):
        raise UsageError(
            f"{of} is of {chosen.model} ({_told(chosen.shape)}), and {facts.name} has another shape "
            f"({_told(Shape.of(facts))}): save a set from a run of this model"
        )
    require_units(chosen.units, facts, of)
    if chosen.fingerprint and chosen.fingerprint != facts.fingerprint:
        return f"{of} is of {chosen.model}, another model of the same shape: its units are taken by layer and number"
    return ""


def require_awake(chosen: UnitSet, widths: Sequence[int], facts: ModelFacts) -> None:
    """Raises `UsageError` for a unit beyond the units of its own layer, where layers differ: `widths` are theirs."""
    for one in chosen.units:
        if one.unit >= widths[one.layer]:
            raise UsageError(
                f"the set {quoted(chosen.name)} has {one}, and layer {one.layer} of {facts.name} has "
                f"{counted(widths[one.layer], 'unit')}"
            )


def _told(shape: Shape) -> str:
    experts = f", in experts of {max(shape.d_experts)}" if any(shape.d_experts) else ""
    return f"{counted(shape.n_layers, 'layer')} of {counted(shape.d_mlp, 'unit')}{experts}"

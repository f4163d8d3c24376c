"""The types that everything speaks in. Plain frozen values: no torch, no Streamlit, no database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from mmn.counts import counted
from mmn.errors import UsageError
from mmn.names import CONTRIBUTION, ORIGINAL

MOST_SEED: Final = 2**63 - 1  # that a table holds
_NEURON = re.compile(r"L(\d+)\.u(\d+)")
_IN_EXPERT = re.compile(r"L(\d+)\.e(\d+)\.u(\d+)")


@dataclass(frozen=True, order=True)
class Neuron:
    """FFN unit `unit` of decoder layer `layer`, both counted from 0; prints and parses as `L14.u2019`."""

    layer: int
    unit: int

    def __str__(self) -> str:
        return f"L{self.layer}.u{self.unit}"

    @classmethod
    def parse(cls, text: str) -> Self:
        match = _NEURON.fullmatch(text.strip())
        if match is None:
            raise UsageError(f"{text!r} is not a unit; write it as L14.u2019 (layer 14, unit 2019, both from 0)")
        return cls(int(match[1]), int(match[2]))


def unit_name(neuron: Neuron, d_experts: Sequence[int] = ()) -> str:
    """`L14.e3.u201` for unit 201 of expert 3 of a layer that has experts (`ModelFacts.d_experts`), else `L14.u2019`."""
    width = d_experts[neuron.layer] if len(d_experts) else 0
    return f"L{neuron.layer}.e{neuron.unit // width}.u{neuron.unit % width}" if width else str(neuron)


@dataclass(frozen=True, order=True)
class UnitOfExpert:
    """Unit `unit` of expert `expert` of a layer, `L14.e3.u201`: which it is in the layer depends on the model."""

    layer: int
    expert: int
    unit: int

    def __str__(self) -> str:
        return f"L{self.layer}.e{self.expert}.u{self.unit}"


def parse_unit(text: str) -> Neuron | UnitOfExpert:
    """A unit as people write it, before it is known whether the model has experts; `named_unit` finds it in one.

    Raises:
        UsageError: no name of a unit.
    """
    match = _IN_EXPERT.fullmatch(text.strip())
    return UnitOfExpert(*map(int, match.groups())) if match else Neuron.parse(text)


def named_unit(text: str, d_experts: Sequence[int] = ()) -> Neuron:
    """The unit that `unit_name` calls so; `L14.u2019`, flat in its layer, is understood in every model.

    Raises:
        UsageError: no name of a unit, or an expert in a layer that has none.
    """
    match = _IN_EXPERT.fullmatch(text.strip())
    if match is None:
        return Neuron.parse(text)
    layer, expert, unit = map(int, match.groups())
    width = d_experts[layer] if layer < len(d_experts) else 0
    if unit >= width:
        raise UsageError(f"{text!r} is not a unit: experts of layer {layer} have {counted(width, 'unit')}")
    return Neuron(layer, expert * width + unit)


@dataclass(frozen=True)
class Example:
    """One distinct picture of a source: `image_id` is the sha-256 of its file's bytes, `source` a path that opens it.

    `sources` lists every place where the same bytes were found, `references` the captions that people gave it.
    """

    image_id: str
    source: str
    sources: tuple[str, ...]
    width: int
    height: int
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """One picture that could not be used: `stage` is where (`open`), `error` the type, `message` the reason."""

    source: str
    stage: str
    error: str
    message: str

    @classmethod
    def of(cls, source: str, stage: str, error: Exception) -> Failure:
        """That of an error, by its kind and its words."""
        return cls(source, stage, type(error).__name__, str(error))


@dataclass(frozen=True)
class Concept:
    """A noun of a caption and the token whose logit stands for it (METHODS: Concepts).

    `position` counts generated tokens from 0: the forward pass that emits token `position` predicts `token_id`.
    `target_at` is None for a noun of the caption; for a word that the user chose it is the noun whose position it
    is scored at. `is_in_reference` is None when the picture has no (English) reference captions. `is_compound`: it is a
    part of a compound ("stop sign") at its first occurrence, `is_modifier`: one that stands before the head; both None
    in runs that did not look.
    """

    noun: str
    lemma: str
    n_mentions: int
    token_id: int
    position: int
    is_first: bool
    is_multi_token: bool
    is_shared_token: bool
    is_in_reference: bool | None
    target_at: str | None = None
    is_compound: bool | None = None
    is_modifier: bool | None = None


@dataclass(frozen=True)
class ModelFacts:
    """What a run must know of its model, and a reader of its tables too.

    `revision` is the commit that a hub's repository was fetched at, empty for any other model.
    `d_mlp` are the units of a layer, of the widest one where layers differ. `d_experts` are by layer the units of a
    routed expert, 0 in a layer without; () in a model that has none. `widths` are then the units of each layer; () in
    runs of before they were kept.
    """

    name: str
    fingerprint: str
    family: str
    n_layers: int
    d_mlp: int
    revision: str = ""
    d_experts: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()

    @property
    def n_units(self) -> int:
        """Flat indices, layer · m + i; all of them are units, where layers have one width."""
        return self.n_layers * self.d_mlp

    def require_layers(self, layers: Iterable[int]) -> None:
        """Raises `UsageError` for a layer that the model does not have; known of a run before its model is loaded."""
        if wrong := [layer for layer in layers if not 0 <= layer < self.n_layers]:
            raise UsageError(f"{self.name} has no layer {wrong[0]}: its layers are 0–{self.n_layers - 1}")


@dataclass(frozen=True)
class ScoreSettings:
    """Everything about a scoring run that can change a number, besides the model and the pictures.

    `effect_layers` are the first and the last layer whose units `effect` and `effect-prob` are measured of, () for all.
    """

    prompt: str
    methods: tuple[str, ...] = (CONTRIBUTION,)
    top_k: int = 1000
    bottom_k: int = 0
    targets: tuple[str, ...] = ()
    variants: tuple[str, ...] = (ORIGINAL,)
    answer_prefix: str = ""
    max_new_tokens: int = 50
    batch_size: int = 16
    dtype: str = "float32"
    device: str = "cpu"
    seed: int = 0
    effect_layers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Run:
    """A scoring run: its id is the hash of every input that can change a number (`runs.plan`).

    `images` is the source as the user wrote it, `prompt` the exact string given to the processor, image placeholder
    included; `created_at` is an ISO 8601 time in UTC. `proof` holds the errors of the checks that the model passed
    before it was scored (`runs.proof`), by name; runs of before there were such are without.
    """

    run_id: str
    created_at: str
    model: ModelFacts
    images: str
    prompt: str
    settings: ScoreSettings
    versions: dict[str, str] = field(hash=False)
    proof: dict[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `status` is one of `names.RUN_STATES` but `running`."""

    status: str
    finished_at: str
    seconds: float

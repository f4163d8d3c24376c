"""Which method finds the units that matter? The protocol, from pictures to a table.

    pictures (`pictures`) ─► units planted in a copy (`planting`) ─► each judged picture told by the copy (`told`)
      ─► what zeroing does everywhere, what planted units do (`yardstick`, `verify`)   else nothing is judged
      ─► every score's rankings, or a submission's (`ranked`, `submission`) ─► judged (`judging`) ─► means, intervals

Everything is kept in the cache as it is found, by picture and score, under a hash of all that can change a number: the
same call again goes on where it was, and gives the same numbers. Seconds are the processor's and stand apart from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from mmn import names
from mmn.core import Example, Neuron, ScoreSettings
from mmn.errors import UsageError
from mmn.images import list_source
from mmn.models.gates import readers
from mmn.models.image_tokens import require_image_tokens
from mmn.models.model import Model
from mmn.reading.synonyms import shipped_synonyms
from mmn.runs.plan import Progress, ProgressCallback
from mmn.studies.bench.judging import Scene, Values, judge, over_shuffled
from mmn.studies.bench.kept import Kept, Soil
from mmn.studies.bench.pictures import PROTOCOL, Split, split
from mmn.studies.bench.planting import plant
from mmn.studies.bench.ranked import Cost, methods_of, rank
from mmn.studies.bench.rankings import Ranking
from mmn.studies.bench.result import ROLE_WORDS
from mmn.studies.bench.submission import Key
from mmn.studies.bench.told import Told, of_objects, tell
from mmn.studies.bench.usual import N_BUILT, N_JUDGED, N_NOUNS, N_SAMPLED
from mmn.studies.bench.verify import Evidence, Verified, evidence, verify
from mmn.studies.bench.yardstick import effects, mean_activations, read_again, sampled
from mmn.units.masks import MaskSource, open_masks

STAGE: Final = "bench"
MOST_NOUNS: Final = 3  # of a picture
SUBMISSION: Final = "submission"


@dataclass(frozen=True)
class Asked:
    """All that can change a number, besides the model.

    `effect_layers` change what `effect` and `effect-prob` rank, `without` which roles rankings are judged by; neither
    changes what is planted, or what zeroing units does.
    """

    images: str = "gallery"
    n_nouns: int = N_NOUNS
    n_judged: int = N_JUDGED
    n_built: int = N_BUILT
    n_sampled: int = N_SAMPLED
    effect_layers: tuple[int, ...] = field(default=(), repr=False)
    without: tuple[str, ...] = field(default=(), repr=False)

    @property
    def plants(self) -> bool:
        """Whether any role is judged by; else nothing is planted at all."""
        return not set(ROLE_WORDS) <= set(self.without)


@dataclass(frozen=True)
class Material:
    """What a benchmark is of, known before a model is loaded: the pictures, and the masks of their objects."""

    split: Split
    masks: MaskSource

    @classmethod
    def of(cls, asked: Asked, cache_path: Path) -> Material:
        """The pictures of the protocol.

        Raises:
            SourceError: no such pictures, or no masks of them.
            UsageError: too few pictures with masks.
        """
        listing = list_source(asked.images, work_path=cache_path / "images")
        masks = replace(open_masks(asked.images, listing.examples), synonyms=shipped_synonyms())
        return cls(split(listing.examples, masks, asked.n_nouns, asked.n_judged, asked.n_built), masks)


@dataclass(frozen=True)
class Judged:
    """What was found: by picture and method its values, and what it took; and what planted units do."""

    model: str
    n_layers: int
    d_mlp: int
    asked: Asked
    nouns: tuple[str, ...]
    n_questions: int
    verified: tuple[Verified, ...]
    values: Mapping[tuple[str, str], Values]  # by picture and method
    costs: Mapping[tuple[str, str], Cost] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """A benchmark of one model, ready to judge rankings."""

    asked: Asked
    model: Model
    split: Split
    masks: MaskSource
    kept: Kept
    soil: Soil
    progress: ProgressCallback

    @classmethod
    def prepare(
        cls,
        model: Model,
        asked: Asked,
        cache_path: Path,
        progress: ProgressCallback,
        material: Material | None = None,
    ) -> Bench:
        """Plants the units, or takes what was planted before.

        Args:
            model: to be judged on.
            asked: what can change a number.
            cache_path: where what is found is kept.
            progress: told of what takes long.
            material: of `asked`, where it was looked up before the model was loaded.

        Raises:
            UsageError: a model without image tokens; too few pictures with masks.
            UnsupportedModelError: its FFNs are not such that units can be planted.
            ModelError: it does not say the nouns of the pictures.
        """
        require_image_tokens(model, "mmn bench")
        readers(model)
        material = material or Material.of(asked, cache_path)
        found, masks = material.split, material.masks
        inputs = [PROTOCOL, model.facts.fingerprint, asked, found.identity, model.dtype, masks.synonyms.digest]
        kept = Kept.of(cache_path, inputs if asked.plants else [*inputs, "nothing planted"])
        soil = kept.soil()
        if soil is None:
            soil = _planted(model, found, masks, found.nouns if asked.plants else (), progress)
            kept.keep_soil(soil)
        return cls(asked, soil.put_into(model), found, masks, kept, soil, progress)

    @cached_property
    def pictures(self) -> tuple[Told, ...]:
        """The judged pictures, as the copy with planted units tells them; those that name an object."""
        told = [_tell(self.model, example, self.masks) for example in self._each(self.split.judged, "captions")]
        return tuple(one for one in told if of_objects(one, MOST_NOUNS))

    @property
    def questions(self) -> list[Key]:
        """Every picture and noun that a ranking is of."""
        return [
            (told.example.image_id, concept.noun) for told in self.pictures for concept in of_objects(told, MOST_NOUNS)
        ]

    @cached_property
    def units(self) -> tuple[Neuron, ...]:
        """The units whose effects are measured everywhere: the planted ones, and a sample of the others."""
        planted = [one.unit for one in self.soil.planted]
        among = sampled(self.model.anatomy.n_layers, self.model.anatomy.d_mlp, self.asked.n_sampled)
        return tuple(dict.fromkeys([*planted, *among]))

    @cached_property
    def measured(self) -> dict[str, np.ndarray]:
        """By picture what zeroing each of `units` takes from each noun."""
        found = {}
        for told in self._each(self.pictures, "effects of single units"):
            image_id = told.example.image_id
            there = self.kept.effects(image_id)
            if there is None:
                there = self._effects(told, self.units)
                self.kept.keep_effects(image_id, there)
            found[image_id] = there
        return found

    @cached_property
    def verified(self) -> tuple[Verified, ...]:
        """Whether planted units do what they should; raises `ModelError` where too few do.

        Planted units are asked first, alone: where they fail, the hundreds of others need not be measured.
        """
        if not self.soil.planted:
            return ()
        planted = tuple(one.unit for one in self.soil.planted)
        if any(self.kept.effects(told.example.image_id) is None for told in self.pictures):
            self._verify(planted, [self._effects(told, planted) for told in self._each(self.pictures, "planted units")])
        return self._verify(self.units, [self.measured[told.example.image_id] for told in self.pictures])

    def _effects(self, told: Told, units: Sequence[Neuron]) -> np.ndarray:
        return effects(read_again(self.model, told), told, of_objects(told, MOST_NOUNS), units)

    def _verify(self, units: Sequence[Neuron], tables: Sequence[np.ndarray]) -> tuple[Verified, ...]:
        seen = [self._evidence(told, units, table) for told, table in zip(self.pictures, tables, strict=True)]
        return verify(self.soil.planted, seen, self.asked.without)

    def _evidence(self, told: Told, units: Sequence[Neuron], table: np.ndarray) -> Evidence:
        said = list(enumerate(of_objects(told, MOST_NOUNS)))
        of_noun = {
            (str(told.object_of(concept)), unit): float(table[row, column])
            for row, concept in reversed(said)  # of two nouns for one object the first
            for column, unit in enumerate(units)
        }
        return evidence(self.model, told, read_again(self.model, told), self.soil.planted, of_noun)

    def scene(self, told: Told) -> Scene:
        """A picture as it is judged."""
        planted = tuple(one.planted for one in self.verified if one.holds)
        return Scene(
            self.model,
            told,
            read_again(self.model, told),
            tuple(of_objects(told, MOST_NOUNS)),
            self.units,
            self.measured[told.example.image_id],
            planted,
            self.soil.means,
        )

    def judge(self, methods: Sequence[str], submission: Mapping[Key, Ranking] | None = None) -> Judged:
        """Every method's values, and those of a submission beside them."""
        values: dict[tuple[str, str], Values] = {}
        costs: dict[tuple[str, str], Cost] = {}
        _ = self.verified  # before anything is judged
        for told in self._each(self.pictures, "rankings"):
            image_id = told.example.image_id
            missing = [method for method in methods if self._kept(image_id, method) is None]
            if missing:
                self._judge_picture(told, missing)
            for method in methods:
                found = self._kept(image_id, method)
                assert found is not None, (image_id, method)
                values[image_id, method], costs[image_id, method] = found
            if submission is not None:
                scene = self.scene(told)
                rankings = [submission[image_id, concept.noun] for concept in scene.concepts]
                values[image_id, SUBMISSION] = judge(scene, SUBMISSION, rankings, None)
        facts, nouns, n = self.model.facts, self.split.nouns, len(self.questions)
        return Judged(facts.name, facts.n_layers, facts.d_mlp, self.asked, nouns, n, self.verified, values, costs)

    def _judge_picture(self, told: Told, methods: Sequence[str]) -> None:
        scene = self.scene(told)
        settings = ScoreSettings(prompt="", methods=tuple(methods), effect_layers=self.asked.effect_layers)
        again = over_shuffled(scene, [method for method in methods if not is_costly(method)], settings)
        for method in methods:
            rankings, cost = rank(self.model, told, scene.concepts, method, settings)
            found = judge(scene, method, rankings, again.get(method))
            self.kept.keep_values(told.example.image_id, self._kept_as(method), found, cost)

    def _kept(self, image_id: str, method: str) -> tuple[Values, Cost] | None:
        return self.kept.values(image_id, self._kept_as(method))

    def _kept_as(self, method: str) -> str:
        """A score's name, with its layers where it is of some alone, and the roles that it is not judged by."""
        layers = names.chosen_layers(method, {"effect_layers": self.asked.effect_layers})
        parts = [method] if layers is None else [method, "of", f"{layers[0]:d}", f"{layers[-1]:d}"]
        return "-".join([*parts, *(["without", *self.asked.without] if self.asked.without else [])])

    def _each(self, things: Sequence, what: str) -> Iterator:
        for done, thing in enumerate(things):
            self.progress(Progress(STAGE, done, len(things), what))
            yield thing
        self.progress(Progress(STAGE, len(things), len(things), what))


def checked_methods(model: Model, methods: Sequence[str] | None) -> tuple[str, ...]:
    """The methods to judge: those asked for, or all that the model has.

    Raises:
        UsageError: one that there is none of.
    """
    there = methods_of(model)
    if unknown := [method for method in methods or () if method not in there]:
        raise UsageError(f"--methods {unknown[0]}: {model.facts.name} has {', '.join(there)}")
    return tuple(methods or there)


def is_costly(method: str) -> bool:
    """Whether a score takes so long that it is not computed a second time, over shuffled tokens."""
    return bool(names.METHODS[method].cost)


def _tell(model: Model, example: Example, masks: MaskSource) -> Told:
    return tell(model, example, masks, model.exact_prompt(model.default_prompt))


def _planted(model: Model, found: Split, masks: MaskSource, nouns: Sequence[str], progress: ProgressCallback) -> Soil:
    built = []
    for done, example in enumerate(found.built):
        progress(Progress(STAGE, done, len(found.built), "captions to build on"))
        built.append(_tell(model, example, masks))

    def tell_layer(done: int, total: int) -> None:
        progress(Progress(STAGE, done, total, "planting"))

    copied, planted = plant(model, built, nouns, tell_layer)
    return Soil.of(copied, planted, mean_activations(copied, built))

"""How well does a ranking find the units that matter? One picture, every measure; the mean over its nouns.

    planted   recall of writer, helper and seer among the first k; decoys among them; the suppressor among the last
    place     of each role's unit
    effects   agreement with what zeroing does everywhere
    curves    areas between ablation curves and their controls
    objects   IoU of the first units' maps with the object, minus that of random units of the same layers
    shuffled  overlap with the ranking over shuffled image tokens, minus that with the picture's other nouns

OURS; `docs/methods.md` has the definitions. What a ranking has no value in (no other noun, a noun that is not said over
the shuffled tokens, nothing planted for the picture's nouns) is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmn import names
from mmn.core import Concept, Neuron, ScoreSettings
from mmn.models.model import Model
from mmn.reading.captions import caption_encoded
from mmn.reading.concepts import find_concepts
from mmn.reading.hooks import capture_units
from mmn.reading.hooks.streams import Replayed
from mmn.studies.bench.ranked import of_batch
from mmn.studies.bench.rankings import Ranking
from mmn.studies.bench.roles import DECOYS, NAMED, ROLES, SUPPRESSOR, WANTED, Planted, Role
from mmn.studies.bench.told import MOST_TOKENS, Told
from mmn.studies.bench.verify import has_effect
from mmn.studies.bench.yardstick import KINDS, curves, ks
from mmn.studies.invariance.region import shuffling
from mmn.units.heat_maps import Mask, heat_map, iou, mask_at
from mmn.units.matched import matched_units

SHARE: Final = 0.01  # of all units: the k of decoys, suppressors and shuffled pictures
N_LOOKING: Final = 10  # units whose maps are compared with objects
SHUFFLED: Final = names.SHUFFLED + "0"
Values = dict[str, float]


@dataclass(frozen=True)
class Scene:
    """One picture as it is judged.

    Attributes:
        model: with planted units.
        told: the picture.
        replayed: its pass.
        concepts: the nouns that rankings are of.
        measured: the units whose effects were measured everywhere.
        effects: of each noun and unit.
        planted: the units whose roles hold.
        means: of each unit, for ablation by the mean.
    """

    model: Model
    told: Told
    replayed: Replayed
    concepts: tuple[Concept, ...]
    measured: tuple[Neuron, ...]
    effects: Float[np.ndarray, "concepts units"]
    planted: tuple[Planted, ...]
    means: Float[Tensor, "L m"]

    def flat(self, unit: Neuron) -> int:
        return unit.layer * self.model.anatomy.d_mlp + unit.unit

    def by_role(self, concept: Concept) -> dict[str, int]:
        """The planted units of a noun whose effect in this picture is what their roles say, by the names of these."""
        own = [one for one in self.planted if one.noun == self.told.object_of(concept)]
        here = self.effects[self.concepts.index(concept)]
        found = {one: float(here[self.measured.index(one.unit)]) for one in own}
        return {one.role: self.flat(one.unit) for one, size in found.items() if has_effect(NAMED[one.role], size)}


def ks_of_recall(n_units: int) -> dict[str, int]:
    """The k of recalls, by the name of the measure."""
    one, ten = max(1, round(SHARE * n_units)), max(1, round(10 * SHARE * n_units))
    return {"recall@3": len(WANTED), "recall@1%": one, "recall@10%": ten}


def judge(scene: Scene, method: str, rankings: Sequence[Ranking], shuffled: Mapping[str, Ranking] | None) -> Values:
    """Every measure of one picture, the mean over its nouns.

    Args:
        scene: the picture.
        method: its name is part of what controls are drawn for.
        rankings: of each of the scene's nouns.
        shuffled: by lemma those over the shuffled tokens; None where nobody has them.
    """
    rows = []
    for place, (concept, ranking) in enumerate(zip(scene.concepts, rankings, strict=True)):
        row = of_planted(scene.by_role(concept), ranking)
        row["agreement"] = ranking.agreement(
            np.array([scene.flat(one) for one in scene.measured]), scene.effects[place]
        )
        row |= of_curves(scene, concept, ranking, method)
        row["iou"] = of_object(scene, concept, ranking, method)
        row["kept"] = of_shuffled(scene, place, rankings, shuffled)
        rows.append(row)
    return {name: _mean([row[name] for row in rows]) for name in rows[0]}


def of_planted(by_role: Mapping[str, int], ranking: Ranking) -> Values:
    """What stands where of the units planted for a noun, as flat indices by the names of their roles."""
    k = max(1, round(SHARE * ranking.n_units))
    wanted, decoys, suppressor = (_there(by_role, roles) for roles in (WANTED, DECOYS, (SUPPRESSOR,)))
    found = {name: ranking.recall(wanted, n) for name, n in ks_of_recall(ranking.n_units).items()}
    found["decoys@1%"] = ranking.recall(decoys, k)
    found["suppressor@1%"] = ranking.recall_from_end(suppressor, k)
    for role in ROLES:
        found[f"place {role.name}"] = ranking.place(by_role[role.name]) if role.name in by_role else float("nan")
    return found


def _there(by_role: Mapping[str, int], roles: Sequence[Role]) -> list[int]:
    return [by_role[role.name] for role in roles if role.name in by_role]


def of_curves(scene: Scene, concept: Concept, ranking: Ranking, method: str) -> Values:
    """The areas between the curves of the first units and of random ones of the same layers."""
    anatomy = scene.model.anatomy
    first = [Neuron(*divmod(int(unit), anatomy.d_mlp)) for unit in ranking.units[: ks(ranking.n_units)[-1]]]
    key = ["bench", method, scene.told.example.image_id, concept.lemma]
    control = matched_units(anatomy, first, key)
    units, others = (torch.tensor([scene.flat(one) for one in some]) for some in (first, control))
    found = curves(scene.replayed, scene.told, concept, units, others, scene.means)
    return {f"area {kind}": found.area(kind) for kind in KINDS}


def of_object(scene: Scene, concept: Concept, ranking: Ranking, method: str) -> float:
    """How much better the first units' maps fit the object than those of random units of the same layers do."""
    own = scene.told.masks.get(scene.told.object_of(concept) or "")
    if own is None:
        return float("nan")
    anatomy = scene.model.anatomy
    first = [Neuron(*divmod(int(unit), anatomy.d_mlp)) for unit in ranking.units[:N_LOOKING]]
    control = matched_units(anatomy, first, ["bench-look", method, scene.told.example.image_id, concept.lemma])
    units = list(dict.fromkeys([*first, *control]))
    fits = dict(zip(units, _fits(scene, units, own), strict=True))
    return _mean([fits[one] for one in first]) - _mean([fits[one] for one in control])


@torch.inference_mode()
def _fits(scene: Scene, units: Sequence[Neuron], own: Mask) -> list[float]:
    """The IoU of each unit's map with an object."""
    with capture_units(scene.model, units) as captured:
        scene.replayed.again(1)
    values = captured.read()[0, torch.nonzero(scene.told.is_image)[:, 0]].T.cpu().numpy()
    size = own.shape[1], own.shape[0]
    return [iou(mask_at(heat_map(one, scene.told.grids, size)), own) for one in values]


def of_shuffled(scene: Scene, place: int, rankings: Sequence[Ranking], shuffled: Mapping[str, Ranking] | None) -> float:
    """The overlap with the noun's ranking over shuffled tokens, minus the mean overlap with the other nouns'."""
    again = (shuffled or {}).get(scene.concepts[place].lemma)
    others = [one for number, one in enumerate(rankings) if number != place]
    if again is None or not others:
        return float("nan")
    k = max(1, round(SHARE * rankings[place].n_units))
    return rankings[place].overlap(again, k) - _mean([rankings[place].overlap(one, k) for one in others])


def over_shuffled(scene: Scene, methods: Sequence[str], settings: ScoreSettings) -> dict[str, dict[str, Ranking]]:
    """By method and lemma the rankings over shuffled image tokens, of the nouns that are said there, too."""
    model, told = scene.model, scene.told
    around = shuffling(model, told.inputs, [(settings.seed, told.example.image_id, SHUFFLED)])
    batch = caption_encoded(model, told.inputs, MOST_TOKENS, names.reads_act(methods), around)
    lemmas = {one.lemma for one in scene.concepts}
    said = [one for one in find_concepts(batch.captions[0], told.example.references) if one.lemma in lemmas]
    if not said:
        return {method: {} for method in methods}
    return {
        method: {
            concept.lemma: ranking
            for concept, ranking in zip(
                said, of_batch(model, batch, told, said, method, settings, SHUFFLED), strict=True
            )
        }
        for method in methods
    }


def _mean(values: Sequence[float]) -> float:
    """The mean of what is there; NaN of nothing."""
    there = [value for value in values if not np.isnan(value)]
    return float(np.mean(there)) if there else float("nan")

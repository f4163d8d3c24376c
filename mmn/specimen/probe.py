"""What is in a frozen encoder's features at all: a linear probe, the ceiling of a map that is trained on them.

Ridge regression of every place's state onto the nouns of its scene's caption, in closed form; the nouns of a scene are
the k with the largest mean over their three best places, k as many as it shows. The scene's own place (desert, beach,
room, …) is read from the mean and the maximum of the states over the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmn.specimen.evaluate import objects_in
from mmn.specimen.features import Features, moments
from mmn.specimen.world import NOUNS, PLACES, Scene

PENALTY = 0.05  # of features whose variance is 1
LEAST_SPREAD = 1e-2
BEST_PLACES = 3
BATCH = 500


@dataclass(frozen=True)
class Probe:
    """Scores of every noun from states: `((states − mean) / spread) @ weight`."""

    mean: Float[Tensor, " d"]
    spread: Float[Tensor, " d"]
    weight: Float[Tensor, "d nouns"]

    def scores(self, states: Float[Tensor, "scenes places d"]) -> Float[Tensor, "scenes nouns"]:
        placed = (states.float() - self.mean) / self.spread @ self.weight
        return placed.topk(BEST_PLACES, dim=1).values.mean(1)


def fit_probe(features: Features) -> Probe:
    """The ridge solution over all places of all scenes."""
    named = torch.zeros(len(features), len(NOUNS))
    for row, caption in enumerate(features.captions):
        named[row, [NOUNS.index(noun) for noun in objects_in(caption)]] = 1
    batches = [slice(start, start + BATCH) for start in range(0, len(features), BATCH)]
    mean, spread = moments(features.states, LEAST_SPREAD)
    d, n_rows = len(mean), features.states.shape[0] * features.states.shape[1]
    products, targets = torch.zeros(d, d), torch.zeros(d, len(NOUNS))
    for rows in batches:
        states = (features.states[rows].float() - mean) / spread
        flat = states.flatten(0, 1)
        products += flat.T @ flat
        targets += states.sum(1).T @ (named[rows] - named.mean(0))
    weight = torch.linalg.solve(products / n_rows + PENALTY * torch.eye(d), targets / n_rows)
    return Probe(mean, spread, weight)


def probe_recall(probe: Probe, states: Float[Tensor, "scenes places d"], scenes: Sequence[Scene]) -> float:
    """Share of the nouns that scenes show, each kind once, among the k best of each scene."""
    found = total = 0
    for scores, scene in zip(probe.scores(states), scenes, strict=True):
        shown = {NOUNS.index(noun) for noun in scene.nouns}
        found += len(shown & set(scores.topk(len(shown)).indices.tolist()))
        total += len(shown)
    return found / total


def place_accuracy(
    features: Features, scenes_of: Mapping[str, Float[Tensor, "scenes places d"]], scenes: Sequence[Scene]
) -> dict[str, float]:
    """Share of scenes whose place a ridge regression finds, by style; fitted on `features`."""
    names = list(PLACES)
    pooled = _pooled(features.states)
    mean, spread = pooled.mean(0), pooled.std(0).clamp(min=LEAST_SPREAD)
    x = (pooled - mean) / spread
    y = F.one_hot(torch.tensor([_place(names, caption) for caption in features.captions]), len(names)).float()
    products = x.T @ x / len(x) + PENALTY * torch.eye(x.shape[1])
    weight = torch.linalg.solve(products, x.T @ (y - y.mean(0)) / len(x))
    wanted = torch.tensor([names.index(scene.place) for scene in scenes])
    found = {
        style: ((_pooled(states) - mean) / spread @ weight + y.mean(0)).argmax(1) for style, states in scenes_of.items()
    }
    return {style: (places == wanted).float().mean().item() for style, places in found.items()}


def _pooled(states: Float[Tensor, "scenes places d"]) -> Float[Tensor, "scenes twice_d"]:
    parts = [torch.cat([one.float().mean(1), one.float().amax(1)], dim=1) for one in states.split(BATCH)]
    return torch.cat(parts)


def _place(names: list[str], caption: str) -> int:
    """The place that a caption ends in."""
    return max(range(len(names)), key=lambda number: caption.rfind(names[number]))

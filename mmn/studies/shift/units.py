"""What a noun's layers and units write in two models: rows of `shift_layer` and `shift_unit`.

layers  ‖Δ of what a layer's units write together‖, as a share of what they wrote; beside it the same between two
        pictures of the noun
units   ‖mean of what it writes, other − first‖, most first; beside it the same under random signs by picture
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmn.core import Neuron
from mmn.models.model import Model
from mmn.statistics.intervals import ANYWHERE, mean_intervals
from mmn.studies.shift.states import Columns, Pair
from mmn.units.decoding import Vocabulary, texts_of
from mmn.units.top_tokens import top_tokens

DRAWS: Final = 20  # of signs
N_UNITS: Final = 30
TOKENS: Final = 5


@dataclass(frozen=True)
class Products:
    """Of every unit ‖w‖², ‖w'‖² and w · w' of its two columns of W_out, in float64."""

    first: Float[np.ndarray, "L m"]
    second: Float[np.ndarray, "L m"]
    both: Float[np.ndarray, "L m"]

    @property
    def change(self) -> Float[np.ndarray, "L m"]:
        """‖w' − w‖ / ‖w‖."""
        squared = np.maximum(self.first + self.second - 2 * self.both, 0)
        return np.sqrt(squared / np.maximum(self.first, np.finfo(float).tiny))

    @property
    def cosine(self) -> Float[np.ndarray, "L m"]:
        """Of the two columns; 0 where one is of zeros."""
        return self.both / np.sqrt(np.maximum(self.first * self.second, np.finfo(float).tiny))

    def written(self, a: Float[np.ndarray, "L m"], after: Float[np.ndarray, "L m"]) -> Float[np.ndarray, "L m"]:
        """‖a' w' − a w‖."""
        squared = after**2 * self.second + a**2 * self.first - 2 * a * after * self.both
        return np.sqrt(np.maximum(squared, 0))


def products(columns: Columns, model: Model) -> Products:
    parts: list[list[np.ndarray]] = [[], [], []]
    for layer, column in enumerate(columns.by_layer):
        one, other = column.double(), model.anatomy.w_out(layer).cpu().double()
        for part, (left, right) in zip(parts, ((one, one), (other, other), (one, other)), strict=True):
            part.append((left * right).sum(0).numpy())
    return Products(*(np.stack(part) for part in parts))


def layer_rows(pair: Pair) -> Iterator[dict[str, Any]]:
    """Of each picture and layer: how much of what the layer's units write together is another, as a share."""
    n = len(pair.first.residual)
    cycle = np.random.default_rng(pair.seed).permutation(n)
    partner = np.empty(n, dtype=int)
    partner[cycle] = np.roll(cycle, -1)
    for layer, column in enumerate(pair.columns.by_layer):
        before = (pair.first.activations[:, layer] @ column.float().T).numpy()
        theirs = pair.model.anatomy.w_out(layer).float().cpu()
        after = (pair.second.activations[:, layer] @ theirs.T).numpy()
        length = np.maximum(np.linalg.norm(before, axis=1), np.finfo(np.float32).tiny)
        change = np.linalg.norm(after - before, axis=1) / length
        control = np.linalg.norm(before[partner] - before, axis=1) / length
        for row, image_id in enumerate(pair.image_ids):
            yield pair.key | {
                "image_id": image_id,
                "layer": layer,
                "change": float(change[row]),
                "change_control": float(control[row]),
            }


def unit_rows(pair: Pair, overlaps: Products) -> Iterator[dict[str, Any]]:
    """The units of which most is another: what they write on average, other less first."""
    a, after = (read.activations.double().numpy() for read in (pair.first, pair.second))
    written = overlaps.written(a.mean(0), after.mean(0))
    noise = _noise(overlaps, a, after, pair.seed)
    best = np.argsort(-written, axis=None, kind="stable")[:N_UNITS]
    best = best[written.ravel()[best] > 0]
    units = [Neuron(int(layer), int(unit)) for layer, unit in zip(*np.unravel_index(best, written.shape), strict=True)]
    tokens = _tokens(pair, units)
    changes = np.stack([(after - a)[:, unit.layer, unit.unit] for unit in units], axis=1) if units else a[:, 0, :0]
    _, low, high = mean_intervals(changes, ANYWHERE)
    for rank, unit in enumerate(units):
        at = unit.layer, unit.unit
        yield pair.key | {
            "layer": unit.layer,
            "unit": unit.unit,
            "rank": rank + 1,
            "written": float(written[at]),
            "noise": float(noise[at]),
            "column_change": float(overlaps.change[at]),
            "activation": float(a.mean(0)[at]),
            "activation_other": float(after.mean(0)[at]),
            "low": None if np.isnan(low[rank]) else float(low[rank]),
            "high": None if np.isnan(high[rank]) else float(high[rank]),
            "tokens": tokens[0][rank],
            "tokens_other": tokens[1][rank],
        }


def _noise(
    overlaps: Products, a: Float[np.ndarray, "n L m"], after: Float[np.ndarray, "n L m"], seed: int
) -> Float[np.ndarray, "L m"]:
    """The same under a random sign for each picture, on average over draws: what pictures alone would give."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(DRAWS, len(a))) / len(a)
    means = ((np.tensordot(sign, a, 1), np.tensordot(sign, after, 1)) for sign in signs)
    return np.mean([overlaps.written(*pair) for pair in means], axis=0)


def _tokens(pair: Pair, units: Sequence[Neuron]) -> tuple[list[list[str]], list[list[str]]]:
    """What each unit's column says most, the first model's and the other's, both by the other's unembedding."""
    if not units:
        return [], []
    ours = torch.stack([pair.columns.by_layer[unit.layer][:, unit.unit] for unit in units])
    theirs = torch.stack([pair.model.anatomy.w_out(unit.layer)[:, unit.unit] for unit in units])
    return _top_tokens(pair.model, ours), _top_tokens(pair.model, theirs)


@torch.inference_mode()
def _top_tokens(model: Model, columns: Float[Tensor, "n d"]) -> list[list[str]]:
    texts = texts_of(model.tokenizer)
    vocabulary = Vocabulary.of(texts, model.anatomy.unembedding.weight)
    found: list[list[str]] = []
    for _, block in vocabulary.project(columns.to(model.device), vocabulary.memory(len(columns))):
        ids = top_tokens(block, TOKENS).token_ids.cpu().numpy()
        found += np.array(texts.read(ids)[0].to_pylist(), dtype=object).reshape(ids.shape).tolist()
    return found

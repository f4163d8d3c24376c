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
from jaxtyping import Float, Int
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
    """Of units ‖w‖², ‖w'‖² and w · w' of their two columns of W_out, in float64."""

    first: Float[np.ndarray, " units"]
    second: Float[np.ndarray, " units"]
    both: Float[np.ndarray, " units"]

    @property
    def change(self) -> Float[np.ndarray, " units"]:
        """‖w' − w‖ / ‖w‖."""
        squared = np.maximum(self.first + self.second - 2 * self.both, 0)
        return np.sqrt(squared / np.maximum(self.first, np.finfo(float).tiny))

    @property
    def cosine(self) -> Float[np.ndarray, " units"]:
        """Of the two columns; 0 where one is of zeros."""
        return self.both / np.sqrt(np.maximum(self.first * self.second, np.finfo(float).tiny))

    def of(self, places: Int[np.ndarray, " k"]) -> Products:
        """Those of some of the units."""
        return Products(self.first[places], self.second[places], self.both[places])

    def written(
        self, a: Float[np.ndarray, " units"], after: Float[np.ndarray, " units"]
    ) -> Float[np.ndarray, " units"]:
        """‖a' w' − a w‖."""
        squared = after**2 * self.second + a**2 * self.first - 2 * a * after * self.both
        return np.sqrt(np.maximum(squared, 0))


def products(columns: Columns, model: Model) -> Products:
    """Of every unit, those of a layer behind those of the layer before."""
    parts: list[list[np.ndarray]] = [[], [], []]
    for layer, column in enumerate(columns.by_layer):
        one, other = column.double(), model.anatomy.w_out(layer).cpu().double()
        for part, (left, right) in zip(parts, ((one, one), (other, other), (one, other)), strict=True):
            part.append((left * right).sum(0).numpy())
    return Products(*map(np.concatenate, parts))


def layer_rows(pair: Pair) -> Iterator[dict[str, Any]]:
    """Of each picture and layer: how much of what the layer's units write together is another, as a share."""
    n = len(pair.first.residual)
    cycle = np.random.default_rng(pair.seed).permutation(n)
    partner = np.empty(n, dtype=int)
    partner[cycle] = np.roll(cycle, -1)
    d_mlp, (a, a_after) = pair.model.facts.d_mlp, pair.both
    for layer, column in enumerate(pair.columns.by_layer):
        there = pair.flat // d_mlp == layer
        units = pair.flat[there] % d_mlp
        theirs = pair.model.anatomy.columns(layer, units).float().cpu() if len(units) else column[:, :0].float()
        before = (a[:, there] @ column[:, units].float().T).numpy()
        after = (a_after[:, there] @ theirs.T).numpy()
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
    a, after = (values.double().numpy() for values in pair.both)
    layers, numbers = np.divmod(pair.flat.numpy(), pair.model.facts.d_mlp)
    overlaps = overlaps.of(np.cumsum([0, *pair.model.anatomy.widths])[layers] + numbers)
    written = overlaps.written(a.mean(0), after.mean(0))
    noise = _noise(overlaps, a, after, pair.seed)
    best = np.argsort(-written, kind="stable")[:N_UNITS]
    best = best[written[best] > 0]
    units = [Neuron(int(layers[at]), int(numbers[at])) for at in best]
    tokens = _tokens(pair, units)
    _, low, high = mean_intervals((after - a)[:, best], ANYWHERE)
    for rank, (at, unit) in enumerate(zip(best.tolist(), units, strict=True)):
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
    overlaps: Products, a: Float[np.ndarray, "n k"], after: Float[np.ndarray, "n k"], seed: int
) -> Float[np.ndarray, " k"]:
    """The same under a random sign for each picture, on average over draws: what pictures alone would give."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(DRAWS, len(a))) / len(a)
    return np.mean([overlaps.written(sign @ a, sign @ after) for sign in signs], axis=0)


def _tokens(pair: Pair, units: Sequence[Neuron]) -> tuple[list[list[str]], list[list[str]]]:
    """What each unit's column says most, the first model's and the other's, both by the other's unembedding."""
    if not units:
        return [], []
    anatomy = pair.model.anatomy
    ours = torch.stack([pair.columns.by_layer[unit.layer][:, unit.unit] for unit in units])
    theirs = torch.cat([anatomy.columns(unit.layer, torch.tensor([unit.unit])) for unit in units], dim=1).T
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

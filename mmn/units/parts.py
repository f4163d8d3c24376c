"""Among which units chance is taken: those of a layer, in a mixture of experts those of the same expert.

Rankings share units wherever both woke an expert, which is the router's doing. Random units that are as many in each
expert as the rankings have there share what routing alone explains (OURS).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Parts:
    """Of each flat unit its part; of each part its size, and its layer."""

    of_unit: Int[np.ndarray, " units"]
    sizes: Int[np.ndarray, " parts"]
    layers: Int[np.ndarray, " parts"]

    def expected_shares(
        self, first: Int[np.ndarray, "pairs K"], second: Int[np.ndarray, "pairs K2"], ks: Sequence[int]
    ) -> Float[np.ndarray, "pairs ks"]:
        """What random units share that are as many in each part as the first k of each of two rankings are, / k."""
        return np.array(
            [
                [self.expected([one[:k], other[:k]]).sum() / k for k in ks]
                for one, other in zip(first, second, strict=True)
            ]
        )

    def expected(self, ranked: Sequence[Int[np.ndarray, " _"]]) -> Float[np.ndarray, " parts"]:
        """How many units of each part independent draws have in common, as many there as each of the lists; -1 is none.

        m · Π_i (k_i / m), of a part's m units.
        """
        return self.sizes * np.prod([self._counts(one) / self.sizes for one in ranked], axis=0)

    def _counts(self, units: Int[np.ndarray, " k"]) -> Int[np.ndarray, " parts"]:
        return np.bincount(self.of_unit[units[units >= 0]], minlength=len(self.sizes))


def layers_alike(n_layers: int, d_mlp: int) -> Parts:
    """Each layer is a part."""
    layers = np.arange(n_layers)
    return Parts(np.repeat(layers, d_mlp), np.full(n_layers, d_mlp), layers)


def parts_of(widths: Sequence[int], d_experts: Sequence[int]) -> Parts:
    """The experts of all layers, numbered as `score.expert` numbers them within a layer; one part where there are none.

    Args:
        widths: by layer its units; the widest tells where the next layer's flat units begin.
        d_experts: by layer the units of an expert, 0 in a layer without.
    """
    d_mlp = max(widths)
    number = np.zeros((len(widths), d_mlp), np.int64)
    for layer, d_expert in enumerate(d_experts):
        number[layer] = np.arange(d_mlp) // (d_expert or d_mlp)
    n_most = number.max() + 1
    of_layer = number + np.arange(len(widths))[:, None] * n_most
    is_unit = np.arange(d_mlp) < np.array(widths)[:, None]
    found, part = np.unique(of_layer, return_inverse=True)
    sizes = np.bincount(part.ravel(), weights=is_unit.ravel())
    return Parts(part.ravel(), np.maximum(sizes, 1).astype(np.int64), found // n_most)

"""The delta of a concept: how near does it bring a picture's state to what another model has? Arrays alone.

A picture is judged by the delta of its concept's other pictures (OURS). Controls: a random direction of the delta's
length, in the span of all states; the deltas of the other concepts, which tell whether the change is this concept's or
everything's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from jaxtyping import Float, Int

DRAWS: Final = 20  # of random deltas


def left_out(
    own: Int[np.ndarray, " n"],
    deltas: Float[np.ndarray, "k d"],
    z: Float[np.ndarray, "n d"],
    after: Float[np.ndarray, "n d"],
    alpha: float,
    seed: int,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Of each picture of a concept with another one: how near the delta of the others brings its state to the other
    model's.

    Args:
        own: each picture's concept.
        deltas: of the concepts, of all their pictures.
        z: states in the first model.
        after: states in the other one.
        alpha: how much of a delta is added.
        seed: of the random deltas.
    """
    counts, basis = np.bincount(own, minlength=len(deltas)), np.concatenate([z, after])
    random = random_like(deltas, basis, DRAWS, seed)  # in direction; each gets the length of the delta it stands for
    for row in np.flatnonzero(counts[own] > 1).tolist():
        concept, n = own[row], counts[own[row]]
        delta = (n * deltas[concept] - (after[row] - z[row])) / (n - 1)
        drawn = random[:, concept] / max(np.linalg.norm(deltas[concept]), np.finfo(float).tiny) * np.linalg.norm(delta)
        others = np.delete(deltas, concept, 0)
        yield (
            row,
            {
                "cosine": float(cosine(z[row], after[row])),
                "cosine_shifted": float(cosine(z[row] + alpha * delta, after[row])),
                "cosine_random": float(cosine(z[row] + alpha * drawn, after[row]).mean()),
                "cosine_other": float(cosine(z[row] + alpha * others, after[row]).mean()),
            },
        )


def random_like(
    deltas: Float[np.ndarray, "k d"], basis: Float[np.ndarray, "n d"], draws: int, seed: int
) -> Float[np.ndarray, "draws k d"]:
    """Random directions in the span of `basis`, each as long as the delta that it stands for."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((draws, len(deltas), len(basis))) @ basis
    lengths = np.linalg.norm(drawn, axis=-1, keepdims=True)
    return drawn / np.where(lengths > 0, lengths, 1.0) * np.linalg.norm(deltas, axis=-1, keepdims=True)


def cosine(one: Float[np.ndarray, "... d"], other: Float[np.ndarray, "... d"]) -> Float[np.ndarray, ...]:
    """Cosines along the last axis; 0 with a vector of zeros."""
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return (one * other).sum(-1) / np.where(lengths > 0, lengths, 1.0)

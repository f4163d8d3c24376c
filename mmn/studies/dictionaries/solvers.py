"""Which few directions make up many vectors? Four dictionaries Z ≈ V U: concepts U, coefficients V.

    semi-nmf   min ½‖Z − V U‖² + α Σ V,  V ≥ 0, ‖u_k‖ ≤ 1        CoX-LMM (arXiv 2406.08074), eq. 3; α 1 in its code
    k-means    u_k the centres; coefficient 1 / (1 + distance)
    pca        u_k the principal axes; coefficient (z − mean) · u_k
    simple     u_k the K longest vectors; coefficient as of k-means

The published code takes all four from scikit-learn (CODE, xl-vlms `feature_decomposition.py`). Here they are numpy
alone: scikit-learn and its scipy are 195 MB on disk, and semi-NMF is two closed-form updates. They begin with the
centres of k-means, scikit-learn with the singular vectors, and end at the same loss. Everything is float64, and seeded.

All of them commute with a rotation of Z's columns, and U lies in the span of Z's rows. So n vectors of any width are
solved as n × r numbers, r ≤ n (`in_span`): a model's 350,000 units are not too many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

ALPHA: Final = 1.0  # CoX-LMM's code
MOST_STEPS: Final = 500
SWEEPS: Final = 5  # of coordinate descent on V between two updates of U
TOLERANCE: Final = 1e-7  # of the loss, from one step to the next
STARTS: Final = 5  # of k-means, the best of which is kept

Matrix = Float[np.ndarray, "n r"]
Concepts = Float[np.ndarray, "k r"]
Coefficients = Float[np.ndarray, "n k"]


@runtime_checkable
class Dictionary(Protocol):
    """Concepts, and how vectors are written by them."""

    @property
    def concepts(self) -> Concepts: ...

    def coefficients(self, z: Matrix) -> Coefficients:
        """How much of each concept is in each vector; the highest is the vector's strongest."""
        ...

    def rebuilt(self, z: Matrix) -> Matrix:
        """The vectors as their concepts make them up."""
        ...


@dataclass(frozen=True)
class SemiNmf:
    """Sums of concepts with non-negative coefficients."""

    concepts: Concepts
    alpha: float = ALPHA

    def coefficients(self, z: Matrix) -> Coefficients:
        return non_negative_lasso(z, self.concepts, self.alpha)

    def rebuilt(self, z: Matrix) -> Matrix:
        return self.coefficients(z) @ self.concepts


@dataclass(frozen=True)
class Centres:
    """Each vector is its nearest concept."""

    concepts: Concepts

    def coefficients(self, z: Matrix) -> Coefficients:
        return 1 / (1 + np.sqrt(_square_distances(z, self.concepts)))

    def rebuilt(self, z: Matrix) -> Matrix:
        return self.concepts[_square_distances(z, self.concepts).argmin(1)]


@dataclass(frozen=True)
class Axes:
    """Directions of most variance about the mean."""

    concepts: Concepts
    mean: Float[np.ndarray, " r"]

    def coefficients(self, z: Matrix) -> Coefficients:
        return (z - self.mean) @ self.concepts.T

    def rebuilt(self, z: Matrix) -> Matrix:
        return self.mean + self.coefficients(z) @ self.concepts


def semi_nmf(z: Matrix, k: int, seed: int, alpha: float = ALPHA) -> SemiNmf:
    """Alternates coordinate descent on V and on U until the loss stands still. The loss never grows."""
    concepts = _at_most_one(k_means(z, k, seed).concepts)
    codes = np.zeros((len(z), k))
    loss = np.inf
    for _ in range(MOST_STEPS):
        codes = _descend(z, concepts, alpha, codes, SWEEPS)
        concepts = _update(z, codes, concepts)
        before, loss = loss, semi_nmf_loss(z, codes, concepts, alpha)
        if before - loss <= TOLERANCE * loss:
            break
    return SemiNmf(concepts, alpha)


def semi_nmf_loss(z: Matrix, codes: Coefficients, concepts: Concepts, alpha: float = ALPHA) -> float:
    """½‖Z − V U‖² + α Σ V."""
    return float(0.5 * ((z - codes @ concepts) ** 2).sum() + alpha * codes.sum())


def non_negative_lasso(z: Matrix, concepts: Concepts, alpha: float) -> Coefficients:
    """The V ≥ 0 of least ½‖Z − V U‖² + α Σ V for given U."""
    codes = np.zeros((len(z), len(concepts)))
    for _ in range(MOST_STEPS):
        before = codes
        codes = _descend(z, concepts, alpha, codes, SWEEPS)
        if np.abs(codes - before).max(initial=0) <= TOLERANCE * np.abs(codes).max(initial=0):
            break
    return codes


def k_means(z: Matrix, k: int, seed: int) -> Centres:
    """The best of a few runs of Lloyd's algorithm, each begun by k-means++ (Arthur and Vassilvitskii 2007)."""
    rng = np.random.default_rng(seed)
    found = [_lloyd(z, _spread(z, k, rng)) for _ in range(STARTS)]
    return Centres(min(found, key=lambda centres: _square_distances(z, centres).min(1).sum()))


def pca(z: Matrix, k: int, seed: int) -> Axes:  # noqa: ARG001 - as the others are called
    """The first axes; each points to where its largest coefficient is positive."""
    mean = z.mean(0)
    _, _, axes = np.linalg.svd(z - mean, full_matrices=False)
    axes = axes[:k]
    projected = (z - mean) @ axes.T
    largest = projected[np.abs(projected).argmax(0), np.arange(len(axes))]
    return Axes(axes * np.where(largest < 0, -1.0, 1.0)[:, None], mean)


def simple(z: Matrix, k: int, seed: int) -> Centres:  # noqa: ARG001
    """The longest vectors."""
    lengths = (z**2).sum(1)
    return Centres(z[np.argsort(-lengths, kind="stable")[:k]])


KINDS: Final[Mapping[str, Callable[[Matrix, int, int], Dictionary]]] = {
    "semi-nmf": semi_nmf,
    "k-means": k_means,
    "pca": pca,
    "simple": simple,
}


def in_span(gram: Float[np.ndarray, "n n"]) -> tuple[Matrix, Float[np.ndarray, "r n"]]:
    """Vectors as coordinates in the span of them all, from their inner products Z Zᵀ.

    Returns:
        C (n, r), with the distances and angles of Z, and B (r, n), with C B Z = Z: B Z are the axes.
    """
    values, vectors = np.linalg.eigh(gram)
    kept = values > 1e-12 * values[-1]  # rounding of the products
    scale = np.sqrt(values[kept])
    return vectors[:, kept] * scale, (vectors[:, kept] / scale).T


def explained(z: Matrix, dictionary: Dictionary, mean: Float[np.ndarray, " r"]) -> float:
    """1 − ‖Z − V U‖² / ‖Z − mean‖²: 1 is all of the variance, below 0 is worse than the mean."""
    error = ((z - dictionary.rebuilt(z)) ** 2).sum()
    return float(1 - error / max(((z - mean) ** 2).sum(), np.finfo(float).tiny))


def _descend(z: Matrix, concepts: Concepts, alpha: float, codes: Coefficients, sweeps: int) -> Coefficients:
    """Sweeps over the coordinates of V, each set to where the loss is least with the others as they are."""
    gram, target = concepts @ concepts.T, z @ concepts.T - alpha
    codes = codes.copy()
    for _ in range(sweeps):
        for j in np.flatnonzero(np.diag(gram) > 0):
            without = target[:, j] - codes @ gram[:, j] + codes[:, j] * gram[j, j]
            codes[:, j] = np.maximum(without, 0) / gram[j, j]
    return codes


def _update(z: Matrix, codes: Coefficients, concepts: Concepts) -> Concepts:
    """Each concept where the loss is least with the others as they are, no longer than 1; an unused one stays."""
    gram, target = codes.T @ codes, codes.T @ z
    concepts = concepts.copy()
    for j in np.flatnonzero(np.diag(gram) > 0):
        concepts[j] += (target[j] - gram[j] @ concepts) / gram[j, j]
        concepts[j : j + 1] = _at_most_one(concepts[j : j + 1])
    return concepts


def _at_most_one(rows: Concepts) -> Concepts:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1.0)


def _spread(z: Matrix, k: int, rng: np.random.Generator) -> Concepts:
    """K vectors, each drawn with the odds of its squared distance to the nearest one before."""
    chosen = [int(rng.integers(len(z)))]
    for _ in range(k - 1):
        odds = _square_distances(z, z[chosen]).min(1)
        total = odds.sum()
        chosen.append(int(rng.choice(len(z), p=odds / total)) if total > 0 else int(rng.integers(len(z))))
    return z[chosen]


def _lloyd(z: Matrix, centres: Concepts) -> Concepts:
    """Centres that are the means of what is nearest to them; one without goes to the vector farthest from all."""
    nearest: Int[np.ndarray, " n"] = np.full(len(z), -1)
    for _ in range(MOST_STEPS):
        distances = _square_distances(z, centres)
        before, nearest = nearest, distances.argmin(1)
        if (before == nearest).all():
            break
        centres = centres.copy()
        for j in range(len(centres)):
            own = nearest == j
            centres[j] = z[own].mean(0) if own.any() else z[distances.min(1).argmax()]
    return centres


def _square_distances(z: Matrix, centres: Concepts) -> Coefficients:
    products = (z**2).sum(1)[:, None] - 2 * z @ centres.T + (centres**2).sum(1)
    return np.maximum(products, 0)

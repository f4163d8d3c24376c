"""Can the picture's label be read from its mean image token? A ridge probe, cross-validated by picture.

    X: a picture's mean image token, standardised by the training pictures          y: ±1, a class against the others
    w = (XᵀX + λI)⁻¹ Xᵀ y, in its dual form; λ of a grid by leave-one-out error of the training pictures
    said: of two classes, nearer the training mean of that class's scores; of several, the highest score
    F1 of a class = 2 TP / (2 TP + FP + FN); macro F1 = its mean over classes

Verma et al. (ACL 2024; paper read) train a network of six layers on thousands of pictures, and macro F1 is theirs; the
ridge probe, which a few dozen pictures can train, is OURS, as are the shuffled labels beside it. Intervals are by
picture, of each one's linear part in the macro F1 (METHODS: Intervals). Plain numpy: pages draw from stored vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int

N_FOLDS: Final = 5
RIDGES: Final = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)  # times the number of dimensions


def folds_of(image_ids: Sequence[str]) -> Int[np.ndarray, " n"]:
    """The fold of each picture, all of about one size, by a hash: the same whatever else is there decides the order."""
    order = np.argsort([hashlib.sha256(one.encode()).hexdigest() for one in image_ids], kind="stable")
    folds = np.empty(len(image_ids), np.int64)
    folds[order] = np.arange(len(image_ids)) % N_FOLDS
    return folds


def predictions(
    vectors: Float[np.ndarray, "n d"],
    is_so: Bool[np.ndarray, "n classes"],
    folds: Int[np.ndarray, " n"],
    one_of: bool,
) -> Bool[np.ndarray, "n classes"]:
    """What a probe that was trained on the other folds says of each picture.

    Args:
        vectors: a picture's.
        is_so: whether it has each label.
        folds: of `folds_of`.
        one_of: whether a picture has exactly one of the labels, as a folder; else each is asked by itself.
    """
    said = np.zeros_like(is_so)
    for fold in np.unique(folds):
        train, test = folds != fold, folds == fold
        scores, midway = _scores(vectors[train], is_so[train], vectors[test])
        if one_of:
            said[np.flatnonzero(test), scores.argmax(1)] = True
        else:
            said[test] = scores > midway
    return said


def f1_parts(is_so: Bool[np.ndarray, "n classes"], is_said: Bool[np.ndarray, "n classes"]) -> Float[np.ndarray, " n"]:
    """Each picture's linear part in the macro F1; their mean is the macro F1.

    A class that is neither so nor said anywhere has no F1 and does not count.
    """
    doubled = 2.0 * (is_so & is_said)
    counted = doubled + (is_so ^ is_said)
    there = counted.sum(0) > 0
    f1 = doubled[:, there].sum(0) / counted[:, there].sum(0)
    linear = f1 + (doubled[:, there] - f1 * counted[:, there]) * (len(is_so) / counted[:, there].sum(0))
    return linear.mean(1)


def shuffled(is_so: Bool[np.ndarray, "n classes"], seed: int) -> Bool[np.ndarray, "n classes"]:
    """The labels of the pictures, given to others by a seeded permutation: a probe of these knows nothing."""
    return is_so[np.random.Generator(np.random.Philox(seed)).permutation(len(is_so))]


def _scores(
    train: Float[np.ndarray, "n d"], is_so: Bool[np.ndarray, "n classes"], test: Float[np.ndarray, "k d"]
) -> tuple[Float[np.ndarray, "k classes"], Float[np.ndarray, " classes"]]:
    """The ridge scores of other pictures, and midway between the training means of the two sides."""
    mean, deviation = train.mean(0), train.std(0)
    scale = np.where(deviation > 1e-12 * np.abs(mean).max(initial=1.0), deviation, np.inf)
    x, x_test = ((one - mean) / scale / np.sqrt(train.shape[1]) for one in (train, test))
    y = np.where(is_so, 1.0, -1.0)
    offset = y.mean(0)
    values, basis = np.linalg.eigh(x @ x.T)
    turned = basis.T @ (y - offset)
    best = min(RIDGES, key=lambda ridge: _left_out_error(values, basis, turned, ridge))
    dual = basis @ (turned / (values + best)[:, None])
    fitted = x @ (x.T @ dual) + offset
    n_so = np.maximum(is_so.sum(0), 1), np.maximum((~is_so).sum(0), 1)
    midway = ((fitted * is_so).sum(0) / n_so[0] + (fitted * ~is_so).sum(0) / n_so[1]) / 2
    return x_test @ (x.T @ dual) + offset, midway


def _left_out_error(
    values: Float[np.ndarray, " n"],
    basis: Float[np.ndarray, "n n"],
    turned: Float[np.ndarray, "n classes"],
    ridge: float,
) -> float:
    """The squared error on each training picture of a probe without it, by its closed form e / (1 − h)."""
    kept = values / (values + ridge)
    residual = basis @ (turned * (1 - kept)[:, None])
    leverage = (basis**2) @ kept
    return float(((residual / (1 - np.minimum(leverage, 1 - 1e-9))[:, None]) ** 2).mean())

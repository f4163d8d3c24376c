"""The concepts of one noun in two models: rows of `shift_concept` and `shift_picture`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float

from mmn.studies.dictionaries.grounding import words_of
from mmn.studies.dictionaries.measure import gram
from mmn.studies.dictionaries.solvers import in_span, k_means
from mmn.studies.shift.deltas import DRAWS, cosine, left_out, random_like
from mmn.studies.shift.matching import assign
from mmn.studies.shift.states import FirstWords, Pair

N_IMAGES: Final = 5


@dataclass(frozen=True)
class _Moved:
    """States of one noun in both models, z and `after`, and by how much the pictures of each concept moved."""

    pair: Pair
    said: FirstWords
    deltas: Float[np.ndarray, "k d"]
    z: Float[np.ndarray, "n d"]
    after: Float[np.ndarray, "n d"]


def concept_rows(pair: Pair, said: FirstWords) -> dict[str, list[dict[str, Any]]]:
    """Rows of `shift_concept` and `shift_picture`."""
    z, after = pair.first.residual.double().numpy(), pair.second.residual.double().numpy()
    moved = _Moved(pair, said, _deltas(after - z, said), z, after)
    return {"shift_concept": _of_concepts(moved), "shift_picture": list(_of_pictures(moved))}


def _deltas(change: Float[np.ndarray, "n d"], said: FirstWords) -> Float[np.ndarray, "k d"]:
    """The mean change of each concept's pictures; zeros for one that has none."""
    none, own = np.zeros(change.shape[1]), said.own
    return np.stack([change[own == j].mean(0) if (own == j).any() else none for j in range(len(said.centres))])


def _of_concepts(moved: _Moved) -> list[dict[str, Any]]:
    pair, said, deltas = moved.pair, moved.said, moved.deltas
    centres, alpha = said.centres, pair.alpha
    matched = _matched(pair, centres, moved.after)
    shifted = centres + alpha * deltas
    random = random_like(deltas, np.concatenate([moved.z, moved.after]), DRAWS, pair.seed)
    words = {
        name: [one.words for one in words_of(pair.model, torch.from_numpy(of).float(), pair.first.site)]
        for name, of in (("words_shifted", shifted), ("words_other", matched), ("words_delta", deltas))
    }
    return [
        pair.key
        | {
            "concept": j,
            "n_images": int((said.own == j).sum()),
            "cosine": float(cosine(centres[j], matched[j])),
            "cosine_shifted": float(cosine(shifted[j], matched[j])),
            "cosine_random": float(cosine(centres[j] + alpha * random[:, j], matched[j]).mean()),
            "cosine_other": float(cosine(centres[j] + alpha * np.delete(deltas, j, 0), matched[j]).mean()),
            "words": list(said.words[j]),
            **{name: list(of[j]) for name, of in words.items()},
            "images": _nearest(pair, said, j),
        }
        for j in range(len(centres))
    ]


def _matched(
    pair: Pair, centres: Float[np.ndarray, "k d"], after: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "k d"]:
    """The other model's own concepts, each in the place of the first model's that it is assigned to."""
    coordinates, axes = in_span(gram(pair.second.residual))
    theirs = k_means(coordinates, len(centres), pair.seed).concepts @ axes @ after
    return theirs[assign(-cosine(centres[:, None], theirs[None]))]


def _nearest(pair: Pair, said: FirstWords, concept: int) -> list[str]:
    """The pictures of a concept whose states are nearest to its centre."""
    far = np.linalg.norm(pair.first.residual.numpy() - said.centres[concept], axis=1)
    far[said.own != concept] = np.inf
    order = [row for row in np.argsort(far, kind="stable")[:N_IMAGES] if np.isfinite(far[row])]
    return [pair.image_ids[row] for row in order]


def _of_pictures(moved: _Moved) -> Iterator[dict[str, Any]]:
    pair, own = moved.pair, moved.said.own
    for row, cosines in left_out(own, moved.deltas, moved.z, moved.after, pair.alpha, pair.seed):
        yield pair.key | {"image_id": pair.image_ids[row], "concept": int(own[row])} | cosines

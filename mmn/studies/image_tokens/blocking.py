"""Where does attention fetch a noun from the picture? What is lost without it (Neo et al. 2025, arXiv 2410.07149).

    source ─► target, in a window of layers ─► the caption read again, these targets blind to these sources
      ─► p(t(c)) at p(c), and whether t(c) is still the likeliest token
    beside it: as many random image tokens as the source has, for the same target and window

    sources     the noun's object, it and one ring, all tokens but the object's, the picture's last row, all tokens
    targets     `position`, p(c) alone: what the noun is said from · `text`, every position behind the picture, p(c)
                included (OURS: words before the noun may have read it) · `last row`, of the picture

Attention knockout is Geva et al. 2023 (arXiv 2304.14767): a masked pair has no weight, and the others' grow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from mmn.core import Concept
from mmn.models.model import Model
from mmn.reading.hooks import Blocked, block_attention
from mmn.runs.reopen import ScoredRun
from mmn.studies.image_tokens.pictures import Picture, at_positions, outcomes
from mmn.studies.image_tokens.replacing import told_outcome
from mmn.studies.image_tokens.sets import Tokens, last_row, random_tokens, ringed
from mmn.studies.image_tokens.tables import ALL, LAST_ROW, OBJECT, OTHERS, POSITION, RING_1, TEXT
from mmn.studies.image_tokens.windows import layer_windows

PAIRS: Final = (
    (OBJECT, POSITION),
    (OBJECT, TEXT),
    (OBJECT, LAST_ROW),
    (RING_1, POSITION),
    (OTHERS, POSITION),
    (OTHERS, TEXT),
    (OTHERS, LAST_ROW),
    (LAST_ROW, POSITION),
    (LAST_ROW, TEXT),
    (ALL, POSITION),
    (ALL, TEXT),
)


@dataclass(frozen=True)
class Cut:
    """Attention that is blocked for a noun: from `tokens` to a target, in some layers."""

    concept: Concept
    source: str
    target: str
    window: str
    layers: range
    tokens: Tokens


def cut_attention(scored: ScoredRun, picture: Picture) -> list[dict[str, Any]]:
    """The rows of `knockout` of one picture, without revision and question."""
    windows = layer_windows(scored.model.anatomy.n_layers)
    cuts = [one for concept in picture.concepts for one in _cuts(picture, concept, windows)]
    drawn = [_drawn(scored, picture, one) for one in cuts]
    nothing = [Cut(one, ALL, POSITION, "", range(0), np.zeros(picture.n_tokens, bool)) for one in picture.concepts]
    rows = [*nothing, *cuts, *(one for draws in drawn for one in draws)]

    def changed(some: Sequence[Cut]) -> AbstractContextManager[None]:
        return without_attention(scored.model, picture, some)

    size = scored.run.settings.batch_size
    found = iter(outcomes(scored.model, picture, rows, lambda row: row.concept, changed, size))
    untouched = {concept.noun: next(found) for concept in picture.concepts}
    own = [next(found) for _ in cuts]
    controls = [[next(found) for _ in draws] for draws in drawn]
    return [
        _key(picture, one) | told_outcome(outcome, beside, untouched[one.concept.noun])
        for one, outcome, beside in zip(cuts, own, controls, strict=True)
    ]


def _cuts(picture: Picture, concept: Concept, windows: dict[str, range]) -> Iterator[Cut]:
    sources = _sources(picture, concept)
    for source, target in PAIRS:
        if source in sources and (target != LAST_ROW or picture.grids is not None):
            for window, layers in windows.items():
                yield Cut(concept, source, target, window, layers, sources[source])


def _sources(picture: Picture, concept: Concept) -> dict[str, Tokens]:
    """What there is to be blocked for a noun; what needs its outline only where there is one."""
    found = {ALL: np.ones(picture.n_tokens, bool)}
    if picture.grids is not None:
        found[LAST_ROW] = last_row(picture.grids)
        if (own := picture.objects.get(concept.noun)) is not None:
            found |= {OBJECT: own, RING_1: ringed(own, picture.grids, 1), OTHERS: ~own}
    return {name: tokens for name, tokens in found.items() if tokens.any()}


def _drawn(scored: ScoredRun, picture: Picture, cut: Cut) -> list[Cut]:
    """The same of as many random tokens, the same ones for every window; none beside all tokens."""
    if cut.source == ALL:
        return []
    n = int(cut.tokens.sum())
    key = (scored.run.settings.seed, picture.example.image_id, cut.concept.lemma, f"attention {cut.source} {n}")
    tokens = random_tokens(*key, n, picture.n_tokens, 0)
    return [Cut(cut.concept, cut.source, cut.target, cut.window, cut.layers, tokens)]


def without_attention(model: Model, picture: Picture, cuts: Sequence[Cut]) -> AbstractContextManager[None]:
    """Rows of one picture and its caption, read as far as the last of their nouns, each without its attention."""
    n = picture.n_prompt + max(one.concept.position for one in cuts)
    sources = at_positions(model, picture, [one.tokens for one in cuts], n)
    targets = torch.stack([_target(model, picture, one, n) for one in cuts])
    layers = torch.zeros(len(cuts), model.anatomy.n_layers, dtype=torch.bool, device=model.device)
    for row, one in enumerate(cuts):
        layers[row, list(one.layers)] = True
    return block_attention(model, Blocked(targets, sources, layers))


def _target(model: Model, picture: Picture, cut: Cut, n: int) -> Tensor:
    """The positions that are blind."""
    if cut.target == LAST_ROW:
        assert picture.grids is not None, cut
        return at_positions(model, picture, [last_row(picture.grids)], n)[0]
    found = torch.zeros(n, dtype=torch.bool, device=model.device)
    last = picture.n_prompt - 1 + cut.concept.position
    found[int(picture.places(model)[-1]) + 1 if cut.target == TEXT else last : last + 1] = True
    return found


def _key(picture: Picture, cut: Cut) -> dict[str, Any]:
    return {
        "image_id": picture.example.image_id,
        "noun": cut.concept.noun,
        "source": cut.source,
        "target": cut.target,
        "layer_window": cut.window,
        "first_layer": cut.layers[0],
        "last_layer": cut.layers[-1],
        "n_tokens": int(cut.tokens.sum()),
        "n_image_tokens": picture.n_tokens,
    }

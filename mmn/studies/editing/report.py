"""How well did an edit do? Efficacy, generalisation, locality and fluency, from captions before and after.

efficacy         share of the edited pictures whose new caption says the target (P2: t1 emitted)
generalisation   the same of other pictures of the noun
locality         share of pictures without the noun whose caption stayed the same, to the letter
fluency          n-gram entropy of the new captions of the first two, in bits; ROME's (arXiv 2202.05262), see `entropy`
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image

from mmn.core import Failure
from mmn.models.deltas import Delta, applied
from mmn.reading.captions import caption_batch
from mmn.runs.reopen import ScoredRun
from mmn.studies.editing.pictures import (
    EDITED,
    OTHER,
    UNRELATED,
    Picture,
    Split,
    open_pictures,
    probs_at_noun,
    says,
)

_WEIGHTS: Final = {2: 1 / 3, 3: 2 / 3}  # of bigrams and trigrams, as in ROME
_WORD: Final = re.compile(r"\w+(?:'\w+)?|[^\w\s]")


@dataclass(frozen=True)
class EditedCaption:
    """A picture before and after an edit: a row of `edited_caption`."""

    edit_id: str
    image_id: str
    role: str
    text_before: str
    text_after: str
    prob_before: float | None
    prob_after: float | None
    is_as_wished: bool


def caption_again(
    scored: ScoredRun, split: Split, delta: Delta, progress: Callable[[int], None]
) -> tuple[list[EditedCaption], list[Failure]]:
    """Every picture's caption before and after `delta`, in batches by role; `progress` gets how many are done."""
    size = scored.run.settings.batch_size
    rows: list[EditedCaption] = []
    failures: list[Failure] = []
    n_done = 0
    for role, whole in split.roles.items():
        for start in range(0, len(whole), size):
            pictures, images, failed = open_pictures(whole[start : start + size], delta.edit_id)
            failures += failed
            if pictures:
                rows += _before_and_after(scored, split.target.token_id, delta, role, pictures, images)
            n_done += len(whole[start : start + size])
            progress(n_done)
    return rows, failures


def report(rows: Sequence[EditedCaption]) -> dict[str, float | None]:
    """efficacy, generalisation, locality, fluency and fluency_before; None where there are no such pictures."""
    of_noun = [row for row in rows if row.role in (EDITED, OTHER)]
    return {
        "efficacy": _share(rows, EDITED),
        "generalisation": _share(rows, OTHER),
        "locality": _share(rows, UNRELATED),
        "fluency": _mean([entropy(row.text_after) for row in of_noun]),
        "fluency_before": _mean([entropy(row.text_before) for row in of_noun]),
    }


def entropy(text: str) -> float:
    """1/3 H(bigrams) + 2/3 H(trigrams) in bits, H the entropy of the n-grams' frequencies within the text.

    ROME's measure: a text that repeats itself has fewer distinct n-grams, so less entropy. It grows with the length
    (all n-grams distinct: the logarithm of their number), so it is compared only with the captions before. Words and
    punctuation marks count as one each, lower case.
    """
    words = _WORD.findall(text.lower())
    return sum(weight * _entropy_of(words, n) for n, weight in _WEIGHTS.items())


def _before_and_after(
    scored: ScoredRun,
    token_id: int,
    delta: Delta,
    role: str,
    pictures: Sequence[Picture],
    images: Sequence[Image.Image],
) -> list[EditedCaption]:
    """The rows of one batch; probabilities are of `token_id` where the noun is predicted, so only of its pictures."""
    model, run = scored.model, scored.run
    nothing: list[float | None] = [None] * len(pictures)

    def probs() -> list[float | None]:
        is_of_noun = role in (EDITED, OTHER)
        return probs_at_noun(model, run.prompt, pictures, images)[:, token_id].tolist() if is_of_noun else nothing

    before = probs()
    with applied(model, delta):
        after = probs()
        new = caption_batch(model, images, run.prompt, run.settings.max_new_tokens).captions
    return [
        EditedCaption(
            edit_id=delta.edit_id,
            image_id=picture.example.image_id,
            role=role,
            text_before=picture.caption.text,
            text_after=caption.text,
            prob_before=prob_before,
            prob_after=prob_after,
            is_as_wished=_is_as_wished(role, picture.caption.text, caption.text, delta.target),
        )
        for picture, caption, prob_before, prob_after in zip(pictures, new, before, after, strict=True)
    ]


def _is_as_wished(role: str, before: str, after: str, target: str) -> bool:
    return before == after if role == UNRELATED else says(after, target)


def _entropy_of(words: Sequence[str], n: int) -> float:
    counts = Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))
    total = counts.total()
    return sum(-count / total * math.log2(count / total) for count in counts.values())


def _share(rows: Sequence[EditedCaption], role: str) -> float | None:
    return _mean([float(row.is_as_wished) for row in rows if row.role == role])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None

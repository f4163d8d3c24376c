"""How rich is what the projector makes, and how alike are image and text behind it?

    pictures of a run ─► one pass over prompt and caption
      ─► `projector_mean`  the mean image token before the projector and after it, as it enters the decoder: what a
                           probe reads (`probe`)                                       Verma et al. 2024 (ACL)
      ─► `modality`        cosines of mean image and mean caption state after every layer, within each of the two, and
                           from layer to layer                                         Shukor & Cord 2024 (2405.16700)
      ─► `modality_unit`   intersection over union of the units most active at image tokens and at the caption's  OURS

Texts are the caption's tokens, as the run wrote them, in the same pass as the picture. The control is the caption of
another picture, whose nouns share no token with this one's.

Left out: weights kept by Wanda for each modality, which IMA compares; maxima and medians in place of means; pairs of
tokens across modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any, Final

import pyarrow as pa
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmn.errors import ImageError, UsageError
from mmn.models.float64 import wide
from mmn.models.image_tokens import image_positions, require_image_tokens
from mmn.models.model import Model
from mmn.reading.captions import with_captions
from mmn.reading.hooks import capture_entering, capture_mean_activity, capture_residual
from mmn.runs import reopen
from mmn.runs.plan import Progress, ProgressCallback
from mmn.runs.reopen import ScoredRun
from mmn.scores.rows import Tables
from mmn.studies.patchscopes.states import Said, all_said, partner_of
from mmn.studies.projector.tables import AFTER, BEFORE
from mmn.studies.tables import TABLES

PREFIX: Final = "projector"
STAGE: Final = "projector"
SHARES: Final = (0.01, 0.1)  # of a layer's units
PICTURES_OF_A_SHARD: Final = 16


@dataclass(frozen=True)
class Seen:
    """One picture's pass: its mean image tokens around the projector, its states, and how active units were.

    `states[l]` are the residual stream, first as it enters the decoder, then after every layer; `active[l]` the mean
    |a| over image tokens and over the caption's, () in a mixture of experts.
    """

    before: Float[Tensor, " d_before"] | None
    after: Float[Tensor, " d"]
    image: tuple[Float[Tensor, "tokens d"], ...]
    text: tuple[Float[Tensor, "words d"], ...]
    active: tuple[Float[Tensor, "2 m"], ...]


def measure_projector(
    scored: ScoredRun, limit: int | None = None, progress: ProgressCallback = lambda _progress: None
) -> list[str]:
    """Adds the three tables of a run's pictures as shards of the run; the same call again does what is missing.

    Args:
        scored: the run, with its model.
        limit: the first so many pictures; None for all.
        progress: told after each picture, and once of what this model cannot tell.

    Raises:
        UsageError: a model without image tokens in its decoder's prompt; no picture is left.
    """
    require_image_tokens(scored.model)
    said = tuple(all_said(scored))
    for reason in _cannot(scored, said):
        progress(Progress(STAGE, message=reason))
    known = {one.example.image_id: one for one in said}
    answers = reopen.each_alone(lambda example: _of_picture(scored, said, known[example.image_id]), STAGE)
    return reopen.for_each_part(scored, PREFIX, [], answers, progress, STAGE, limit, PICTURES_OF_A_SHARD)


def _cannot(scored: ScoredRun, said: Sequence[Said]) -> list[str]:
    """What this model cannot be asked, each with the reason, tried on the first picture that opens."""
    model = scored.model
    for one in said:
        try:
            seen = see(scored, one)
        except ImageError:
            continue
        before = f"no module of {model.facts.name} makes its image tokens as they enter the decoder, so that there is "
        reasons = [] if seen.before is not None else [f"{before}nothing before the projector to be probed"]
        return [*reasons, *_why_no_units(model)]
    raise UsageError(f"no picture of run {scored.run.run_id} opens any more; put them back where they were")


def _why_no_units(model: Model) -> list[str]:
    try:
        model.require_one_ffn("the overlap of units active at images and at texts")
    except UsageError as error:
        return [str(error)]
    return []


@torch.inference_mode()
def see(scored: ScoredRun, said: Said) -> Seen:
    """One pass over the prompt with the picture, and its caption.

    Raises:
        ImageError: the picture has changed, or does not open any more.
        UsageError: the prompt has no image tokens.
    """
    model = scored.model
    with reopen.open_again(said.example) as image:
        inputs = model.encode([image], scored.run.prompt)
    n_words = len(said.caption.token_ids)
    is_image = torch.nn.functional.pad(image_positions(model, inputs)[0], (0, n_words))
    is_text = torch.zeros_like(is_image)
    is_text[len(is_image) - n_words :] = True
    given = with_captions(model, inputs, [said.caption.token_ids])
    with capture_entering(model) as entering, capture_residual(model) as after:
        active = _run(model, given, torch.stack([is_image, is_text]))
    assert entering.embeddings is not None
    states = [entering.embeddings[0], *(one[0] for one in after)]
    before = entering.before(is_image)
    return Seen(
        None if before is None else before.float().mean(0),
        states[0][is_image].float().mean(0),
        tuple(one[is_image].float() for one in states),
        tuple(one[is_text].float() for one in states),
        active,
    )


def _run(
    model: Model, inputs: dict[str, Tensor], groups: Bool[Tensor, "2 positions"]
) -> tuple[Float[Tensor, "2 m"], ...]:
    """The pass itself; the mean |a| over both groups, by layer, () in a mixture of experts."""
    if model.anatomy.mixtures:
        model.module(**inputs, use_cache=False, logits_to_keep=1)
        return ()
    with capture_mean_activity(model, groups) as means:
        model.module(**inputs, use_cache=False, logits_to_keep=1)
    return tuple(means)


def _of_picture(scored: ScoredRun, said: Sequence[Said], one: Said) -> Tables:
    """The rows of one picture."""
    own, other = see(scored, one), _partner(scored, said, one)
    image_id = one.example.image_id
    means = [(stage, vector) for stage, vector in ((BEFORE, own.before), (AFTER, own.after)) if vector is not None]
    rows: dict[str, list[dict[str, Any]]] = {
        "projector_mean": [{"image_id": image_id, "stage": stage, "vector": vec.tolist()} for stage, vec in means],
        "modality": [{"image_id": image_id} | row for row in modality_rows(own, other)],
        "modality_unit": [{"image_id": image_id} | row for row in unit_rows(own, other)],
    }
    return {name: pa.Table.from_pylist(told, schema=TABLES[name]) for name, told in rows.items()}


def _partner(scored: ScoredRun, said: Sequence[Said], one: Said) -> Seen | None:
    """The pass of the picture that is the control, where there is one that opens."""
    partner = partner_of(said, one.example.image_id)
    try:
        return None if partner is None else see(scored, partner)
    except ImageError:
        return None


def modality_rows(own: Seen, other: Seen | None) -> list[dict[str, Any]]:
    """A row for each layer, and one (layer None) of what enters the decoder: cosines, −1 to 1.

    `image_text` is of the mean image state and the mean caption state, `image_text_other` of the mean image state and
    another picture's mean caption state; `image_image` and `text_text` the mean over pairs of different tokens;
    `image_next` and `text_next` of the mean state and that one layer before.
    """
    rows: list[dict[str, Any]] = []
    for number, (image, text) in enumerate(zip(own.image, own.text, strict=True)):
        theirs = None if other is None else _cosine(image.mean(0), other.text[number].mean(0))
        before = number - 1
        rows.append(
            {
                "layer": None if number == 0 else before,
                "image_text": _cosine(image.mean(0), text.mean(0)),
                "image_text_other": theirs,
                "image_image": _among(image),
                "text_text": _among(text),
                "image_next": None if number == 0 else _cosine(image.mean(0), own.image[before].mean(0)),
                "text_next": None if number == 0 else _cosine(text.mean(0), own.text[before].mean(0)),
            }
        )
    return rows


def unit_rows(own: Seen, other: Seen | None) -> list[dict[str, Any]]:
    """A row for each layer and share: how far the units most active at image tokens and at the caption's overlap."""
    rows = []
    for layer, active in enumerate(own.active):
        m = active.shape[1]
        for share in SHARES:
            k = max(1, round(share * m))
            at_image, at_text = (_top(one, k) for one in active)
            theirs = None if other is None else iou(at_image, _top(other.active[layer][1], k))
            told: dict[str, float | None] = {
                "iou": iou(at_image, at_text),
                "iou_other": theirs,
                "chance": expected_iou(k, m),
            }
            rows.append({"layer": layer, "share": share, "n_units": k, **told})
    return rows


def iou(units: frozenset[int], others: frozenset[int]) -> float:
    """Units in both over units in either, 0 to 1."""
    return len(units & others) / len(units | others)


def expected_iou(k: int, m: int) -> float:
    """The mean of that of two sets of k, drawn of m without regard to each other: hypergeometric. OURS."""
    ways = [comb(k, j) * comb(m - k, k - j) for j in range(max(0, 2 * k - m), k + 1)]
    first = max(0, 2 * k - m)
    return sum(way * (first + j) / (2 * k - first - j) for j, way in enumerate(ways)) / comb(m, k)


def _top(activity: Float[Tensor, " m"], k: int) -> frozenset[int]:
    return frozenset(activity.topk(k).indices.tolist())


def _cosine(one: Float[Tensor, " d"], other: Float[Tensor, " d"]) -> float:
    return torch.nn.functional.cosine_similarity(one, other, dim=0).item()


def _among(states: Float[Tensor, "n d"]) -> float | None:
    """The mean cosine over pairs of different states; None of a single one."""
    n = len(states)
    if n < 2:
        return None
    summed = wide(torch.nn.functional.normalize(states, dim=1)).sum(0)
    return ((summed @ summed).item() - n) / (n * (n - 1))

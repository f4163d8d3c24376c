"""One batch of pictures -> the tables of one shard: captions, concepts, ranked units, logit budgets.

pictures ─► greedy captions, activations captured on the way ─► nouns ─► token and position of each
  ─► for each method the score of every unit of every layer, top k chosen on the device ─► Arrow tables
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmn import names
from mmn.budget import Budget, Reading, logit_budget
from mmn.captions import CaptionBatch, caption_batch
from mmn.concepts import find_concepts, target_concept
from mmn.core import Concept, Example, ScoreSettings
from mmn.errors import UsageError
from mmn.hooks import ACT, ACTIVATION, FINAL, ONCE, Captured
from mmn.models import Model
from mmn.scores import Ranked, contribution, folded_rows, rank_units, uniform_draw

UNITS_AT_ONCE = 1 << 24  # scores held on the device at a time: concepts × L·m
Tables = dict[str, pa.Table]


@dataclass(frozen=True)
class Said:
    """A concept of one picture of the batch: what is scored."""

    row: int
    example: Example
    concept: Concept


@dataclass(frozen=True)
class Measured:
    """Everything that the methods read at the positions of n concepts. Float32, on the model's device."""

    model: Model
    said: Sequence[Said]
    reading: Reading
    captured: Captured
    a: Float[Tensor, "n L m"]
    rows: Float[Tensor, "n d"]
    folded: Float[Tensor, "n d"]


@torch.inference_mode()
def score_batch(
    model: Model,
    examples: Sequence[Example],
    images: Sequence[Image.Image],
    exact_prompt: str,
    settings: ScoreSettings,
) -> Tables:
    """Captions and scores `images`; the tables are `image`, `caption`, `concept`, `score` and `budget`."""
    with_act = names.CONTRIBUTION_ACTFN in settings.methods
    batch = caption_batch(model, images, exact_prompt, settings.max_new_tokens, with_act)
    said = [
        Said(row, example, concept)
        for row, example in enumerate(examples)
        for concept in _concepts(model, batch, row, example, settings.targets)
    ]
    size = max(1, UNITS_AT_ONCE // model.facts.n_units)
    parts = [_score_concepts(model, batch, said[i : i + size], settings) for i in range(0, len(said), size)]
    tables = {"image": _image_table(examples), "caption": _caption_table(examples, batch)}
    for name in ("concept", "score", "budget"):
        if parts:
            tables[name] = pa.concat_tables([part[name] for part in parts])
    return tables


def check_methods(methods: Sequence[str]) -> None:
    """Raises `UsageError` for a method that there is none of."""
    for method in methods:
        if method not in names.METHODS:
            raise UsageError(f"no method {method!r}; there are {', '.join(names.METHODS)}")


def _concepts(
    model: Model, batch: CaptionBatch, row: int, example: Example, targets: Sequence[str]
) -> Iterator[Concept]:
    """The caption's nouns, then the user's own words at the position that they ask for (WORD or WORD@NOUN)."""
    concepts = find_concepts(batch.captions[row], example.references)
    yield from concepts
    taken = {concept.noun for concept in concepts}
    for target in targets:
        word, _, at_noun = target.partition("@")
        places = [c for c in concepts if (at_noun.lower() in (c.noun, c.lemma) if at_noun else c.is_first)]
        if places and word.lower() not in taken:
            taken.add(word.lower())
            yield target_concept(
                word, places[0], lambda text: model.tokenizer(text, add_special_tokens=False).input_ids
            )


def _score_concepts(model: Model, batch: CaptionBatch, said: Sequence[Said], settings: ScoreSettings) -> Tables:
    measured = _measure(model, batch, said)
    folded_scores = contribution(model.anatomy, measured.a, measured.folded)
    budget = logit_budget(model.anatomy, batch.captured, measured.reading, measured.folded, folded_scores)
    logits = batch.logits_at(measured.reading.rows, measured.reading.steps)
    tables = {
        "concept": _concept_table(measured, logits, budget),
        "budget": _budget_table(said, budget),
    }
    scored = []
    for method in settings.methods:
        scores = folded_scores if method == names.CONTRIBUTION_FOLDED else SCORES[method](measured, settings)
        assert torch.isfinite(scores).all(), f"{method} is not finite for {model.facts.name}"
        scored.append(_score_table(measured, method, rank_units(scores, settings.top_k, settings.bottom_k)))
    tables["score"] = pa.concat_tables(scored)
    return tables


def _measure(model: Model, batch: CaptionBatch, said: Sequence[Said]) -> Measured:
    reading = Reading(
        rows=torch.tensor([one.row for one in said]),
        steps=torch.tensor([one.concept.position for one in said]),
        token_ids=torch.tensor([one.concept.token_id for one in said], device=model.device),
    )
    rows = model.anatomy.w_u(reading.token_ids)
    final = batch.captured.read(FINAL, ONCE, reading.rows, reading.steps)
    return Measured(
        model=model,
        said=said,
        reading=reading,
        captured=batch.captured,
        a=batch.captured.read_layers(ACTIVATION, reading.rows, reading.steps),
        rows=rows,
        folded=folded_rows(model.anatomy, rows, final),
    )


def _score_contribution(measured: Measured, _settings: ScoreSettings) -> Tensor:
    return contribution(measured.model.anatomy, measured.a, measured.rows)


def _score_contribution_actfn(measured: Measured, _settings: ScoreSettings) -> Tensor:
    """A plain FFN has no up factor to leave out: act(z) is the activation itself."""
    if measured.model.anatomy.activations is None:
        return _score_contribution(measured, _settings)
    act = measured.captured.read_layers(ACT, measured.reading.rows, measured.reading.steps)
    return contribution(measured.model.anatomy, act, measured.rows)


def _score_activation(measured: Measured, _settings: ScoreSettings) -> Tensor:
    return measured.a


def _score_random(measured: Measured, settings: ScoreSettings) -> Tensor:
    draws = [
        uniform_draw(
            settings.seed, one.example.image_id, names.ORIGINAL, one.concept.lemma, names.RANDOM, measured.a[0].numel()
        )
        for one in measured.said
    ]
    return torch.stack(draws).to(measured.a.device).view_as(measured.a)


SCORES: dict[str, Callable[[Measured, ScoreSettings], Float[Tensor, "n L m"]]] = {
    names.CONTRIBUTION: _score_contribution,
    names.CONTRIBUTION_ACTFN: _score_contribution_actfn,
    names.ACTIVATION: _score_activation,
    names.RANDOM: _score_random,
}


def _image_table(examples: Sequence[Example]) -> pa.Table:
    return pa.table(
        {
            "image_id": [example.image_id for example in examples],
            "source": [example.source for example in examples],
            "sources": pa.array([list(example.sources) for example in examples], pa.list_(pa.string())),
            "width": [example.width for example in examples],
            "height": [example.height for example in examples],
            "reference": pa.array([list(example.references) for example in examples], pa.list_(pa.string())),
        }
    )


def _caption_table(examples: Sequence[Example], batch: CaptionBatch) -> pa.Table:
    return pa.table(
        {
            "image_id": [example.image_id for example in examples],
            "variant": [names.ORIGINAL] * len(examples),
            "text": [caption.text for caption in batch.captions],
            "tokens": pa.array([list(caption.token_ids) for caption in batch.captions], pa.list_(pa.int32())),
        }
    )


def _concept_table(measured: Measured, logits: Float[Tensor, "n V"], budget: Budget) -> pa.Table:
    tokens = measured.reading.token_ids[:, None]
    logit = logits.gather(1, tokens)[:, 0].double()
    columns: dict[str, object] = {
        "image_id": [one.example.image_id for one in measured.said],
        "variant": [names.ORIGINAL] * len(measured.said),
    }
    for column in ("lemma", "noun", "n_mentions", "token_id", "position"):
        columns[column] = [getattr(one.concept, column) for one in measured.said]
    columns["logit"] = logit.cpu().numpy()
    columns["prob"] = logits.double().softmax(-1).gather(1, tokens)[:, 0].cpu().numpy()
    columns["residual"] = (logit - budget.total()).cpu().numpy()
    for column in ("is_first", "is_multi_token", "is_shared_token"):
        columns[column] = [getattr(one.concept, column) for one in measured.said]
    columns["is_in_reference"] = pa.array([one.concept.is_in_reference for one in measured.said], pa.bool_())
    columns["target_at"] = pa.array([one.concept.target_at for one in measured.said], pa.string())
    return pa.table(columns)


def _score_table(measured: Measured, method: str, ranked: Ranked) -> pa.Table:
    d_mlp = measured.model.facts.d_mlp
    unit = ranked.unit.cpu()
    activation = measured.a.flatten(1).gather(1, ranked.unit.clamp(min=0)).cpu()
    is_there = (unit >= 0).flatten().numpy()
    n_concepts, k = unit.shape
    columns = _repeat_keys(measured.said, k) | {
        "method": _constant(method, n_concepts * k),
        "rank": np.tile(ranked.rank.numpy(), n_concepts),
        "layer": (unit // d_mlp).flatten().numpy(),
        "unit": (unit % d_mlp).flatten().numpy(),
        "score": ranked.score.cpu().flatten().numpy(),
        "activation": activation.flatten().numpy(),
        "token_position": pa.nulls(n_concepts * k, pa.int32()),
    }
    return pa.table(columns).filter(pa.array(is_there))


def _budget_table(said: Sequence[Said], budget: Budget) -> pa.Table:
    """One row for each term of each concept; `layer` is empty for the embedding and the last biases."""
    n_layers = budget.attention.shape[1]
    layers = np.arange(n_layers)
    none = np.array([-1])
    terms = [("embedding", none, budget.embedding[:, None]), ("attention", layers, budget.attention)]
    terms += [("ffn", layers, budget.ffn)]
    if budget.bias.any() or budget.last_bias.any():
        terms += [("bias", layers, budget.bias), ("bias", none, budget.last_bias[:, None])]
    layer = np.concatenate([layers for _, layers, _ in terms])
    logit = torch.cat([values for _, _, values in terms], dim=1).cpu().numpy()
    columns = _repeat_keys(said, len(layer)) | {
        "term": pa.array([term for term, layers, _ in terms for _ in layers] * len(said)),
        "layer": pa.array(np.tile(layer, len(said)), mask=np.tile(layer < 0, len(said))),
        "logit": logit.flatten(),
    }
    return pa.table(columns)


def _repeat_keys(said: Sequence[Said], n: int) -> dict[str, object]:
    """The columns image_id, variant and noun, each concept's repeated n times."""
    index = pa.array(np.repeat(np.arange(len(said), dtype=np.int32), n))

    def repeated(values: list[str]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(index, pa.array(values)).cast(pa.string())

    return {
        "image_id": repeated([one.example.image_id for one in said]),
        "variant": _constant(names.ORIGINAL, len(index)),
        "noun": repeated([one.concept.noun for one in said]),
    }


def _constant(value: str, n: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([value])).cast(pa.string())

"""The Arrow tables of a scored batch: one function for each table of a shard (`tables.SCHEMAS`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmn.core import Concept, Example
from mmn.models.adapters import Anatomy
from mmn.models.float64 import wide
from mmn.reading.concepts import GeneratedCaption
from mmn.scores.budget import Budget
from mmn.scores.equations import Ranked

Tables = dict[str, pa.Table]
Variant = str | Sequence[str]  # of all rows that are given, or of each


@dataclass(frozen=True)
class Conserved:
    """What the terms of a score of n concepts should add up to, and what they add up to: in logits, float64."""

    expected: Float[Tensor, " n"]
    total: Float[Tensor, " n"]


@dataclass(frozen=True)
class ConceptAt:
    """A concept of one picture of the batch: what is scored."""

    row: int
    example: Example
    concept: Concept


def image_table(examples: Sequence[Example]) -> pa.Table:
    texts = pa.list_(pa.string())
    return pa.table(
        {
            "image_id": [example.image_id for example in examples],
            "source": [example.source for example in examples],
            "sources": pa.array([list(example.sources) for example in examples], texts),
            "width": [example.width for example in examples],
            "height": [example.height for example in examples],
            "reference": pa.array([list(example.references) for example in examples], texts),
        }
    )


def caption_table(examples: Sequence[Example], captions: Sequence[GeneratedCaption], variant: Variant) -> pa.Table:
    return pa.table(
        {
            "image_id": [example.image_id for example in examples],
            "variant": one_for_each(variant, len(examples)),
            "text": [caption.text for caption in captions],
            "tokens": pa.array([list(caption.token_ids) for caption in captions], pa.list_(pa.int32())),
            "is_cut": pa.array([caption.is_cut for caption in captions], pa.bool_()),
        }
    )


def concept_table(
    said: Sequence[ConceptAt],
    variant: Variant,
    token_ids: Int[Tensor, " n"],
    logits: Float[Tensor, "n V"],
    budget: Budget,
    uncapped: Callable[[Tensor], Tensor],
) -> pa.Table:
    """One row for each concept: its token's probability, its logit before a soft cap, and what the budget misses of
    that.
    """
    said_logit = wide(logits.gather(1, token_ids[:, None])[:, 0])
    prob = (said_logit - torch.cat([wide(row).logsumexp(-1) for row in logits.split(1)])).exp()
    logit = uncapped(said_logit)
    columns: dict[str, object] = {
        "image_id": [one.example.image_id for one in said],
        "variant": one_for_each(variant, len(said)),
    }
    for column in ("lemma", "noun", "n_mentions", "token_id", "position"):
        columns[column] = [getattr(one.concept, column) for one in said]
    columns["logit"] = logit.cpu().numpy()
    columns["prob"] = prob.cpu().numpy()
    columns["residual"] = (logit - budget.total()).cpu().numpy()
    for column in ("is_first", "is_multi_token", "is_shared_token"):
        columns[column] = [getattr(one.concept, column) for one in said]
    for column in ("is_in_reference", "is_compound", "is_modifier"):
        columns[column] = pa.array([getattr(one.concept, column) for one in said], pa.bool_())
    columns["target_at"] = pa.array([one.concept.target_at for one in said], pa.string())
    return pa.table(columns)


def score_table(
    said: Sequence[ConceptAt],
    variant: Variant,
    method: str,
    ranked: Ranked,
    activation: Float[Tensor, "n k"],
    token_position: Int[Tensor, "n k"] | None,
    anatomy: Anatomy,
) -> pa.Table:
    """One row for each chosen unit of each concept; places without a suppressor (unit -1) are left out.

    `expert` is the unit's own, where its layer has some.
    """
    unit, d_mlp = ranked.unit.cpu(), anatomy.d_mlp
    n_concepts, k = unit.shape
    token = None if token_position is None else token_position.cpu().flatten().numpy()
    columns = _keys(said, variant, k) | {
        "method": _constant(method, n_concepts * k),
        "rank": np.tile(ranked.rank.numpy(), n_concepts),
        "layer": (unit // d_mlp).flatten().numpy(),
        "unit": (unit % d_mlp).flatten().numpy(),
        "score": ranked.score.cpu().flatten().numpy(),
        "activation": activation.cpu().flatten().numpy(),
        "token_position": pa.nulls(n_concepts * k, pa.int32()) if token is None else pa.array(token, pa.int32()),
        "expert": expert_column(anatomy, (unit // d_mlp).flatten(), (unit % d_mlp).flatten()),
    }
    table, is_unit = pa.table(columns), (unit >= 0).flatten()
    return table if is_unit.all() else table.filter(pa.array(is_unit.numpy()))


def expert_column(anatomy: Anatomy, layer: Int[Tensor, " n"], unit: Int[Tensor, " n"]) -> pa.Array:
    """The expert of each unit; empty where its layer has none."""
    if not anatomy.d_expert:
        return pa.nulls(len(unit), pa.int16())
    is_mixed = torch.tensor([one.routed is not None for one in anatomy.mixtures])
    experts = (unit // anatomy.d_expert).numpy().astype(np.int16)
    return pa.array(experts, mask=~is_mixed[layer].numpy())


def budget_table(said: Sequence[ConceptAt], variant: Variant, budget: Budget) -> pa.Table:
    """One row for each term of each concept; `layer` is empty for the embedding and the last biases."""
    layers, none = np.arange(budget.attention.shape[1]), np.array([-1])
    terms = [
        ("embedding", none, budget.embedding[:, None]),
        ("attention", layers, budget.attention),
        *((term, layers, values) for term, values in budget.others.items()),
        ("ffn", layers, budget.ffn),
    ]
    if budget.bias.any() or budget.last_bias.any():
        terms += [("bias", layers, budget.bias), ("bias", none, budget.last_bias[:, None])]
    layer = np.concatenate([layers for _, layers, _ in terms])
    columns = _keys(said, variant, len(layer)) | {
        "term": pa.array([term for term, layers, _ in terms for _ in layers] * len(said)),
        "layer": pa.array(np.tile(layer, len(said)), mask=np.tile(layer < 0, len(said))),
        "logit": torch.cat([values for _, _, values in terms], dim=1).cpu().numpy().flatten(),
    }
    return pa.table(columns)


def conservation_table(said: Sequence[ConceptAt], variant: Variant, found: Mapping[str, Conserved]) -> pa.Table:
    """One row for each concept and score whose terms should add up: to what, and to what they do."""
    tables = [
        pa.table(
            _keys(said, variant, 1)
            | {
                "method": _constant(method, len(said)),
                "expected": conserved.expected.cpu().numpy(),
                "total": conserved.total.cpu().numpy(),
            }
        )
        for method, conserved in found.items()
    ]
    return pa.concat_tables(tables)


def _keys(said: Sequence[ConceptAt], variant: Variant, n: int) -> dict[str, object]:
    """The columns image_id, variant and noun, each concept's repeated n times; by dictionary, since they are long."""
    index = np.repeat(np.arange(len(said), dtype=np.int32), n)

    def repeated(values: list[str]) -> pa.Array:
        distinct = pa.array(values, pa.string()).dictionary_encode()  # pandas refuses a dictionary that repeats a value
        return pa.DictionaryArray.from_arrays(distinct.indices.take(pa.array(index)), distinct.dictionary)

    return {
        "image_id": repeated([one.example.image_id for one in said]),
        "variant": _constant(variant, len(index)) if isinstance(variant, str) else repeated(list(variant)),
        "noun": repeated([one.concept.noun for one in said]),
    }


def joined(parts: Sequence[Tables]) -> Tables:
    """The rows of all parts, table by table."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: pa.concat_tables([part[name] for part in parts if name in part]) for name in names}


def one_for_each(variant: Variant, n: int) -> list[str]:
    return [variant] * n if isinstance(variant, str) else list(variant)


def _constant(value: str, n: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([value]))

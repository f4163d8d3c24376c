"""The Arrow tables of a scored batch: one function for each table of a shard (`tables.SCHEMAS`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmn.columns import flags, lists, mask, numbers, texts, whole_numbers
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
    return pa.table(
        {
            "image_id": texts([example.image_id for example in examples]),
            "source": texts([example.source for example in examples]),
            "sources": lists([example.sources for example in examples], texts),
            "width": whole_numbers([example.width for example in examples]),
            "height": whole_numbers([example.height for example in examples]),
            "reference": lists([example.references for example in examples], texts),
        }
    )


def caption_table(examples: Sequence[Example], captions: Sequence[GeneratedCaption], variant: Variant) -> pa.Table:
    return pa.table(
        {
            "image_id": texts([example.image_id for example in examples]),
            "variant": texts(one_for_each(variant, len(examples))),
            "text": texts([caption.text for caption in captions]),
            "tokens": lists([caption.token_ids for caption in captions], _token_ids),
            "is_cut": flags([caption.is_cut for caption in captions]),
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
    columns = {
        "image_id": texts([one.example.image_id for one in said]),
        "variant": texts(one_for_each(variant, len(said))),
    }
    for column in ("lemma", "noun"):
        columns[column] = texts([getattr(one.concept, column) for one in said])
    for column in ("n_mentions", "token_id", "position"):
        columns[column] = whole_numbers([getattr(one.concept, column) for one in said])
    columns["logit"] = numbers(logit.cpu().numpy())
    columns["prob"] = numbers(prob.cpu().numpy())
    columns["residual"] = numbers((logit - budget.total()).cpu().numpy())
    for column in ("is_first", "is_multi_token", "is_shared_token", "is_in_reference", "is_compound", "is_modifier"):
        columns[column] = flags([getattr(one.concept, column) for one in said])
    columns["target_at"] = texts([one.concept.target_at for one in said])
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
        "rank": numbers(np.tile(ranked.rank.numpy(), n_concepts)),
        "layer": numbers((unit // d_mlp).flatten().numpy()),
        "unit": numbers((unit % d_mlp).flatten().numpy()),
        "score": numbers(ranked.score.cpu().flatten().numpy()),
        "activation": numbers(activation.cpu().flatten().numpy()),
        "token_position": pa.nulls(n_concepts * k, pa.int32()) if token is None else numbers(token.astype(np.int32)),
        "expert": expert_column(anatomy, (unit // d_mlp).flatten(), (unit % d_mlp).flatten()),
    }
    table, is_unit = pa.table(columns), (unit >= 0).flatten()
    return table if is_unit.all() else table.filter(mask(is_unit.numpy()))


def expert_column(anatomy: Anatomy, layer: Int[Tensor, " n"], unit: Int[Tensor, " n"]) -> pa.Array:
    """The expert of each unit; empty where its layer has none."""
    if not anatomy.d_expert:
        return pa.nulls(len(unit), pa.int16())
    is_mixed = torch.tensor([one.routed is not None for one in anatomy.mixtures])
    experts = (unit // anatomy.d_expert).numpy().astype(np.int16)
    return numbers(experts, ~is_mixed[layer].numpy())


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
        "term": texts([term for term, layers, _ in terms for _ in layers] * len(said)),
        "layer": numbers(np.tile(layer, len(said)), np.tile(layer < 0, len(said))),
        "logit": numbers(torch.cat([values for _, _, values in terms], dim=1).cpu().numpy().flatten()),
    }
    return pa.table(columns)


def conservation_table(said: Sequence[ConceptAt], variant: Variant, found: Mapping[str, Conserved]) -> pa.Table:
    """One row for each concept and score whose terms should add up: to what, and to what they do."""
    tables = [
        pa.table(
            _keys(said, variant, 1)
            | {
                "method": _constant(method, len(said)),
                "expected": numbers(conserved.expected.cpu().numpy()),
                "total": numbers(conserved.total.cpu().numpy()),
            }
        )
        for method, conserved in found.items()
    ]
    return pa.concat_tables(tables)


def _keys(said: Sequence[ConceptAt], variant: Variant, n: int) -> dict[str, pa.Array]:
    """The columns image_id, variant and noun, each concept's repeated n times; by dictionary, since they are long."""
    index = np.repeat(np.arange(len(said), dtype=np.int32), n)

    def repeated(values: list[str]) -> pa.Array:
        distinct = texts(values).dictionary_encode()  # pandas refuses a dictionary that repeats a value
        return pa.DictionaryArray.from_arrays(distinct.indices.take(numbers(index)), distinct.dictionary)

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
    return pa.DictionaryArray.from_arrays(numbers(np.zeros(n, np.int32)), texts([value]))


def _token_ids(values: list[int]) -> pa.Array:
    return numbers(np.array(values, np.int32))

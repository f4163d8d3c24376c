"""Scores of every unit, beyond the stored top k: the run's own captions read again in one pass (teacher forcing).

What was said and where comes from the run's shards, so that nothing is captioned or tagged a second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from mmn import names
from mmn.core import Concept, Example
from mmn.models.model import Model
from mmn.reading.captions import read_captions
from mmn.reading.concepts import GeneratedCaption, token_ends_of
from mmn.runs.reopen import ScoredRun
from mmn.scores.batch import all_scores, measure
from mmn.scores.methods import Measured, Scored, concepts_at_once
from mmn.scores.rows import ConceptAt

_CONCEPT_FIELDS = tuple(Concept.__dataclass_fields__)


def stored_captions(
    model: Model, tables: Mapping[str, pa.Table], examples: Sequence[Example], variant: str = names.ORIGINAL
) -> list[GeneratedCaption]:
    """The captions of `examples` in a shard, in their order."""
    rows = tables["caption"].filter(pc.equal(tables["caption"]["variant"], variant)).to_pylist()
    tokens = {row["image_id"]: row["tokens"] for row in rows}

    def decode(token_ids: list[int]) -> str:
        return model.tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    captions = []
    for example in examples:
        text, ends = token_ends_of(tokens[example.image_id], decode)
        captions.append(GeneratedCaption(text, tuple(tokens[example.image_id]), tuple(ends)))
    return captions


def stored_texts(tables: Mapping[str, pa.Table], variant: str = names.ORIGINAL) -> dict[str, str]:
    """The texts of the captions of a shard, by picture."""
    rows = tables["caption"].filter(pc.equal(tables["caption"]["variant"], variant)).to_pylist()
    return {row["image_id"]: row["text"] for row in rows}


def stored_concepts(
    tables: Mapping[str, pa.Table],
    examples: Sequence[Example],
    variant: str = names.ORIGINAL,
    with_targets: bool = False,
) -> list[ConceptAt]:
    """The concepts of `examples` in a shard, by picture and position; words that the user chose only on request."""
    if "concept" not in tables:
        return []
    found: dict[str, list[Concept]] = {}
    for row in tables["concept"].filter(pc.equal(tables["concept"]["variant"], variant)).to_pylist():
        if with_targets or row["target_at"] is None:
            concept = Concept(**{name: row[name] for name in _CONCEPT_FIELDS})
            found.setdefault(row["image_id"], []).append(concept)
    return [
        ConceptAt(number, example, concept)
        for number, example in enumerate(examples)
        for concept in sorted(found.get(example.image_id, []), key=lambda one: (one.position, one.noun))
    ]


def reread(
    scored: ScoredRun,
    tables: Mapping[str, pa.Table],
    examples: Sequence[Example],
    images: Sequence[Image.Image],
    methods: Sequence[str],
) -> Iterator[tuple[Measured, dict[str, Scored]]]:
    """Yields what was measured and every unit's score by each method, for some of the concepts at a time.

    `methods` are without the random ones that follow another ranking and without `-minus-blank`. Scores differ from
    the stored ones by rounding alone (the run read its caption token by token, here it is one pass).
    """
    said = stored_concepts(tables, examples)
    if not said:
        return
    model = scored.model
    with_act = names.reads_act(methods)
    captions = stored_captions(model, tables, examples)
    batch = read_captions(model, images, scored.run.prompt, captions, with_act)
    settings = replace(scored.run.settings, methods=tuple(methods))
    size = concepts_at_once(model, methods)
    for start in range(0, len(said), size):
        measured = measure(model, batch, names.ORIGINAL, said[start : start + size], settings)
        yield measured, all_scores(measured)

"""One batch of pictures -> the tables of one shard: captions, concepts, ranked units, logit budgets.

    pictures ─► greedy captions, activations captured on the way ─► nouns ─► token and position of each
      ─► for each method the score of every unit of every layer, top k chosen on the device ─► Arrow tables

The `blank` variant is another picture, uniformly grey, under the same caption. What a unit's score loses there is what
the picture brought; that difference is a ranking of its own, `METHOD-minus-blank`. Variants with captions of their own
(`shuffled-N`, of `experiments.shuffled`) come through `score_captions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
import torch
from PIL import Image

from mmn import names
from mmn.core import Concept, Example, Failure, ScoreSettings
from mmn.errors import BatchError, LanguageError, UsageError
from mmn.lazily import load
from mmn.models.adapters import Anatomy
from mmn.models.model import Model
from mmn.reading.captions import CaptionBatch, caption_encoded, read_encoded
from mmn.reading.concepts import GeneratedCaption, find_concepts, target_concept
from mmn.reading.hooks import ACTIVATION, FINAL, ONCE, looked_up
from mmn.reading.language import is_english
from mmn.scores import rows
from mmn.scores.budget import Reading, ffn_outputs, logit_budget
from mmn.scores.equations import Ranked, folded_rows, rank_matched, rank_units, written_rows
from mmn.scores.exactness import inexact, sentence
from mmn.scores.methods import RUNS_PASSES, Measured, Scored, brought, concepts_at_once, draws
from mmn.scores.rows import ConceptAt, Tables, Variant
from mmn.studies.tables import failure_table

STAGE = "score"  # of a failure: the concept was found, and its logit does not add up
INEXACT = "InexactLogit"
GREY = (128, 128, 128)


def score_batch(
    model: Model,
    examples: Sequence[Example],
    images: Sequence[Image.Image],
    exact_prompt: str,
    settings: ScoreSettings,
) -> Tables:
    """Captions, scores and closes `images`; the tables are `image`, `caption`, `concept`, `score` and `budget`.

    A caption that is not English is a row of `failure`, too: its nouns are not sought, whatever it says. A concept
    whose logit is not what its terms add up to is a row of `failure` instead (`exactness.py`).

    Raises:
        EncodingError: the processor fails.
        BatchError: logits or scores that are not finite, by row.
    """
    with_act = names.reads_act(settings.methods)
    sizes = [image.size for image in images]
    inputs = model.encode_and_close(images, exact_prompt)
    original = caption_encoded(model, inputs, settings.max_new_tokens, with_act)
    batches = {names.ORIGINAL: original}
    if names.BLANK in settings.variants:
        grey = [Image.new("RGB", size, GREY) for size in sizes]
        grey_inputs = model.encode_and_close(grey, exact_prompt)
        batches[names.BLANK] = read_encoded(model, grey_inputs, original.captions, with_act)
    said = [
        ConceptAt(row, example, concept)
        for row, example in enumerate(examples)
        for concept in concepts_of(model, original, row, example, settings.targets)
    ]
    captions = [rows.caption_table(examples, batch.captions, variant) for variant, batch in batches.items()]
    tables = {"image": rows.image_table(examples), "caption": pa.concat_tables(captions)}
    if failures := not_english(examples, original.captions):
        tables["failure"] = failure_table(failures)
    scored = _some_at_a_time(
        model, settings.methods, said, lambda some: _score_concepts(model, batches, some, settings)
    )
    return rows.joined([tables, scored])


def score_captions(
    model: Model, batch: CaptionBatch, examples: Sequence[Example], variants: Sequence[str], settings: ScoreSettings
) -> Tables:
    """Scores captions that are written already, each of a variant of its own; the tables of `score_batch` but `image`.

    Args:
        model: What wrote them.
        batch: The captions; its rows may be several variants of one picture.
        examples: The picture of each row.
        variants: The variant of each row.
        settings: As for `score_batch`, but for `variants`, and with the nouns of the captions alone.
    """
    said = [
        ConceptAt(row, example, concept)
        for row, example in enumerate(examples)
        for concept in concepts_of(model, batch, row, example, ())
    ]
    captions = rows.caption_table(examples, batch.captions, variants)

    def score(some: Sequence[ConceptAt]) -> Tables:
        return _score_variant(model, batch, [variants[one.row] for one in some], some, settings)[0]

    return {"caption": captions} | _some_at_a_time(model, settings.methods, said, score)


def not_english(examples: Sequence[Example], captions: Sequence[GeneratedCaption]) -> list[Failure]:
    """One failure for each caption that is in another language."""
    remedy = "nouns are found in English alone: ask for it in --prompt, or begin the answer in it (--answer-prefix)"
    return [
        Failure(example.source, "caption", LanguageError.__name__, f"the caption “{text}” is not English; {remedy}")
        for example, text in zip(examples, (caption.text for caption in captions), strict=True)
        if not is_english(text)
    ]


def check_methods(methods: Sequence[str]) -> None:
    """Raises `UsageError` for a method that there is none of, or that comes with the blank variant by itself."""
    for method in methods:
        if method.endswith(names.MINUS_BLANK):
            raise UsageError(f"{method} is not asked for by name: --blank ranks every method by that difference, too")
        if method in names.REFUSED:
            raise UsageError(f"{method} is refused: {names.REFUSED[method]}")
        try:
            names.definition(method)
        except KeyError:
            raise UsageError(f"no method {method!r}; there are {', '.join(names.METHODS)}") from None


def concepts_of(
    model: Model, batch: CaptionBatch, row: int, example: Example, targets: Sequence[str]
) -> Iterator[Concept]:
    """The caption's nouns, then the user's own words at the position that they ask for (WORD or WORD@NOUN).

    A word that the caption says is a concept already, at its own position, and is not scored a second time.
    """
    concepts = find_concepts(batch.captions[row], example.references)
    yield from concepts
    taken = {concept.noun for concept in concepts}

    def encode(text: str) -> list[int]:
        return model.tokenizer(text, add_special_tokens=False).input_ids

    for target in targets:
        word, _, at_noun = target.partition("@")
        places = [c for c in concepts if (at_noun.lower() in (c.noun, c.lemma) if at_noun else c.is_first)]
        if places and word.lower() not in taken:
            taken.add(word.lower())
            yield target_concept(word, places[0], encode, example.references)


def _some_at_a_time(
    model: Model, methods: Sequence[str], said: Sequence[ConceptAt], score: Callable[[Sequence[ConceptAt]], Tables]
) -> Tables:
    """The tables `concept`, `score` and `budget` of all concepts, and `failure`; those of them that have rows."""
    size = concepts_at_once(model, methods)
    parts = [_score_exact(model, said[start : start + size], score) for start in range(0, len(said), size)]
    return rows.joined(parts)


def _score_exact(model: Model, said: Sequence[ConceptAt], score: Callable[[Sequence[ConceptAt]], Tables]) -> Tables:
    """The tables of the concepts whose logits add up, and a row of `failure` for each other one."""
    tables = score(said)
    wrong = inexact(tables["concept"], len(said), model.dtype)
    if not wrong:
        return tables
    failures = [
        Failure(said[index].example.source, STAGE, INEXACT, sentence([said[index].concept.noun], by, model.dtype))
        for index, by in wrong.items()
    ]
    right = [one for index, one in enumerate(said) if index not in wrong]
    return (score(right) if right else {}) | {"failure": failure_table(failures)}


def _score_concepts(
    model: Model, batches: dict[str, CaptionBatch], said: Sequence[ConceptAt], settings: ScoreSettings
) -> Tables:
    parts: list[Tables] = []
    scores: dict[str, dict[str, Scored]] = {}
    for variant, batch in batches.items():
        tables, scores[variant] = _score_variant(model, batch, variant, said, settings)
        parts.append(tables)
    if names.BLANK in batches:
        parts.append({"score": pa.concat_tables(_rank_differences(model, said, scores, settings))})
    return rows.joined(parts)


def _score_variant(
    model: Model, batch: CaptionBatch, variant: Variant, said: Sequence[ConceptAt], settings: ScoreSettings
) -> tuple[Tables, dict[str, Scored]]:
    """The tables of concepts of one captured batch, and every unit's scores."""
    with torch.inference_mode():
        measured = measure(model, batch, variant, said, settings)
        folded_scores = measured.folded_scores
        budget = logit_budget(
            model.anatomy, batch.captured, measured.reading, measured.folded, measured.written, folded_scores
        )
        logits = batch.logits_at(measured.reading.rows, measured.reading.steps)
    scores = all_scores(measured)
    tables = {
        "concept": rows.concept_table(
            said, variant, measured.reading.token_ids, logits, budget, model.anatomy.uncapped
        ),
        "score": pa.concat_tables(_rank_all(measured, scores)),
        "budget": rows.budget_table(said, variant, budget),
    }
    conserved = {method: one.conserved for method, one in scores.items() if one.conserved is not None}
    more = {"conservation": rows.conservation_table(said, variant, conserved)} if conserved else {}
    return tables | more, scores


def measure(
    model: Model, batch: CaptionBatch, variant: Variant, said: Sequence[ConceptAt], settings: ScoreSettings
) -> Measured:
    """What every method reads of the concepts `said`, from a captured batch; `variant` is theirs, or each one's."""
    reading = Reading(
        rows=torch.tensor([one.row for one in said]),
        steps=torch.tensor([one.concept.position for one in said]),
        token_ids=torch.tensor([one.concept.token_id for one in said], device=model.device),
    )
    rows = model.anatomy.w_u(reading.token_ids)
    final = batch.captured.read(FINAL, ONCE, reading.rows, reading.steps)
    read = (reading.rows, reading.steps)
    a, chosen = batch.captured.read_layers(ACTIVATION, *read), batch.captured.chosen(*read)
    units = batch.captured.flat_units(*read)
    folded = folded_rows(model.anatomy, rows, final)
    written = written_rows(model.anatomy, folded, ffn_outputs(model.anatomy, batch.captured, reading))
    return Measured(model, batch, variant, said, reading, a, rows, folded, written, settings, chosen, units)


def all_scores(measured: Measured) -> dict[str, Scored]:
    """Scores of every method that was asked for, or that a matched control follows; not the controls' own."""
    scored = {}
    for method in dict.fromkeys(map(names.followed, measured.settings.methods)):
        found = load(names.METHODS[method].score)(measured)
        scored[method] = replace(found, units=measured.units) if found.units is None else found
        _require_finite(measured, method, scored[method])
    return scored


def _require_finite(measured: Measured, method: str, scored: Scored) -> None:
    """Raises `BatchError` with the pictures whose passes overflowed; anything else, with finite logits, is ours."""
    is_ranked = scored.is_ranked
    is_right = torch.isfinite(scored.score) if is_ranked is None else torch.isfinite(scored.score) | ~is_ranked
    is_finite = is_right.flatten(1).all(dim=1).tolist()
    if all(is_finite):
        return
    name = measured.model.facts.name
    assert method in RUNS_PASSES, f"{method} is not finite for {name}"
    dtype = str(measured.model.dtype).removeprefix("torch.")
    reason = f"scores by {method} are not finite in {dtype}; try --dtype bfloat16 or float32"
    rows = sorted({one.row for one, right in zip(measured.said, is_finite, strict=True) if not right})
    raise BatchError(STAGE, dict.fromkeys(rows, reason))


def _rank_all(measured: Measured, scored: dict[str, Scored]) -> list[pa.Table]:
    settings, tables = measured.settings, []
    for method in settings.methods:
        if method.startswith(names.RANDOM_MATCHED):
            reference = scored[names.reference_of(method)]
            of, ranked = _control_of(measured, reference), _matched(measured, method, reference)
        else:
            of = scored[method]
            ranked = rank_units(of.score, settings.top_k, settings.bottom_k, of.is_ranked)
        tables.append(_score_table(measured.said, measured.variant, method, ranked, of, measured.model.anatomy))
    return tables


def _matched(measured: Measured, method: str, reference: Scored) -> Ranked:
    ranked = rank_units(reference.score, measured.settings.top_k, is_unit=reference.is_ranked)
    return rank_matched(draws(measured, method, reference), ranked.unit)


def _control_of(measured: Measured, reference: Scored) -> Scored:
    """What a control of the reference's units reads: a at p(c), 0 of those that sleep there."""
    if reference.units is None or measured.units is None or reference.units is measured.units:
        return Scored(measured.a, measured.a, units=measured.units)
    n_layers = reference.units.shape[1]
    a = looked_up(measured.units[:, :n_layers], reference.units, measured.a[:, :n_layers])
    return Scored(a, a, units=reference.units)


def _rank_differences(
    model: Model, said: Sequence[ConceptAt], scores: dict[str, dict[str, Scored]], settings: ScoreSettings
) -> list[pa.Table]:
    """Rankings by how much of a unit's score the picture brought; a draw has no such thing."""
    tables = []
    for method in settings.methods:
        if not method.startswith(names.RANDOM):
            original, difference = brought(scores[names.ORIGINAL][method], scores[names.BLANK][method])
            ranked = rank_units(difference, settings.top_k, settings.bottom_k, original.is_ranked)
            name = method + names.MINUS_BLANK
            tables.append(_score_table(said, names.ORIGINAL, name, ranked, original, model.anatomy))
    return tables


def _score_table(
    said: Sequence[ConceptAt], variant: Variant, method: str, ranked: Ranked, scored: Scored, anatomy: Anatomy
) -> pa.Table:
    """The chosen units with the activation, and where it applies the image token, that their score was read at."""
    at = ranked.unit.clamp(min=0)
    token = None if scored.token_position is None else scored.token_position.flatten(1).gather(1, at)
    activation = scored.activation.flatten(1).gather(1, at)
    ranked = replace(ranked, unit=scored.flat(ranked.unit, anatomy.d_mlp))
    return rows.score_table(said, variant, method, ranked, activation, token, anatomy)

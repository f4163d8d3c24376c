"""What is known to be in a run's pictures, and the objects that its image tokens are asked about.

    outlined    the objects that are annotated in the picture, crowds included; None where nothing of it is outlined
    outlinable  all objects that the source of its masks tells of, in whatever picture
    mentioned   the lemmas of its references' words (as `concept.is_in_reference`), and names of several words that its
                synonyms list; of these no word that means another object: a hot dog is no dog. None without English
                references

An object is present where it is outlined or mentioned, by its own name or by another word for it (`reading.synonyms`).
CHAIR (Rohrbach et al. 2018) takes the same union of COCO's annotations and captions. Image tokens are asked about each
object once, by its own name, or by a word for it where that name has several words: nouns of captions are single ones.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmn.core import Example
from mmn.reading.concepts import mentioned_names
from mmn.reading.language import is_english
from mmn.reading.nouns import tag_nouns
from mmn.reading.synonyms import Synonyms
from mmn.runs import shards
from mmn.runs.added_later import added_references, mask_specs, open_run_masks, pinned_synonyms, run_examples
from mmn.runs.reopen import ScoredRun
from mmn.studies.hallucination.judging import Judge, Known
from mmn.units.masks import MaskSource, first_of, source_of


@dataclass(frozen=True)
class Truth:
    """The run's pictures by image_id: what is known of each, and a hash of what that comes from.

    `synonyms` is the number under which the run holds the list that all are judged by.
    """

    masks: MaskSource | None
    known: Mapping[str, Known]
    versions: Mapping[str, str]
    objects: tuple[str, ...]
    synonyms: int

    def digest(self) -> str:
        """A hash of all that is known."""
        return hashlib.sha256(repr(sorted(self.versions.items())).encode()).hexdigest()[:16]


def read_truth(scored: ScoredRun, n_objects: int) -> Truth:
    """What masks and references say of a run's pictures, and the `n_objects` objects that most pictures have.

    Outlined objects come first, then nouns of references, then nouns of captions; each by the number of its pictures.

    Raises:
        UsageError, SourceError: a source of masks that was added cannot be read any more.
    """
    examples, added = run_examples(scored.path), added_references(scored.path)
    examples = tuple(replace(one, references=added.get(one.image_id, one.references)) for one in examples)
    number, synonyms = pinned_synonyms(scored.path)
    sources, _ = open_run_masks(mask_specs(scored.path), scored.run, examples, synonyms)
    masks = first_of(sources) if sources else None
    known = {one.image_id: _known(one, sources, synonyms) for one in examples}
    versions = {one.image_id: _version(one, sources, synonyms) for one in examples}
    objects = _objects(examples, Judge.of(known), _said(scored.path), n_objects)
    return Truth(masks, known, versions, objects, number)


def _known(example: Example, sources: Sequence[MaskSource], synonyms: Synonyms) -> Known:
    source = source_of(example, sources)
    outlined = None if source is None else source.shown(example) or None
    mentioned = mentioned_names(example.references, synonyms)
    return Known(outlined, mentioned, None if source is None else source.objects, synonyms)


def _version(example: Example, sources: Sequence[MaskSource], synonyms: Synonyms) -> str:
    source = source_of(example, sources)
    masks = [] if source is None else [source.version(example), sorted(source.shown(example)), sorted(source.objects)]
    return hashlib.sha256(repr([masks, synonyms.digest, *example.references]).encode()).hexdigest()[:16]


def _objects(examples: Iterable[Example], judge: Judge, said: Mapping[str, int], n_objects: int) -> tuple[str, ...]:
    """The vocabulary of objects, most frequent first, each once: by its own name, or else by its most frequent word."""
    outlined = Counter(name for one in judge.known.values() for name in one.outlined or ())
    nouns = [
        (one.image_id, span.lemma)
        for one in examples
        for text in one.references
        if is_english(text)
        for span in tag_nouns(text)
    ]
    mentioned = Counter(lemma for _, lemma in dict.fromkeys(nouns))
    ordered = [name for counts in (outlined, mentioned, Counter(said)) for name in _by_count(counts)]
    means = {name: _meaning(judge, name) for name in ordered}
    chosen: dict[str, str] = {}
    for name in ordered:
        own = next((one for one in (means[name], name) if one.isalpha() and len(one) > 1), None)
        if own is not None:
            chosen.setdefault(means[name], own)
    return tuple(dict.fromkeys(chosen.values()))[:n_objects]


def _meaning(judge: Judge, name: str) -> str:
    """The object that a name is called for in a run, whatever the picture."""
    if name in judge.outlinable:
        return name
    return next((one.synonyms.meaning(name) for one in judge.known.values()), name)


def _by_count(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda name: (-counts[name], name))


def _said(run_path: Path) -> dict[str, int]:
    """How many captions of the run say each lemma."""
    found: set[tuple[str, str]] = set()
    for name in sorted(shards.finished_shards(run_path)):
        if "concept" in shards.row_counts(run_path / name):
            rows: list[dict[str, Any]] = shards.read_shard(run_path / name, ("concept",))["concept"].to_pylist()
            found |= {(row["image_id"], row["lemma"]) for row in rows if row["target_at"] is None}
    return dict(Counter(lemma for _, lemma in found))

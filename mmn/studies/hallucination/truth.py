"""What is known to be in a run's pictures, and the objects that its image tokens are asked about.

    outlined   the objects that the picture's masks are of; None where nothing of the picture is outlined
    mentioned  the lemmas of its references' words (as `concept.is_in_reference`); None without English references

An object is present where it is outlined or mentioned. CHAIR (Rohrbach et al. 2018) takes the same union of COCO's
outlines and captions; its list of synonyms is not here, so that "puppy" is no "dog": what is called hallucinated may be
another word for what is there. Names of several words are left out, as the nouns of a caption are single ones.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from mmn.core import Example
from mmn.reading.concepts import reference_lemmas
from mmn.reading.language import is_english
from mmn.reading.nouns import tag_nouns
from mmn.runs import shards
from mmn.runs.added_later import added_references, mask_specs, open_run_masks, run_examples
from mmn.runs.reopen import ScoredRun
from mmn.studies.hallucination.judging import Known
from mmn.units.masks import MaskSource, first_of, source_of

N_OUTLINED: Final = 1000  # pictures of a run whose outlines are drawn to learn which objects there are


@dataclass(frozen=True)
class Truth:
    """The run's pictures by image_id: what is known of each, and a hash of what that comes from."""

    masks: MaskSource | None
    known: Mapping[str, Known]
    versions: Mapping[str, str]
    objects: tuple[str, ...]

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
    sources, _ = open_run_masks(mask_specs(scored.path), scored.run, examples)
    masks = first_of(sources) if sources else None
    known = {one.image_id: _known(one, sources, index) for index, one in enumerate(examples)}
    versions = {one.image_id: _version(one, sources) for one in examples}
    return Truth(masks, known, versions, _objects(examples, known, _said(scored.path), n_objects))


def _known(example: Example, sources: Sequence[MaskSource], index: int) -> Known:
    source = source_of(example, sources)
    outlined = None
    if source is not None and index < N_OUTLINED:
        outlined = frozenset(source.find(example)) or None
    has_english = any(map(is_english, example.references))
    return Known(outlined, reference_lemmas(example.references) if has_english else None)


def _version(example: Example, sources: Sequence[MaskSource]) -> str:
    source = source_of(example, sources)
    told = ["" if source is None else source.version(example), *example.references]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def _objects(
    examples: Iterable[Example], known: Mapping[str, Known], said: Mapping[str, int], n_objects: int
) -> tuple[str, ...]:
    """The vocabulary of objects, most frequent first."""
    outlined = Counter(name for one in known.values() for name in one.outlined or ())
    nouns = [
        {span.lemma for text in one.references if is_english(text) for span in tag_nouns(text)} for one in examples
    ]
    mentioned = Counter(lemma for each in nouns for lemma in each)
    ordered = [name for counts in (outlined, mentioned, Counter(said)) for name in _by_count(counts)]
    return tuple(one for one in dict.fromkeys(ordered) if one.isalpha() and len(one) > 1)[:n_objects]


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

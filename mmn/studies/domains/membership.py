"""Which pictures of a run make up which domain: those that say a noun, those of a folder, or all under the run's tags.

    noun     a picture belongs to every domain whose noun its caption says; the most frequent nouns, or those asked for
    folder   the folder of its file, told from where the run's folders part: a class of an ImageFolder, a data set
    tag      what the run is called (`mmn label RUN --tags driving`): domains are then compared between runs of a model

Of a domain the first `most` pictures count, in an order that depends on the seed and the picture alone. OURS: MMNeuron
(arXiv 2406.11193) has five data sets, a domain each, of up to 10,000 samples or 1e5 image tokens (CODE).
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmn.core import Example
from mmn.errors import UsageError
from mmn.printable import quoted
from mmn.studies.domains.words import FOLDER, NOUN, TAG

LEAST: Final = 2  # pictures of a domain: one for each half


@dataclass(frozen=True)
class Asked:
    """What pictures are grouped by.

    Attributes:
        by: noun, folder or tag.
        names: only these domains; () for the most frequent.
        n_domains: how many of these.
        most: pictures of a domain.
    """

    by: str
    names: tuple[str, ...] = ()
    n_domains: int = 6
    most: int = 50


def find_domains(
    asked: Asked,
    examples: Sequence[Example],
    said: Mapping[str, Collection[str]],
    tags: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, tuple[str, ...]]:
    """Each domain's pictures, the domain of most pictures first.

    Args:
        asked: what was asked for.
        examples: the run's pictures.
        said: of each picture (`image_id`) the lemmas of its caption.
        tags: of the run.
        seed: of the pictures' order.

    Raises:
        UsageError: no such domain, or none: all pictures are in one folder, the run has no tag.
    """
    domains = every_domain(asked.by, examples, said, tags)
    every = {name: pictures for name, pictures in domains.items() if len(pictures) >= LEAST}
    chosen = {name: in_order(every[name], seed)[: asked.most] for name in _chosen(asked, every)}
    if not chosen:
        raise UsageError(f"no {asked.by} has {LEAST} pictures, which a domain needs: score more pictures")
    return chosen


def every_domain(
    by: str, examples: Sequence[Example], said: Mapping[str, Collection[str]], tags: Sequence[str]
) -> dict[str, list[str]]:
    """All pictures of every domain (raises as `find_domains`)."""
    of = {
        NOUN: lambda: _by_noun(examples, said),
        FOLDER: lambda: _by_folder(examples),
        TAG: lambda: _by_tag(examples, tags),
    }
    return of[by]()


def in_order(image_ids: Collection[str], seed: int) -> tuple[str, ...]:
    """The pictures in an order that neither their names nor their places make."""
    return tuple(sorted(image_ids, key=lambda one: hashlib.sha256(f"domains {seed} {one}".encode()).digest()))


def _chosen(asked: Asked, every: Mapping[str, Collection[str]]) -> list[str]:
    ranked = sorted(every, key=lambda name: (-len(every[name]), name))
    if missing := [name for name in asked.names if name not in every]:
        known = ", ".join(ranked[:12]) or "none"
        raise UsageError(f"no {asked.by} {quoted(missing[0])} with {LEAST} pictures in this run; there are {known}")
    return list(asked.names) or ranked[: asked.n_domains]


def _by_noun(examples: Sequence[Example], said: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in examples:
        for lemma in sorted(said.get(one.image_id, ())):
            found.setdefault(lemma, []).append(one.image_id)
    return found


def _by_folder(examples: Sequence[Example]) -> dict[str, list[str]]:
    folders = {one.image_id: str(Path(one.source).parent) for one in examples}
    if len(set(folders.values())) < 2:
        raise UsageError(
            f"all pictures of this run lie in {next(iter(folders.values()), 'no folder')}: --by folder needs pictures "
            "in several; score a folder of folders, or take --by noun or tag"
        )
    root = os.path.commonpath(list(folders.values()))
    found: dict[str, list[str]] = {}
    for image_id, folder in folders.items():
        found.setdefault(Path(os.path.relpath(folder, root)).as_posix(), []).append(image_id)
    return found


def _by_tag(examples: Sequence[Example], tags: Sequence[str]) -> dict[str, list[str]]:
    if not tags:
        raise UsageError("this run has no tag: mmn label RUN --tags driving gives it one, and other runs theirs")
    return {tag: [one.image_id for one in examples] for tag in tags}


def overlaps(domains: Mapping[str, Collection[str]]) -> int:
    """How many pictures are in more than one domain."""
    counted = Counter(image_id for pictures in domains.values() for image_id in pictures)
    return sum(n > 1 for n in counted.values())

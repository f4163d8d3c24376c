"""Chooses a unit on one picture of a noun to judge it on another: what was chosen as high need not be high there.

    nouns of the run's captions, by lemma ─► for each picture of a lemma another picture of it (`partners`)
      ─► that picture's top units for the noun (`top_units`), to be judged on this one

A unit that is its noun's maximum on a picture is above the others there by selection, whatever it does. So its number
on the same picture (`SAME`) stands beside the number that the same choice gives where it cannot mean anything
(`SHUFFLED`), and what is concluded rests on the unit found elsewhere (`HELD_OUT`). OURS; P1 and P2 judge where they
choose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mmn import names
from mmn.core import Neuron
from mmn.runs import shards

Key = tuple[str, str]  # picture and noun


@dataclass(frozen=True)
class Found:
    """The top units of a noun on a picture that says it, rank 1 first."""

    image_id: str
    units: tuple[Neuron, ...]


@dataclass(frozen=True)
class HeldOut:
    """Of each noun of a picture, and each method, the units found on another picture of the same lemma."""

    partners: Mapping[Key, Key]
    tops: Mapping[tuple[Key, str], tuple[Neuron, ...]]

    def of(self, image_id: str, noun: str, method: str) -> Found | None:
        """None where no other picture's caption says the lemma, or the method ranked no unit there."""
        partner = self.partners.get((image_id, noun))
        units = self.tops.get((partner, method)) if partner else None
        return Found(partner[0], units) if partner and units else None

    def digest(self) -> str:
        """Changes with any pair: what was measured with other pairs is not the same answer."""
        return hashlib.sha256(repr(sorted(self.partners.items())).encode()).hexdigest()


def read_held_out(run_path: Path, methods: Collection[str], top: int, seed: int) -> HeldOut:
    """The partners of all nouns of a run's captions, and the partners' `top` units by each method."""
    said: list[tuple[str, str, str]] = []
    tops: dict[tuple[Key, str], tuple[Neuron, ...]] = {}
    for name in sorted(shards.finished_shards(run_path)):
        tables = shards.row_counts(run_path / name)
        if "score" in tables and "image" in tables:
            said += _said(run_path / name)
            tops |= _top_units(run_path / name, methods, top)
    return HeldOut(partners(said, seed), tops)


def partners(said: Iterable[tuple[str, str, str]], seed: int) -> dict[Key, Key]:
    """For each noun of a picture another picture of the same lemma, and the form in which that one says it.

    Which one is a hash of seed, lemma and picture: neither batches nor the order of the pictures change it, other
    pictures of the lemma do. A lemma of one picture alone has no partner.

    Args:
        said: picture, noun and lemma of each concept of the captions; a lemma once a picture.
        seed: of the choice.
    """
    places: dict[str, list[Key]] = {}
    for image_id, noun, lemma in said:
        places.setdefault(lemma, []).append((image_id, noun))
    found: dict[Key, Key] = {}
    for lemma, some in places.items():
        ordered = sorted(some)
        for place, own in enumerate(ordered):
            if len(ordered) > 1:
                step = 1 + _number(seed, lemma, own[0]) % (len(ordered) - 1)
                found[own] = ordered[(place + step) % len(ordered)]
    return found


def _number(seed: int, lemma: str, image_id: str) -> int:
    key = "\0".join([str(seed), lemma, image_id, names.HELD_OUT])
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def _said(shard_path: Path) -> list[tuple[str, str, str]]:
    """Picture, noun and lemma of a shard's own captions; words that the user chose do not count."""
    if "concept" not in shards.row_counts(shard_path):
        return []
    rows = shards.read_columns(shard_path, "concept", ["image_id", "variant", "noun", "lemma", "target_at"])
    rows = rows.filter(pc.and_(pc.equal(rows["variant"], names.ORIGINAL), pc.is_null(rows["target_at"])))
    return [(row["image_id"], row["noun"], row["lemma"]) for row in rows.to_pylist()]


def _top_units(shard_path: Path, methods: Collection[str], top: int) -> dict[tuple[Key, str], tuple[Neuron, ...]]:
    columns = ["image_id", "variant", "noun", "method", "rank", "layer", "unit"]
    scores = shards.read_columns(shard_path, "score", columns)
    is_top = pc.and_(pc.greater_equal(scores["rank"], 1), pc.less_equal(scores["rank"], top))
    scores = scores.filter(pc.and_(is_top, pc.equal(scores["variant"], names.ORIGINAL)))
    scores = scores.filter(pc.is_in(scores["method"], pa.array(sorted(methods), pa.string())))
    units: dict[tuple[Key, str], list[Neuron]] = {}
    for row in scores.sort_by("rank").to_pylist():
        ranked = units.setdefault(((row["image_id"], row["noun"]), row["method"]), [])
        ranked.append(Neuron(row["layer"], row["unit"]))
        assert len(ranked) == row["rank"], f"rank {row['rank']} comes after {len(ranked) - 1} of {row}"
    return {key: tuple(ranked) for key, ranked in units.items()}

"""A scoring run from its inputs: the id, the batches, what is already there, what is left.

The id is a hash of every input that can change a number. The same inputs give the same id, so the same command
resumes: batches are fixed by the plan, and a batch whose shard is there is not done again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mmn.core import Example, Failure, ModelFacts, Run, ScoreSettings
from mmn.images import Listing
from mmn.names import ORIGINAL
from mmn.runs import shards
from mmn.studies.tables import failure_table

SCORING_VERSION = 3  # raise it when the same inputs would give other numbers
_PACKAGES = ("torch", "transformers", "tokenizers", "pillow", "numpy", "HanTa", "lemminflect")
LISTING_SHARD = "listing"


@dataclass(frozen=True)
class Progress:
    """How far a job is: `done` of `total` (pictures, or 0 of 0 where nothing can be counted) in `stage`."""

    stage: str
    done: int = 0
    total: int = 0
    message: str = ""


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True)
class Batch:
    """Pictures that are captioned together; `name` is the shard's."""

    name: str
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Plan:
    """A run and all its batches; `failures` are the pictures that could not even be listed."""

    run: Run
    batches: tuple[Batch, ...]
    failures: tuple[Failure, ...]

    @property
    def n_images(self) -> int:
        return sum(len(batch.examples) for batch in self.batches)


@dataclass(frozen=True)
class Counts:
    """What a run's shards hold. Concepts are counted once, scores in every variant.

    `max_residual` is the largest |residual| / max(|logit|, 1) of any variant, None without concepts.
    """

    n_images: int
    n_failed: int
    n_concepts: int
    n_scores: int
    max_residual: float | None


def plan(
    model: ModelFacts,
    listing: Listing,
    images: str,
    exact_prompt: str,
    settings: ScoreSettings,
    proof: Mapping[str, float] | None = None,
) -> Plan:
    """Splits the pictures into batches, in the source's order, and names the run."""
    versions = {name: version(name) for name in _PACKAGES} | {"scoring": str(SCORING_VERSION)}
    run = Run(
        run_id=run_id(model, listing.examples, exact_prompt, settings, versions),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model,
        images=images,
        prompt=exact_prompt,
        settings=settings,
        versions=versions,
        proof=dict(proof or {}),
    )
    size = settings.batch_size
    batches = tuple(
        Batch(f"batch-{start // size:05d}", listing.examples[start : start + size])
        for start in range(0, len(listing.examples), size)
    )
    return Plan(run, batches, listing.failures)


def run_id(
    model: ModelFacts,
    examples: Sequence[Example],
    exact_prompt: str,
    settings: ScoreSettings,
    versions: dict[str, str],
) -> str:
    """16 hexadecimal digits over everything that can change a number: not the names and places of things."""
    inputs = {
        "model": model.fingerprint,
        "images": [(example.image_id, example.references) for example in examples],
        "prompt": exact_prompt,
        "settings": _told(settings),
        "versions": versions,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def _told(settings: ScoreSettings) -> dict[str, Any]:
    """All settings; those that came later only where they are chosen, so that earlier runs keep their ids."""
    told = asdict(settings)
    return told if settings.effect_layers else {name: told[name] for name in told if name != "effect_layers"}


def open_run(plan: Plan, runs_path: Path) -> tuple[Path, tuple[Batch, ...]]:
    """The run's folder, made if new, and the batches that are still to be done."""
    run_path = shards.create_run(runs_path, plan.run)
    if plan.failures:
        shards.write_shard(run_path, LISTING_SHARD, {"failure": failure_table(plan.failures)})
    finished = shards.finished_shards(run_path)
    return run_path, tuple(batch for batch in plan.batches if batch.name not in finished)


def count(run_path: Path) -> Counts:
    """Adds up what the run's finished shards hold."""
    n_images = n_failed = n_concepts = n_scores = 0
    largest: float | None = None
    for name in sorted(shards.finished_shards(run_path)):
        tables = shards.read_shard(run_path / name)
        n_images += len(tables["image"]) if "image" in tables else 0
        n_failed += len(tables["failure"]) if "failure" in tables else 0
        n_scores += len(tables["score"]) if "score" in tables else 0
        if "concept" in tables and len(tables["concept"]):
            n_concepts += pc.sum(pc.equal(tables["concept"]["variant"], ORIGINAL)).as_py()
            largest = max(largest or 0.0, _largest_residual(tables["concept"]))
    return Counts(n_images, n_failed, n_concepts, n_scores, largest)


def conservation(run_path: Path) -> dict[str, float]:
    """By score whose terms should add up, the largest share of max(|logits|, 1) that they miss in any variant."""
    missing: dict[str, float] = {}
    for name in sorted(shards.finished_shards(run_path)):
        if "conservation" in shards.row_counts(run_path / name):
            found = _largest_missing(shards.read_shard(run_path / name)["conservation"])
            missing |= {method: max(missing.get(method, 0.0), one) for method, one in found.items()}
    return missing


def unscored(run_path: Path, targets: Sequence[str]) -> tuple[str, ...]:
    """The targets, as WORD or WORD@NOUN, that were scored nowhere: no caption has a place for them."""
    said: set[str] = set()
    for name in sorted(shards.finished_shards(run_path)) if targets else ():
        if "concept" in shards.row_counts(run_path / name):
            said |= set(shards.read_columns(run_path / name, "concept", ["noun"])["noun"].to_pylist())
    return tuple(one for one in targets if " ".join(one.partition("@")[0].split()).lower() not in said)


def _largest_missing(table: pa.Table) -> dict[str, float]:
    expected, total = table["expected"], table["total"]
    scale = pc.max_element_wise(pc.abs(expected), 1.0)
    missing = pc.divide(pc.abs(pc.subtract(expected, total)), scale)
    largest = pa.table({"method": table["method"], "missing": missing}).group_by("method")
    return {row["method"]: row["missing_max"] for row in largest.aggregate([("missing", "max")]).to_pylist()}


def _largest_residual(concepts: pa.Table) -> float:
    scale = pc.max_element_wise(pc.abs(concepts["logit"]), 1.0)
    return pc.max(pc.divide(pc.abs(concepts["residual"]), scale)).as_py()

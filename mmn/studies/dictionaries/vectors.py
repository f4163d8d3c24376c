"""What does the model hold where it is about to say a noun? The vectors of a dictionary, one for each picture.

    captions that say the noun ─► each read again over its picture (teacher forcing), at p(c), the pass that predicts
    the noun's first token ─► `residual`: the residual stream, behind a layer or behind the final norm
                              `units`: what each unit writes, a · ‖W_out[:, i]‖

CoX-LMM (arXiv 2406.08074) takes the residual. Units are OURS, and scaled by the length of what they write: a model
whose unit is twice as active and whose column is half as long is the same model, and has the same vectors here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmn.core import Example, Failure
from mmn.models.model import Model
from mmn.names import ORIGINAL
from mmn.reading.captions import CaptionBatch, read_captions
from mmn.reading.hooks import ACTIVATION, FINAL, ONCE, RESIDUAL
from mmn.runs import reopen, shards
from mmn.runs.teacher_forcing import stored_captions, stored_concepts
from mmn.scores.rows import ConceptAt

STAGE: Final = "dictionaries"
FINAL_NORM: Final = "final"  # behind the final norm, as the unembedding reads it
UNITS: Final = "units"
ACTIVATIONS: Final = "activations"  # a of every unit, L·m of them; in a mixture of experts sparse, of those awake
LAYER: Final = "layer-"  # and a number: behind that layer


@dataclass(frozen=True)
class Folder:
    """A run's folder, without its model."""

    path: Path


@dataclass(frozen=True)
class Pictures:
    """The pictures whose captions say a lemma, in the run's order: by scored batch, their ids."""

    lemma: str
    by_batch: Mapping[str, tuple[str, ...]]

    @property
    def image_ids(self) -> tuple[str, ...]:
        return tuple(image_id for some in self.by_batch.values() for image_id in some)

    def first(self, limit: int) -> Pictures:
        """The first so many of them."""
        left, kept = limit, {}
        for batch, some in self.by_batch.items():
            kept[batch] = some[:left]
            left -= len(kept[batch])
        return replace(self, by_batch={batch: some for batch, some in kept.items() if some})

    def among(self, image_ids: frozenset[str]) -> Pictures:
        """Those of them that are in another run, too."""
        kept = {batch: tuple(one for one in some if one in image_ids) for batch, some in self.by_batch.items()}
        return replace(self, by_batch={batch: some for batch, some in kept.items() if some})


@dataclass(frozen=True)
class Vectors:
    """Vectors of one noun: row i is of picture `examples[i]`, whose caption is `texts[i]`; `values[site]` are those of
    a site, in float32 on the CPU.
    """

    examples: tuple[Example, ...]
    texts: tuple[str, ...]
    values: Mapping[str, Float[Tensor, "n width"]]
    failures: tuple[Failure, ...] = ()


@dataclass
class _Gathered:
    examples: list[Example] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    values: dict[str, list[Tensor]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


def pictures_of_lemmas(run_path: Path) -> dict[str, Pictures]:
    """For each lemma that the run's own captions say the pictures that say it; the most frequent lemma first."""
    found: dict[str, dict[str, list[str]]] = {}
    for batch in reopen.batches(Folder(run_path)):
        for row in _said(run_path / batch):
            some = found.setdefault(row["lemma"], {}).setdefault(batch, [])
            if row["image_id"] not in some:
                some.append(row["image_id"])
    pictures = [
        Pictures(lemma, {batch: tuple(some) for batch, some in of.items()}) for lemma, of in sorted(found.items())
    ]
    return {one.lemma: one for one in sorted(pictures, key=lambda one: -len(one.image_ids))}


def _said(shard_path: Path) -> list[dict[str, str]]:
    """Picture and lemma of the concepts of a batch, without words that the user chose."""
    if "concept" not in shards.row_counts(shard_path):
        return []
    rows = shards.read_columns(shard_path, "concept", ["image_id", "variant", "lemma", "target_at"])
    kept = rows.filter(pc.and_(pc.equal(rows["variant"], ORIGINAL), pc.is_null(rows["target_at"])))
    return kept.select(["image_id", "lemma"]).to_pylist()


def checked_sites(model: Model, of: Sequence[str], layer: int | None) -> tuple[str, ...]:
    """The sites of `residual` and `units`; the residual is behind `layer`, or behind the final norm.

    Raises:
        UsageError: no such layer; units of a mixture of experts.
    """
    model.facts.require_layers([] if layer is None else [layer])
    if UNITS in of:
        model.require_one_ffn("a dictionary of units")
    residual = FINAL_NORM if layer is None else f"{LAYER}{layer}"
    return tuple(UNITS if one == UNITS else residual for one in of)


def layer_of(site: str) -> int | None:
    """The layer that a site lies behind; None for the final norm and for units."""
    return int(site.removeprefix(LAYER)) if site.startswith(LAYER) else None


def read_vectors(
    model: Model,
    prompt: str,
    run_path: Path,
    pictures: Pictures,
    sites: Sequence[str],
    tell: Callable[[int], None],
) -> Vectors:
    """The vectors of one noun at some sites; a picture that does not open any more is a failure instead.

    Args:
        model: that reads: the run's own, or another one with its tokens.
        prompt: exact, as the run had it.
        run_path: folder of the run that the captions stand in.
        pictures: to read.
        sites: of `checked_sites`.
        tell: called with the number of pictures after each few.
    """
    found = _Gathered(values={site: [] for site in sites})
    for batch, image_ids in pictures.by_batch.items():
        tables = shards.read_shard(run_path / batch)
        for start in range(0, len(image_ids), model.usual_batch_size):
            some = image_ids[start : start + model.usual_batch_size]
            _read_some(model, prompt, tables, some, pictures.lemma, found)
            tell(len(some))
    values = {site: torch.cat(parts) if parts else torch.empty(0, 0) for site, parts in found.values.items()}
    return Vectors(tuple(found.examples), tuple(found.texts), values, tuple(found.failures))


def _read_some(
    model: Model, prompt: str, tables: Mapping[str, pa.Table], some: Sequence[str], lemma: str, found: _Gathered
) -> None:
    images = tables["image"]
    wanted = {**tables, "image": images.filter(pc.is_in(images["image_id"], pa.array(some, pa.string())))}
    examples, opened, failures = reopen.open_all(wanted, STAGE)
    found.failures += failures
    if not examples:
        return
    captions = stored_captions(model, tables, examples)
    said = _first_of_each([one for one in stored_concepts(tables, examples) if one.concept.lemma == lemma])
    behind = [layer for site in found.values if (layer := layer_of(site)) is not None and layer < _last(model)]
    batch = read_captions(model, opened, prompt, captions, behind=behind)
    with torch.inference_mode():
        for site, parts in found.values.items():
            parts.append(vectors_at(model, batch, said, site).cpu())
    found.examples += [one.example for one in said]
    found.texts += [captions[one.row].text for one in said]


def _first_of_each(said: Sequence[ConceptAt]) -> list[ConceptAt]:
    """The first of each picture: `dog` and `dogs` are one lemma."""
    return list({one.row: one for one in reversed(said)}.values())[::-1]


def vectors_at(model: Model, batch: CaptionBatch, said: Sequence[ConceptAt], site: str) -> Float[Tensor, "n width"]:
    """A site's vectors at p(c) of each concept, in float32; units layer by layer, L·m of them."""
    rows, steps = torch.tensor([one.row for one in said]), torch.tensor([one.concept.position for one in said])
    if site == ACTIVATIONS:
        a, units = batch.captured.read_layers(ACTIVATION, rows, steps), batch.captured.flat_units(rows, steps)
        return a.flatten(1) if units is None else _sparse(a, units, model.facts.d_mlp)
    if site == UNITS:
        a = batch.captured.read_layers(ACTIVATION, rows, steps)
        return (a * column_lengths(model)).flatten(1)
    layer = layer_of(site)
    if layer is not None and layer < _last(model):
        return batch.captured.read(RESIDUAL, layer, rows, steps)
    final = batch.captured.read(FINAL, ONCE, rows, steps)
    return final if layer is not None else model.anatomy.final_norm(final.to(model.dtype)).float()


def _sparse(a: Float[Tensor, "n L w"], units: Int[Tensor, "n L w"], d_mlp: int) -> Float[Tensor, "n units"]:
    """Returns a of the units that are awake at each concept, sparse among all of the model."""
    concept, layer, _ = (is_unit := units >= 0).nonzero(as_tuple=True)
    places = torch.stack([concept, layer * d_mlp + units[is_unit]])
    return torch.sparse_coo_tensor(places, a[is_unit], (len(a), a.shape[1] * d_mlp), check_invariants=True)


def column_lengths(model: Model) -> Float[Tensor, "L m"]:
    """‖W_out[:, i]‖ of every unit."""
    return torch.stack([model.anatomy.w_out(layer).float().norm(dim=0) for layer in range(model.anatomy.n_layers)])


def _last(model: Model) -> int:
    return model.anatomy.n_layers - 1

"""What do the image tokens of a scored run's pictures say, read as words, before and after every layer?

    pictures of a run ─► one pass over each one's prompt (`stream.read_stream`), and for each image token
      ─► `nearest`     the vocabulary's embeddings nearest to it as it enters the decoder   P1 (2308.01544), Table 2
      ─► `random`      the same for random vectors: the control
      ─► `logit-lens`  after every layer, the tokens that the model would say at once       nostalgebraist 2020
      ─► `nouns`       and how probable each noun of the caption would be
      ─► `grid`        where in the picture the image tokens lie, if they have a place

Random vectors are drawn once for a run: as many as the image tokens of its first `N_SPREAD` pictures, normal in each
dimension with their mean and deviation. P1 does not say how it drew its own; ours share what all image tokens share, so
that a direction common to all is no finding. `rows` sums up, without a model.

Left out: the grey variant, words that the user chose, and families whose picture has no positions of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmn.core import Example
from mmn.errors import ImageError, UsageError
from mmn.models.geometry import image_grid, serialise
from mmn.models.model import Model
from mmn.runs import reopen, shards
from mmn.runs.plan import Progress, ProgressCallback
from mmn.runs.reopen import ScoredRun
from mmn.runs.teacher_forcing import stored_concepts
from mmn.scores.rows import ConceptAt, Tables
from mmn.studies.lens.neighbours import nearest, random_like, require_bare_embeddings
from mmn.studies.lens.projection import project_to_words
from mmn.studies.lens.stream import Stream, normed_stream, read_stream
from mmn.studies.tables import TABLES, failure_table
from mmn.units.decoding import Vocabulary, texts_of
from mmn.units.top_tokens import TopTokens

PREFIX: Final = "lens"
STAGE: Final = "lens"
RANDOM_SHARD: Final = "lens-random"
N_SPREAD: Final = 16  # pictures whose image tokens the random vectors stand for
N_TOP: Final = 5  # P1, Table 2
NEAREST, RANDOM, LOGIT_LENS, NOUNS = "nearest", "random", "logit-lens", "nouns"


@dataclass(frozen=True)
class _Asked:
    """What was asked of which run; `why_no_*` say why the model has no neighbours or grid, empty where it has."""

    scored: ScoredRun
    top: int
    layers: tuple[int, ...]
    why_no_neighbours: str
    why_no_grid: str

    @property
    def model(self) -> Model:
        return self.scored.model

    @cached_property
    def embedding(self) -> Vocabulary:
        return Vocabulary.of(texts_of(self.model.tokenizer), self.model.module.get_input_embeddings().weight)

    @cached_property
    def unembedding(self) -> Vocabulary:
        return Vocabulary.of_model(self.model)


def read_image_tokens(
    model: Model,
    run_path: Path,
    limit: int | None = None,
    top: int = N_TOP,
    layers: Sequence[int] | None = None,
    progress: ProgressCallback = lambda _progress: None,
) -> None:
    """Adds tables `lens` and `grid` of a run's pictures as shards of the run; the same call again does what is missing.

    Args:
        model: the one that the run was scored with.
        run_path: folder of the run; what was scored is only read.
        limit: pictures, rounded up to whole batches of the run; None for all.
        top: tokens for each image token.
        layers: after which the logit lens looks, from 0; None for all.
        progress: told after each batch, and once of what this model cannot tell.

    Raises:
        UsageError: another model, or one without image tokens in its prompt; a layer that it does not have; no picture
            is left.
    """
    scored = reopen.open_run(model, run_path)
    chosen = _layers(model, layers)
    why_no_neighbours, why_no_grid = _abilities(scored)
    for reason in filter(None, (why_no_neighbours, why_no_grid)):
        progress(Progress(STAGE, message=reason))
    asked = _Asked(scored, top, chosen, why_no_neighbours, why_no_grid)
    if not why_no_neighbours:
        _add_random(asked)
    key = {"top": top, "layers": list(chosen)}
    reopen.for_each_batch(scored, PREFIX, key, lambda batch: _answer(asked, batch), progress, limit=limit)


def _layers(model: Model, layers: Sequence[int] | None) -> tuple[int, ...]:
    n_layers = model.anatomy.n_layers
    chosen = tuple(range(n_layers)) if layers is None else tuple(dict.fromkeys(layers))
    if not chosen:
        raise UsageError("no layer to look at; name one, or say all")
    model.facts.require_layers(chosen)
    return chosen


def _abilities(scored: ScoredRun) -> tuple[str, str]:
    """Why this model's image tokens have no nearest words, and why no place; each tried on one picture, "" if they do.

    Raises:
        UsageError: no image tokens in the prompt, or no picture that still opens.
    """
    model = scored.model
    _, image = next(_pictures(scored), (None, None))
    if image is None:
        raise UsageError(f"no picture of run {scored.run.run_id} opens any more; put them back where they were")
    inputs = model.encode([image], scored.run.prompt)
    stream = read_stream(model, inputs)
    return (
        _reason(lambda: require_bare_embeddings(model, stream, inputs)),
        _reason(lambda: image_grid(model, inputs, image.size)),
    )


def _pictures(scored: ScoredRun) -> Iterator[tuple[Example, Image.Image]]:
    """The run's pictures that still open, batch by batch."""
    for batch in reopen.batches(scored):
        for example in reopen.examples(shards.read_shard(scored.path / batch)):
            try:
                yield example, reopen.open_again(example)
            except ImageError:
                continue


def _reason(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except UsageError as error:
        return str(error)
    return ""


def _add_random(asked: _Asked) -> None:
    """The shard of random vectors, if it is not there."""
    seed = asked.scored.run.settings.seed
    digest = hashlib.sha256(json.dumps([asked.top, seed, N_SPREAD]).encode()).hexdigest()
    name = f"{RANDOM_SHARD}-{digest[:8]}"
    if name in shards.finished_shards(asked.scored.path):
        return
    vectors = [_stream(asked, image)[0].image_embeddings for _, image in islice(_pictures(asked.scored), N_SPREAD)]
    drawn = random_like(torch.cat(vectors).float(), seed)
    table = _lens_table(asked, None, RANDOM, None, nearest(asked.embedding, drawn, asked.top))
    shards.write_shard(asked.scored.path, name, {"lens": table})


def _stream(asked: _Asked, image: Image.Image) -> tuple[Stream, dict[str, Tensor]]:
    inputs = asked.model.encode([image], asked.scored.run.prompt)
    return read_stream(asked.model, inputs), inputs


def _answer(asked: _Asked, batch: str) -> Tables:
    """The shard of one batch; `failure` where a picture could not be looked at again."""
    tables = shards.read_shard(asked.scored.path / batch)
    examples, images, failures = reopen.open_all(tables, STAGE)
    said = stored_concepts(tables, examples)
    parts, places = [TABLES["lens"].empty_table()], []
    for row, (example, image) in enumerate(zip(examples, images, strict=True)):
        stream, inputs = _stream(asked, image)
        parts += _picture_tables(asked, example, stream, [one for one in said if one.row == row])
        if not asked.why_no_grid:
            seen = image_grid(asked.model, inputs, image.size)
            placed = seen.resized(image.size, (example.width, example.height))
            places.append({"image_id": example.image_id, "grid": serialise.to_json(placed)})
    written = {"lens": pa.concat_tables(parts), "grid": pa.Table.from_pylist(places, schema=TABLES["grid"])}
    return written | ({"failure": failure_table(failures)} if failures else {})


@torch.inference_mode()
def _picture_tables(asked: _Asked, example: Example, stream: Stream, said: Sequence[ConceptAt]) -> list[pa.Table]:
    """Rows of `lens` of one picture."""
    parts = []
    if not asked.why_no_neighbours:
        top = nearest(asked.embedding, stream.image_embeddings.float(), asked.top)
        parts.append(_lens_table(asked, example, NEAREST, None, top))
    token_ids = [one.concept.token_id for one in said]
    nouns = pa.array([one.concept.noun for one in said], pa.string())
    for layer in asked.layers:
        normed = normed_stream(asked.model, stream, layer)[stream.is_image]
        found = project_to_words(asked.model, asked.unembedding, normed, asked.top, token_ids)
        parts.append(_lens_table(asked, example, LOGIT_LENS, layer, found.top))
        if said:
            named = pa.concat_arrays([nouns] * len(normed))
            parts.append(_table(example.image_id, NOUNS, layer, named, found.asked))
    return parts


def _lens_table(asked: _Asked, example: Example | None, kind: str, layer: int | None, top: TopTokens) -> pa.Table:
    texts, _ = texts_of(asked.model.tokenizer).read(top.token_ids.cpu().numpy())
    return _table(example.image_id if example else None, kind, layer, texts, top.scores)


def _table(
    image_id: str | None, kind: str, layer: int | None, texts: pa.Array, scores: Float[Tensor, "tokens k"]
) -> pa.Table:
    """One row for each image token, or random vector, in order; `texts` row after row."""
    n, k = scores.shape
    ends = pa.array(np.arange(0, n * k + 1, k, dtype=np.int32))
    columns = {
        "image_id": pa.repeat(pa.scalar(image_id, pa.string()), n),
        "kind": pa.repeat(pa.scalar(kind), n),
        "layer": pa.repeat(pa.scalar(layer, pa.int16()), n),
        "token_position": pa.array(np.arange(n, dtype=np.int32)),
        "tokens": pa.ListArray.from_arrays(ends, texts),
        "scores": pa.ListArray.from_arrays(ends, pa.array(scores.float().cpu().numpy().ravel())),
    }
    return pa.table(columns, schema=TABLES["lens"])

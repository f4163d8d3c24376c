"""What did an edit, a LoRA or a fine-tune change? Two models read the same captions over the same pictures.

    captions of the first run that say a noun ─► both models, teacher-forced, at p(c), the pass that predicts it
      ─► concepts  k-means of the first model's residuals; the delta of a concept is the mean over its pictures of
                   (other − first); u + α·delta is compared with the other model's own concept, and so is u
                   (Khayatan et al. 2025, arXiv 2501.03012; CODE: matched by u, α 1, 20 concepts)
      ─► pictures  the same, left out: does the delta of a concept's other pictures bring this one's state nearer to
                   what the other model has? (OURS)
      ─► layers    ‖Δ of what a layer's units write together‖, as a share of what they wrote; beside it the same between
                   two pictures of the noun (OURS)
      ─► units     ‖mean of what it writes, other − first‖, most first; beside it the same under random signs by picture

Both models read the first run's captions, so that what differs is the model and not the words before the noun. Controls
of a delta: a random direction of its length, in the span of all states; the deltas of the other concepts, which tell
whether the change is this concept's or everything's. `column_cosine`, the median cosine of the two models' columns of
W_out, tells whether unit i is still unit i: models that were trained apart have units in common by number alone.

In a mixture of experts a unit writes nothing where its expert sleeps, in either model (OURS): where routing has
changed, so has what its units write. Columns are those of all experts, activations are kept of units that are awake in
some picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from mmn.core import Failure, Run
from mmn.counts import counted
from mmn.errors import UsageError
from mmn.models.model import Model
from mmn.runs import reopen, shards
from mmn.runs.plan import ProgressCallback
from mmn.scores.rows import Tables
from mmn.studies.dictionaries.measure import chosen, told_in_pictures
from mmn.studies.dictionaries.usual import LEAST
from mmn.studies.dictionaries.vectors import Folder, Pictures
from mmn.studies.shift.concepts import concept_rows
from mmn.studies.shift.states import Columns, FirstWords, Pair, Said, Wanted, read_first, read_model
from mmn.studies.shift.units import Products, layer_rows, products, unit_rows
from mmn.studies.tables import TABLES, failure_table

STAGE: Final = "shift"
SAME: Final = 1e-6  # a column that differs by less than this share of its length is the same


def measure_shift(
    run_path: Path,
    load: Callable[[], Model],
    other: Run,
    other_path: Path,
    load_other: Callable[[], Model],
    nouns: Sequence[str] = (),
    wanted: Wanted | None = None,
    progress: ProgressCallback = lambda _progress: None,
) -> tuple[str, ...]:
    """Adds to a run what another run's model changed in some nouns, a shard for each; those that are there are left.

    The first model is let go before the other one is loaded, but for its W_out, which stays in the processor's memory.

    Args:
        run_path: the first run's folder.
        load: gets its model.
        other: the second run.
        other_path: its folder.
        load_other: gets its model.
        nouns: lemmas; the three most frequent of the first run's captions if none.
        wanted: how.
        progress: told in pictures, each read twice.

    Returns:
        The nouns.

    Raises:
        UsageError: one model for both; models that do not fit together; a noun that too few captions say, of pictures
            that both runs hold.
    """
    wanted = wanted or Wanted()
    run, _ = shards.read_run(run_path)
    _require_another(run, other)
    run.model.require_layers([] if wanted.layer is None else [wanted.layer])
    there = frozenset(shared_pictures(other_path))
    of_noun = {one.lemma: one.among(there).first(wanted.limit) for one in chosen(run_path, nouns)}
    for noun, pictures in of_noun.items():
        _require_enough(noun, pictures, other.run_id)
    names = {noun: _shard(wanted, pictures, other, run.settings.seed) for noun, pictures in of_noun.items()}
    finished = shards.finished_shards(run_path)
    twice = [one for one in of_noun.values() for _ in range(2)]
    told = told_in_pictures(twice, [names[one.lemma] in finished for one in twice], STAGE, progress)
    missing = [noun for noun in of_noun if names[noun] not in finished]
    if missing:
        firsts, columns, said = read_first(load, run_path, [of_noun[noun] for noun in missing], wanted, told)
        model = load_other()
        _require_alike(model, columns, said)
        for noun in missing:
            read = read_model(model, run.prompt, run_path, of_noun[noun], wanted, told)
            pair = Pair(other.run_id, noun, firsts[noun], read, columns, model, wanted.alpha, run.settings.seed)
            shards.write_shard(run_path, names[noun], _tables(pair, said.words[noun]))
    return tuple(of_noun)


def shared_pictures(other_path: Path) -> set[str]:
    """The pictures of a run."""
    return {
        image_id
        for batch in reopen.batches(Folder(other_path))
        for image_id in shards.read_columns(other_path / batch, "image", ["image_id"])["image_id"].to_pylist()
    }


def _require_another(run: Run, other: Run) -> None:
    if run.model.fingerprint == other.model.fingerprint:
        raise UsageError(
            f"runs {run.run_id[:8]} and {other.run_id[:8]} are both of {run.model.name}: nothing was changed; name a "
            "run of the edited or tuned model"
        )


def _require_enough(noun: str, pictures: Pictures, other_id: str) -> None:
    n = len(pictures.image_ids)
    if n < LEAST:
        raise UsageError(
            f"{counted(n, 'picture')} of run {other_id[:8]} are among those whose captions say {noun!r} here; "
            f"{LEAST} are needed: "
            "score the same pictures with both models"
        )


def _require_alike(model: Model, columns: Columns, said: Said) -> None:
    shapes = [tuple(one.shape) for one in columns.by_layer]
    own = [(model.anatomy.unembedding.in_features, width) for width in model.anatomy.widths]
    if shapes != own:
        raise UsageError(
            f"{said.name} has {counted(len(shapes), 'layer')} of {counted(shapes[0][1], 'unit')}, and "
            f"{model.facts.name} {len(own)} of "
            f"{own[0][1]}: only a model and its edited or tuned self can be compared"
        )
    if model.tokenizer.get_vocab() != said.tokens:
        raise UsageError(
            f"{said.name} and {model.facts.name} have other tokens: one's captions mean nothing to the other"
        )


def _shard(wanted: Wanted, pictures: Pictures, other: Run, seed: int) -> str:
    asked = [asdict(wanted), pictures.lemma, pictures.image_ids, other.run_id, other.model.fingerprint, seed]
    return reopen.shard_name(STAGE, "noun", asked)


def _tables(pair: Pair, said: FirstWords) -> Tables:
    """The shard of one noun."""
    failures: list[Failure] = list(dict.fromkeys((*pair.first.vectors.failures, *pair.second.vectors.failures)))
    overlaps = products(pair.columns, pair.model)
    rows: dict[str, list[dict[str, Any]]] = {
        "shift": [pair.key | _about(pair, overlaps, len(said.centres))],
        **concept_rows(pair, said),
        "shift_layer": list(layer_rows(pair)),
        "shift_unit": list(unit_rows(pair, overlaps)),
    }
    tables = {name: pa.Table.from_pylist(some, schema=TABLES[name]) for name, some in rows.items()}
    return tables | ({"failure": failure_table(failures)} if failures else {})


def _about(pair: Pair, overlaps: Products, k: int) -> dict[str, Any]:
    return {
        "k": k,
        "n_images": len(pair.image_ids),
        "alpha": pair.alpha,
        "column_cosine": float(np.median(overlaps.cosine)),
        "n_columns_changed": int((overlaps.change > SAME).sum()),
    }

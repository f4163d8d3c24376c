"""Does one noun have the same top units in several pictures? (P2, arXiv 2311.07470, figure 4; N = 5, k = 100)

    N pictures whose captions share a lemma ─► each one's top k units for it ─► units that are in all N, / k
    expected of random units with the same number in each layer: Σ_l m · Π_i (k_il / m) / k, where k_il of picture i's
    top k are in layer l (independent draws of k_il of a layer's m units have m · Π_i (k_il / m) in common on average)
    both are sums over layers, and stored layer by layer, too (`shared_layer`)
    in a mixture of experts the random units have the same number in each expert, Σ_e m_e · Π_i (k_ie / m_e) / k (OURS):
    pictures share units wherever all of them woke an expert

Rankings are the stored ones: no model is needed. Which pictures are drawn (OURS) is a hash of the run's seed, the lemma
and the number of the draw: all methods see the same ones. A set that was drawn before is left out, since it says
nothing new, and so are lemmas of fewer than N pictures. The draws are over the whole run, so the run must be complete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from mmn import names
from mmn.core import Run
from mmn.counts import counted
from mmn.errors import UsageError
from mmn.names import COMPLETE
from mmn.runs import shards
from mmn.runs.plan import Progress, ProgressCallback
from mmn.runs.reopen import shard_name
from mmn.studies.invariance import rankings
from mmn.studies.invariance.rankings import CaptionNoun, lowest_places
from mmn.studies.tables import TABLES
from mmn.units.parts import Parts, layers_alike, parts_of

PREFIX: Final = "invariance"
STAGE: Final = "cross-image"


@dataclass(frozen=True)
class CrossImage:
    """What was found: rows of `invariance`, lemmas of the run's captions, how many of these too few pictures say."""

    rows: pa.Table
    n_concepts: int
    n_left_out: int


@dataclass(frozen=True)
class _Draw:
    """Pictures of one lemma, each with the shard that it is in."""

    lemma: str
    number: int
    pictures: tuple[tuple[CaptionNoun, str], ...]


def measure_cross_image(
    run_path: Path,
    n_images: int = 5,
    n_draws: int = 5,
    methods: Sequence[str] | None = None,
    ks: Sequence[int] | None = None,
    progress: ProgressCallback = lambda _progress: None,
) -> CrossImage:
    """Counts units common to pictures of one noun, as one shard of the run; the same call again reads that.

    Args:
        run_path: the run's folder.
        n_images: N, pictures in a draw.
        n_draws: draws of each lemma.
        methods: rankings of the run; None for all, random ones as a control.
        ks: how many units are compared; None for the usual grid.
        progress: told in pictures whose rankings were read.

    Raises:
        UsageError: a method or k that the run does not have, fewer than 2 pictures, a run that is not complete, or one
            of a mixture of experts that does not tell how wide its layers are.
        CacheError: no run there, or a broken shard.
    """
    run, outcome = shards.read_run(run_path)
    if outcome is None or outcome.status != COMPLETE:
        raise UsageError(
            f"run {run.run_id} is not complete, and pictures are drawn from all of it: finish it with the same "
            "mmn score command first"
        )
    if n_images < 2 or n_draws < 1:
        raise UsageError(f"{counted(n_draws, 'draw')} of {counted(n_images, 'picture')}: it takes at least 1 draw of 2")
    _parts(run)
    methods = rankings.checked_methods(run, methods, stored_methods(run))
    ks = rankings.checked_ks(run, ks)
    asked = {"n": n_images, "draws": n_draws, "methods": sorted(methods), "ks": ks, "seed": run.settings.seed}
    name = shard_name(PREFIX, STAGE, asked | {"by": "layer"})  # earlier shards do not tell of layers
    by_lemma = _by_lemma(run_path)
    enough = {lemma: found for lemma, found in by_lemma.items() if len(found) >= n_images}
    if not enough:
        most = max(map(len, by_lemma.values()), default=0)
        raise UsageError(
            f"no noun of run {run.run_id} is said of {counted(n_images, 'picture')}, the most frequent one of {most}: "
            "score more pictures, or give a smaller --images-per-concept"
        )
    if name not in shards.finished_shards(run_path):
        draws = [draw for lemma in sorted(enough) for draw in _draws(run, lemma, enough[lemma], n_images, n_draws)]
        shards.write_shard(run_path, name, _compare(run, run_path, draws, methods, ks, progress))
    rows = shards.read_shard(run_path / name)["invariance"]
    return CrossImage(rows, len(by_lemma), len(by_lemma) - len(enough))


def _parts(run: Run) -> Parts:
    """Among which units chance is taken.

    Raises:
        UsageError: layers may differ in width, and the run does not say how wide each is.
    """
    if not run.model.d_experts:
        return layers_alike(run.model.n_layers, run.model.d_mlp)
    if not run.model.widths:
        raise UsageError(
            f"run {run.run_id} was scored before runs told how wide each layer is, which chance depends on: score it "
            "again into another --cache"
        )
    return parts_of(run.model.widths, run.model.d_experts)


def stored_methods(run: Run) -> tuple[str, ...]:
    """All rankings of a run's original captions."""
    stored = list(run.settings.methods)
    if names.BLANK in run.settings.variants:
        stored += [method + names.MINUS_BLANK for method in stored if not method.startswith(names.RANDOM)]
    return tuple(stored)


def _by_lemma(run_path: Path) -> dict[str, list[tuple[CaptionNoun, str]]]:
    """Lemma -> its nouns, each with its shard, by picture id: the batches that they were scored in change nothing."""
    found: dict[str, list[tuple[CaptionNoun, str]]] = {}
    for name in sorted(shards.finished_shards(run_path)):
        for one in rankings.caption_nouns(run_path / name, names.ORIGINAL):
            found.setdefault(one.lemma, []).append((one, name))
    return {lemma: sorted(places, key=lambda place: place[0].image_id) for lemma, places in found.items()}


def _draws(run: Run, lemma: str, places: Sequence[tuple[CaptionNoun, str]], n_images: int, n_draws: int) -> list[_Draw]:
    """The distinct sets among `n_draws` draws, each under the number it was drawn by first."""
    found: dict[tuple[int, ...], _Draw] = {}
    for number in range(n_draws):
        key = "\0".join([str(run.settings.seed), lemma, STAGE, str(n_images), str(number)])
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
        chosen = np.random.Generator(np.random.Philox(seed)).choice(len(places), n_images, replace=False)
        members = tuple(sorted(chosen.tolist()))
        found.setdefault(members, _Draw(lemma, number, tuple(places[member] for member in members)))
    return list(found.values())


def _compare(
    run: Run,
    run_path: Path,
    draws: Sequence[_Draw],
    methods: Sequence[str],
    ks: Sequence[int],
    progress: ProgressCallback,
) -> dict[str, pa.Table]:
    """The rows of all draws, method by method: `invariance`, and `shared_layer`."""
    units = _units(run, run_path, draws, methods, max(ks), progress)
    parts = _parts(run)
    found = {name: [TABLES[name].empty_table()] for name in ("invariance", "shared_layer")}
    for method in methods if draws else ():
        ranked = _stacked([[units[method, one] for one, _ in draw.pictures] for draw in draws])
        usable = [k for k in ks if k <= ranked.shape[2]]
        if usable:
            is_reached = (ranked >= 0).sum(axis=2).min(axis=1)[:, None] >= np.array(usable)
            shared = shared_by_layer(ranked, usable, run.model.n_layers, run.model.d_mlp)
            expected = expected_by_layer(ranked, usable, parts) * is_reached[..., None]
            found["shared_layer"].append(_layer_rows(method, draws, usable, shared, expected))
            ratio, floor = (counts.sum(axis=2) / np.array(usable) for counts in (shared, expected))
            ratio = np.where(is_reached, ratio, np.nan)
            for index, draw in enumerate(draws):
                key = {"kind": names.CROSS_IMAGE, "method": method, "draw": draw.number, "n": len(draw.pictures)}
                values = ratio[[index]], np.full((1, len(usable)), np.nan), floor[[index]]
                found["invariance"].append(rankings.result_rows(key, [(None, draw.lemma)], usable, *values))
    return {name: pa.concat_tables(tables) for name, tables in found.items()}


def _stacked(ranked: Sequence[Sequence[Int[np.ndarray, " _"]]]) -> Int[np.ndarray, "draws N K"]:
    """Rankings of one length; of experts fewer may be awake, and -1 is behind the shorter ones."""
    longest = max(len(one) for of_draw in ranked for one in of_draw)
    return np.stack(
        [np.stack([np.pad(one, (0, longest - len(one)), constant_values=-1) for one in of_draw]) for of_draw in ranked]
    )


def _layer_rows(
    method: str,
    draws: Sequence[_Draw],
    ks: Sequence[int],
    shared: Int[np.ndarray, "draws ks L"],
    expected: Float[np.ndarray, "draws ks L"],
) -> pa.Table:
    """Rows of `shared_layer` where all pictures of a draw have top units in a layer: elsewhere both are 0."""
    draw, k, layer = np.nonzero(expected)
    columns = {
        "noun": pa.array([one.lemma for one in draws]).take(draw),
        "method": pa.array([method] * len(draw)),
        "k": np.array(ks)[k],
        "draw": np.array([one.number for one in draws])[draw],
        "n": np.array([len(one.pictures) for one in draws])[draw],
        "layer": layer,
        "n_shared": shared[draw, k, layer],
        "n_random": expected[draw, k, layer],
    }
    schema = TABLES["shared_layer"]
    return pa.table({name: columns[name] for name in schema.names}).cast(schema)


def _units(
    run: Run,
    run_path: Path,
    draws: Sequence[_Draw],
    methods: Sequence[str],
    longest: int,
    progress: Callable[[Progress], None],
) -> dict[tuple[str, CaptionNoun], Int[np.ndarray, " K"]]:
    """The top units of everything that was drawn, by method; each shard is read once."""
    by_shard: dict[str, dict[CaptionNoun, None]] = {}
    for draw in draws:
        for one, name in draw.pictures:
            by_shard.setdefault(name, {})[one] = None
    units: dict[tuple[str, CaptionNoun], Int[np.ndarray, " K"]] = {}
    done = 0
    total = sum(len(drawn) for drawn in by_shard.values())
    progress(Progress(STAGE, 0, total))
    for name, drawn in sorted(by_shard.items()):
        image_ids = {one.image_id for one in drawn}
        ranked = rankings.stored_rankings(run_path / name, names.ORIGINAL, methods, run.model.d_mlp, image_ids)
        for method in methods:
            found = ranked[method].of([(one.image_id, one.noun) for one in drawn])[:, :longest].copy()
            units |= {(method, one): ranking for one, ranking in zip(drawn, found, strict=True)}
        done += len(drawn)
        progress(Progress(STAGE, done, total))
    return units


def shared_by_layer(
    ranked: Int[np.ndarray, "sets N K"], ks: Sequence[int], n_layers: int, d_mlp: int
) -> Int[np.ndarray, "sets ks L"]:
    """How many units of each layer are in all N top k of each set of rankings, for every k."""
    lowest, layers = lowest_places(ranked, n_layers * d_mlp), ranked[:, 0] // d_mlp
    return np.stack([_by_layer(layers, n_layers, lowest < k) for k in ks], axis=1)


def expected_by_layer(
    ranked: Int[np.ndarray, "sets N K"], ks: Sequence[int], parts: Parts
) -> Float[np.ndarray, "sets ks L"]:
    """What random units have in common in each layer, of each set of rankings, for every k: Σ over the layer's parts of
    m · Π_i (k_i / m), where k_i of picture i's top k are in a part of m units.
    """
    n_layers = int(parts.layers.max()) + 1
    return np.array(
        [
            [np.bincount(parts.layers, parts.expected(list(members[:, :k])), minlength=n_layers) for k in ks]
            for members in ranked
        ]
    )


def _by_layer(
    layers: Int[np.ndarray, "rows K"], n_layers: int, is_counted: Bool[np.ndarray, "rows K"] | None = None
) -> Int[np.ndarray, "rows L"]:
    """How often each layer is in each row, where it is counted."""
    cells = np.arange(len(layers))[:, None] * n_layers + layers
    cells = cells.ravel() if is_counted is None else cells[is_counted]
    return np.bincount(cells, minlength=len(layers) * n_layers).reshape(len(layers), n_layers)

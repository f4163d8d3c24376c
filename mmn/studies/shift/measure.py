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
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmn.core import Failure, Neuron, Run
from mmn.errors import UsageError
from mmn.models.model import Model
from mmn.runs import reopen, shards
from mmn.runs.plan import ProgressCallback
from mmn.scores.rows import Tables
from mmn.statistics.intervals import ANYWHERE, mean_intervals
from mmn.studies.dictionaries.grounding import words_of
from mmn.studies.dictionaries.measure import LEAST, chosen, gram, n_concepts, told_in_pictures
from mmn.studies.dictionaries.solvers import in_span, k_means
from mmn.studies.dictionaries.vectors import (
    UNITS,
    Folder,
    Pictures,
    Vectors,
    checked_sites,
    column_lengths,
    read_vectors,
)
from mmn.studies.shift.matching import assign
from mmn.studies.tables import TABLES, failure_table
from mmn.units.decoding import Vocabulary, texts_of
from mmn.units.top_tokens import top_tokens

STAGE: Final = "shift"
DRAWS: Final = 20  # of random deltas, and of signs
N_UNITS: Final = 30
N_IMAGES: Final = 5
TOKENS: Final = 5
SAME: Final = 1e-6  # a column that differs by less than this share of its length is the same


@dataclass(frozen=True)
class Wanted:
    """What is asked for; the site of the residual is behind a layer, or behind the final norm."""

    layer: int | None = None
    k: int = 20
    limit: int = 200
    alpha: float = 1.0


@dataclass(frozen=True)
class Columns:
    """W_out of a model, on the CPU, by layer."""

    by_layer: tuple[Float[Tensor, "d m"], ...]

    @classmethod
    def of(cls, model: Model) -> Columns:
        return cls(tuple(model.anatomy.w_out(layer).cpu().clone() for layer in range(model.anatomy.n_layers)))


@dataclass(frozen=True)
class _Read:
    """What one model has of a noun: residuals (n, d), activations (n, L, m), and its words for directions."""

    vectors: Vectors
    site: str
    activations: Float[Tensor, "n L m"]

    @property
    def residual(self) -> Float[Tensor, "n d"]:
        return self.vectors.values[self.site]


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
        firsts, columns, said = _first(load, run_path, [of_noun[noun] for noun in missing], wanted, told)
        model = load_other()
        _require_alike(model, columns, said)
        for noun in missing:
            read = _read(model, run.prompt, run_path, of_noun[noun], wanted, told)
            found = _Pair(run, other.run_id, noun, firsts[noun], read, columns, wanted, model)
            shards.write_shard(run_path, names[noun], found.tables(said.words[noun]))
    return tuple(of_noun)


def shared_pictures(other_path: Path) -> set[str]:
    """The pictures of a run."""
    return {
        image_id
        for batch in reopen.batches(Folder(other_path))
        for image_id in shards.read_columns(other_path / batch, "image", ["image_id"])["image_id"].to_pylist()
    }


@dataclass(frozen=True)
class _Said:
    """What is kept of the first model when it is gone: its shape, its tokens, the words of its concepts and units."""

    name: str
    tokens: dict[str, int]
    words: dict[str, _FirstWords]


@dataclass(frozen=True)
class _FirstWords:
    """The concepts of one noun, which pictures are whose, and what each says."""

    centres: Float[np.ndarray, "k d"]
    own: Int[np.ndarray, " n"]
    words: tuple[tuple[str, ...], ...]


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
            f"{n} pictures of run {other_id[:8]} are among those whose captions say {noun!r} here; {LEAST} are needed: "
            "score the same pictures with both models"
        )


def _require_alike(model: Model, columns: Columns, said: _Said) -> None:
    shapes = [tuple(one.shape) for one in columns.by_layer]
    own = [tuple(model.anatomy.w_out(layer).shape) for layer in range(model.anatomy.n_layers)]
    if shapes != own:
        raise UsageError(
            f"{said.name} has {len(shapes)} layers of {shapes[0][1]} units, and {model.facts.name} {len(own)} of "
            f"{own[0][1]}: only a model and its edited or tuned self can be compared"
        )
    if model.tokenizer.get_vocab() != said.tokens:
        raise UsageError(
            f"{said.name} and {model.facts.name} have other tokens: one's captions mean nothing to the other"
        )


def _shard(wanted: Wanted, pictures: Pictures, other: Run, seed: int) -> str:
    asked = [asdict(wanted), pictures.lemma, pictures.image_ids, other.run_id, other.model.fingerprint, seed]
    return reopen.shard_name(STAGE, "noun", asked)


def _first(
    load: Callable[[], Model],
    run_path: Path,
    pictures: Sequence[Pictures],
    wanted: Wanted,
    told: Callable[[int], None],
) -> tuple[dict[str, _Read], Columns, _Said]:
    """What the first model has of every noun, its columns, and its words."""
    scored = reopen.open_run(load(), run_path)
    model = scored.model
    model.require_one_ffn("shift")
    reads = {one.lemma: _read(model, scored.run.prompt, run_path, one, wanted, told) for one in pictures}
    seed = scored.run.settings.seed
    words = {noun: _first_words(model, read, wanted.k, seed) for noun, read in reads.items()}
    return reads, Columns.of(model), _Said(model.facts.name, model.tokenizer.get_vocab(), words)


def _read(
    model: Model, prompt: str, run_path: Path, pictures: Pictures, wanted: Wanted, told: Callable[[int], None]
) -> _Read:
    (site,) = checked_sites(model, ("residual",), wanted.layer)
    found = read_vectors(model, prompt, run_path, pictures, (site, UNITS), told)
    if len(found.examples) < LEAST:
        raise UsageError(f"only {len(found.examples)} pictures of {pictures.lemma!r} still open: put the others back")
    lengths = column_lengths(model).cpu()
    scaled = found.values[UNITS].unflatten(1, lengths.shape)
    return _Read(found, site, scaled / lengths.where(lengths > 0, 1.0))


def _first_words(model: Model, read: _Read, k: int, seed: int) -> _FirstWords:
    z = read.residual.double()
    coordinates, axes = in_span(gram(read.residual))
    found = k_means(coordinates, n_concepts(k, len(coordinates)), seed)
    own = found.coefficients(coordinates).argmax(1)
    order = np.argsort(-np.bincount(own, minlength=len(found.concepts)), kind="stable")
    centres = (found.concepts[order] @ axes) @ z.numpy()
    said = words_of(model, torch.from_numpy(centres).float(), read.site)
    return _FirstWords(centres, np.argsort(order)[own], tuple(one.words for one in said))


@dataclass(frozen=True)
class _Pair:
    """Both models' states of one noun; `model` is the other one, which is loaded."""

    run: Run
    other: str
    noun: str
    first: _Read
    second: _Read
    columns: Columns
    wanted: Wanted
    model: Model

    @property
    def key(self) -> dict[str, str]:
        return {"other": self.other, "noun": self.noun, "site": self.first.site}

    def tables(self, said: _FirstWords) -> Tables:
        """The shard of one noun."""
        failures: list[Failure] = list(dict.fromkeys((*self.first.vectors.failures, *self.second.vectors.failures)))
        ids = [[one.image_id for one in read.vectors.examples] for read in (self.first, self.second)]
        assert ids[0] == ids[1], "the two models read other pictures"
        overlaps = _products(self.columns, self.model)
        rows: dict[str, list[dict[str, Any]]] = {
            "shift": [self.key | self._about(overlaps, len(said.centres))],
            **_concepts(self, said),
            "shift_layer": list(_layers(self)),
            "shift_unit": list(_units(self, overlaps)),
        }
        tables = {name: pa.Table.from_pylist(some, schema=TABLES[name]) for name, some in rows.items()}
        return tables | ({"failure": failure_table(failures)} if failures else {})

    def _about(self, overlaps: _Products, k: int) -> dict[str, Any]:
        cosines = overlaps.both / np.sqrt(np.maximum(overlaps.first * overlaps.second, np.finfo(float).tiny))
        return {
            "k": k,
            "n_images": len(self.first.residual),
            "alpha": self.wanted.alpha,
            "column_cosine": float(np.median(cosines)),
            "n_columns_changed": int((overlaps.change > SAME).sum()),
        }


def _concepts(pair: _Pair, said: _FirstWords) -> dict[str, list[dict[str, Any]]]:
    """Rows of `shift_concept` and `shift_picture`."""
    z, after = pair.first.residual.double().numpy(), pair.second.residual.double().numpy()
    k, alpha, own = len(said.centres), pair.wanted.alpha, said.own
    deltas = np.stack([(after - z)[own == j].mean(0) if (own == j).any() else np.zeros(z.shape[1]) for j in range(k)])
    coordinates, axes = in_span(gram(pair.second.residual))
    theirs = k_means(coordinates, k, pair.run.settings.seed).concepts @ axes @ after
    matched = theirs[assign(-cosine(said.centres[:, None], theirs[None]))]
    shifted = said.centres + alpha * deltas
    site, model = pair.first.site, pair.model
    words = {
        name: [one.words for one in words_of(model, torch.from_numpy(of).float(), site)]
        for name, of in (("words_shifted", shifted), ("words_other", matched), ("words_delta", deltas))
    }
    basis = np.concatenate([z, after])
    random = random_like(deltas, basis, DRAWS, pair.run.settings.seed)
    concepts = [
        pair.key
        | {
            "concept": j,
            "n_images": int((own == j).sum()),
            "cosine": float(cosine(said.centres[j], matched[j])),
            "cosine_shifted": float(cosine(shifted[j], matched[j])),
            "cosine_random": float(cosine(said.centres[j] + alpha * random[:, j], matched[j]).mean()),
            "cosine_other": float(cosine(said.centres[j] + alpha * np.delete(deltas, j, 0), matched[j]).mean()),
            "words": list(said.words[j]),
            **{name: list(of[j]) for name, of in words.items()},
            "images": _nearest(pair, said, j),
        }
        for j in range(k)
    ]
    return {"shift_concept": concepts, "shift_picture": list(_pictures(pair, own, deltas, z, after))}


def _nearest(pair: _Pair, said: _FirstWords, concept: int) -> list[str]:
    """The pictures of a concept whose states are nearest to its centre."""
    far = np.linalg.norm(pair.first.residual.numpy() - said.centres[concept], axis=1)
    far[said.own != concept] = np.inf
    order = [row for row in np.argsort(far, kind="stable")[:N_IMAGES] if np.isfinite(far[row])]
    return [pair.first.vectors.examples[row].image_id for row in order]


def _pictures(
    pair: _Pair,
    own: Int[np.ndarray, " n"],
    deltas: Float[np.ndarray, "k d"],
    z: Float[np.ndarray, "n d"],
    after: Float[np.ndarray, "n d"],
) -> Iterator[dict[str, Any]]:
    for row, cosines in left_out(own, deltas, z, after, pair.wanted.alpha, pair.run.settings.seed):
        image_id = pair.first.vectors.examples[row].image_id
        yield pair.key | {"image_id": image_id, "concept": int(own[row])} | cosines


def left_out(
    own: Int[np.ndarray, " n"],
    deltas: Float[np.ndarray, "k d"],
    z: Float[np.ndarray, "n d"],
    after: Float[np.ndarray, "n d"],
    alpha: float,
    seed: int,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Of each picture of a concept with another one: how near the delta of the others brings its state to the other
    model's.

    Args:
        own: each picture's concept.
        deltas: of the concepts, of all their pictures.
        z: states in the first model.
        after: states in the other one.
        alpha: how much of a delta is added.
        seed: of the random deltas.
    """
    counts, basis = np.bincount(own, minlength=len(deltas)), np.concatenate([z, after])
    random = random_like(
        deltas, basis, DRAWS, seed
    )  # in direction; each is made as long as the delta that it stands for
    for row in np.flatnonzero(counts[own] > 1).tolist():
        concept, n = own[row], counts[own[row]]
        delta = (n * deltas[concept] - (after[row] - z[row])) / (n - 1)
        drawn = random[:, concept] / max(np.linalg.norm(deltas[concept]), np.finfo(float).tiny) * np.linalg.norm(delta)
        others = np.delete(deltas, concept, 0)
        yield (
            row,
            {
                "cosine": float(cosine(z[row], after[row])),
                "cosine_shifted": float(cosine(z[row] + alpha * delta, after[row])),
                "cosine_random": float(cosine(z[row] + alpha * drawn, after[row]).mean()),
                "cosine_other": float(cosine(z[row] + alpha * others, after[row]).mean()),
            },
        )


def random_like(
    deltas: Float[np.ndarray, "k d"], basis: Float[np.ndarray, "n d"], draws: int, seed: int
) -> Float[np.ndarray, "draws k d"]:
    """Random directions in the span of `basis`, each as long as the delta that it stands for."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((draws, len(deltas), len(basis))) @ basis
    lengths = np.linalg.norm(drawn, axis=-1, keepdims=True)
    return drawn / np.where(lengths > 0, lengths, 1.0) * np.linalg.norm(deltas, axis=-1, keepdims=True)


def cosine(one: Float[np.ndarray, "... d"], other: Float[np.ndarray, "... d"]) -> Float[np.ndarray, ...]:
    """Cosines along the last axis; 0 with a vector of zeros."""
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return (one * other).sum(-1) / np.where(lengths > 0, lengths, 1.0)


def _layers(pair: _Pair) -> Iterator[dict[str, Any]]:
    """Of each picture and layer: how much of what the layer's units write together is another, as a share."""
    n = len(pair.first.residual)
    cycle = np.random.default_rng(pair.run.settings.seed).permutation(n)
    partner = np.empty(n, dtype=int)
    partner[cycle] = np.roll(cycle, -1)
    for layer, column in enumerate(pair.columns.by_layer):
        before = (pair.first.activations[:, layer] @ column.float().T).numpy()
        theirs = pair.model.anatomy.w_out(layer).float().cpu()
        after = (pair.second.activations[:, layer] @ theirs.T).numpy()
        length = np.maximum(np.linalg.norm(before, axis=1), np.finfo(np.float32).tiny)
        change = np.linalg.norm(after - before, axis=1) / length
        control = np.linalg.norm(before[partner] - before, axis=1) / length
        for row, example in enumerate(pair.first.vectors.examples):
            yield pair.key | {
                "image_id": example.image_id,
                "layer": layer,
                "change": float(change[row]),
                "change_control": float(control[row]),
            }


@dataclass(frozen=True)
class _Products:
    """Of every unit ‖w‖², ‖w'‖² and w · w' of its two columns of W_out, in float64."""

    first: Float[np.ndarray, "L m"]
    second: Float[np.ndarray, "L m"]
    both: Float[np.ndarray, "L m"]

    @property
    def change(self) -> Float[np.ndarray, "L m"]:
        """‖w' − w‖ / ‖w‖."""
        squared = np.maximum(self.first + self.second - 2 * self.both, 0)
        return np.sqrt(squared / np.maximum(self.first, np.finfo(float).tiny))

    def written(self, a: Float[np.ndarray, "L m"], after: Float[np.ndarray, "L m"]) -> Float[np.ndarray, "L m"]:
        """‖a' w' − a w‖."""
        squared = after**2 * self.second + a**2 * self.first - 2 * a * after * self.both
        return np.sqrt(np.maximum(squared, 0))


def _products(columns: Columns, model: Model) -> _Products:
    parts: list[list[np.ndarray]] = [[], [], []]
    for layer, column in enumerate(columns.by_layer):
        one, other = column.double(), model.anatomy.w_out(layer).cpu().double()
        for part, (left, right) in zip(parts, ((one, one), (other, other), (one, other)), strict=True):
            part.append((left * right).sum(0).numpy())
    return _Products(*(np.stack(part) for part in parts))


def _units(pair: _Pair, overlaps: _Products) -> Iterator[dict[str, Any]]:
    """The units of which most is another: what they write on average, other less first."""
    a, after = (read.activations.double().numpy() for read in (pair.first, pair.second))
    written = overlaps.written(a.mean(0), after.mean(0))
    noise = _noise(overlaps, a, after, pair.run.settings.seed)
    best = np.argsort(-written, axis=None, kind="stable")[:N_UNITS]
    best = best[written.ravel()[best] > 0]
    units = [Neuron(int(layer), int(unit)) for layer, unit in zip(*np.unravel_index(best, written.shape), strict=True)]
    tokens = _tokens(pair, units)
    changes = np.stack([(after - a)[:, unit.layer, unit.unit] for unit in units], axis=1) if units else a[:, 0, :0]
    _, low, high = mean_intervals(changes, ANYWHERE)
    for rank, unit in enumerate(units):
        at = unit.layer, unit.unit
        yield pair.key | {
            "layer": unit.layer,
            "unit": unit.unit,
            "rank": rank + 1,
            "written": float(written[at]),
            "noise": float(noise[at]),
            "column_change": float(overlaps.change[at]),
            "activation": float(a.mean(0)[at]),
            "activation_other": float(after.mean(0)[at]),
            "low": None if np.isnan(low[rank]) else float(low[rank]),
            "high": None if np.isnan(high[rank]) else float(high[rank]),
            "tokens": tokens[0][rank],
            "tokens_other": tokens[1][rank],
        }


def _noise(
    overlaps: _Products, a: Float[np.ndarray, "n L m"], after: Float[np.ndarray, "n L m"], seed: int
) -> Float[np.ndarray, "L m"]:
    """The same under a random sign for each picture, on average over draws: what pictures alone would give."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(DRAWS, len(a))) / len(a)
    means = ((np.tensordot(sign, a, 1), np.tensordot(sign, after, 1)) for sign in signs)
    return np.mean([overlaps.written(*pair) for pair in means], axis=0)


def _tokens(pair: _Pair, units: Sequence[Neuron]) -> tuple[list[list[str]], list[list[str]]]:
    """What each unit's column says most, the first model's and the other's, both by the other's unembedding."""
    if not units:
        return [], []
    ours = torch.stack([pair.columns.by_layer[unit.layer][:, unit.unit] for unit in units])
    theirs = torch.stack([pair.model.anatomy.w_out(unit.layer)[:, unit.unit] for unit in units])
    return _top_tokens(pair.model, ours), _top_tokens(pair.model, theirs)


@torch.inference_mode()
def _top_tokens(model: Model, columns: Float[Tensor, "n d"]) -> list[list[str]]:
    texts = texts_of(model.tokenizer)
    vocabulary = Vocabulary.of(texts, model.anatomy.unembedding.weight)
    found: list[list[str]] = []
    for _, block in vocabulary.project(columns.to(model.device), vocabulary.memory(len(columns))):
        ids = top_tokens(block, TOKENS).token_ids.cpu().numpy()
        found += np.array(texts.read(ids)[0].to_pylist(), dtype=object).reshape(ids.shape).tolist()
    return found

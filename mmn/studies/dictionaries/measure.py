"""What does a word stand for in this model? The states that say it, as sums of a few concepts (CoX-LMM, 2406.08074).

    a noun ─► its vectors, one for each picture whose caption says it (`vectors`); a quarter of the pictures is held out
      ─► a dictionary of the others, K concepts (`solvers`)
      ─► what each concept says (`grounding`), the 5 pictures with most of it, of unit vectors the units that carry it
      ─► on the held-out pictures: do the words of a picture's strongest concept fit its caption, its references or the
         picture itself? Beside them the mean over all concepts of the dictionary, and words of random directions

Two controls: random directions (the paper's) bound what any words would do, and the mean over all concepts (OURS)
what a concept that does not know the picture would. The noun's own forms fit every picture, and are no candidates of
text metrics. K is 20 as published, less where there are few pictures: five for each concept.

Left out: VQA answers, and steering.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmn.core import Example, Failure
from mmn.counts import counted
from mmn.errors import ImageError, UsageError
from mmn.metrics import ImageMetric, Lexical, TextMetric
from mmn.models.model import Model
from mmn.reading.nouns import lemma_of
from mmn.runs import reopen, shards
from mmn.runs.added_later import added_references
from mmn.runs.plan import Progress, ProgressCallback
from mmn.runs.reopen import ScoredRun
from mmn.scores.rows import Tables
from mmn.studies.dictionaries.grounding import Said, overlap, random_words, words_of
from mmn.studies.dictionaries.solvers import KINDS, Dictionary, explained, in_span
from mmn.studies.dictionaries.usual import LEAST
from mmn.studies.dictionaries.vectors import (
    STAGE,
    UNITS,
    Pictures,
    Vectors,
    checked_sites,
    pictures_of_lemmas,
    read_vectors,
)
from mmn.studies.tables import TABLES, failure_table

K: Final = 20  # CoX-LMM
N_NOUNS: Final = 3  # the most frequent ones, unless others are named
LIMIT: Final = 200  # pictures of each
PICTURES_OF_A_CONCEPT: Final = 5  # at least, on average
HELD_OUT: Final = 4  # one in so many
N_IMAGES: Final = 5  # of a concept that are shown
N_UNITS: Final = 10
TOPS: Final = (1, 3)  # strongest concepts whose words are tried
CLIP_WORDS: Final = "A photo is described by the words "  # CoX-LMM's code

_Rate = Callable[[Sequence[Sequence[str]]], list[float]]  # of lists of words: how well each fits


@dataclass(frozen=True)
class Wanted:
    """What is asked for: which dictionaries of which vectors, and how their words are judged."""

    kinds: tuple[str, ...] = tuple(KINDS)
    of: tuple[str, ...] = ("residual", UNITS)
    layer: int | None = None
    k: int = K
    limit: int = LIMIT
    metrics: tuple[TextMetric | ImageMetric, ...] = (Lexical(),)

    def plain(self) -> dict[str, Any]:
        return {
            "kinds": sorted(self.kinds),
            "of": sorted(self.of),
            "layer": self.layer,
            "k": self.k,
            "limit": self.limit,
            "metrics": sorted(metric.name for metric in self.metrics),
        }


def measure_dictionaries(
    run_path: Path,
    load: Callable[[], Model],
    nouns: Sequence[str] = (),
    wanted: Wanted | None = None,
    progress: ProgressCallback = lambda _progress: None,
) -> tuple[str, ...]:
    """Adds the dictionaries of some nouns to a run, a shard for each noun; those that are there are left.

    Args:
        run_path: the run's folder.
        load: gets its model; called only if something is missing.
        nouns: lemmas; the three most frequent if none.
        wanted: which dictionaries.
        progress: told in pictures.

    Returns:
        The nouns.

    Raises:
        UsageError: a noun that too few captions say, no such layer, units of a mixture of experts, another model.
    """
    wanted = wanted or Wanted()
    run, _ = shards.read_run(run_path)
    run.model.require_layers([] if wanted.layer is None else [wanted.layer])
    of_noun = {one.lemma: one.first(wanted.limit) for one in chosen(run_path, nouns)}
    names = {noun: _shard(wanted, pictures, run.settings.seed) for noun, pictures in of_noun.items()}
    finished = shards.finished_shards(run_path)
    told = told_in_pictures(list(of_noun.values()), [names[noun] in finished for noun in of_noun], STAGE, progress)
    missing = [noun for noun in of_noun if names[noun] not in finished]
    scored = reopen.open_run(load(), run_path) if missing else None
    for noun in missing:
        assert scored is not None
        shards.write_shard(run_path, names[noun], _answer(scored, wanted, of_noun[noun], told))
    return tuple(of_noun)


def chosen(run_path: Path, nouns: Sequence[str], least: int = LEAST) -> list[Pictures]:
    """The pictures of each noun that was asked for, or of the most frequent ones.

    Raises:
        UsageError: fewer captions than `least` say it.
    """
    known = pictures_of_lemmas(run_path)
    enough = [lemma for lemma, one in known.items() if len(one.image_ids) >= least]
    there = ", ".join(f"{lemma} ({len(known[lemma].image_ids)})" for lemma in enough[:12])
    what_to_do = f"nouns with enough: {there}" if enough else "no noun of the run has so many: score more pictures"
    for noun in nouns or enough[:N_NOUNS] or [""]:
        if noun not in enough:
            n = len(known[noun].image_ids) if noun in known else 0
            said = f"{counted(n, 'caption')} of the run say {noun!r}, and " if noun else ""
            raise UsageError(f"{said}a dictionary takes {counted(least, 'caption')} of its noun at least; {what_to_do}")
    return [known[noun] for noun in nouns or enough[:N_NOUNS]]


def told_in_pictures(
    pictures: Sequence[Pictures], are_done: Sequence[bool], stage: str, progress: ProgressCallback
) -> Callable[[int], None]:
    """Tells progress over the pictures of all nouns; call it with how many more were read."""
    sizes = [len(one.image_ids) for one in pictures]
    done = sum(size for size, is_done in zip(sizes, are_done, strict=True) if is_done)
    progress(Progress(stage, done, sum(sizes), "" if not done else f"{done} were done before"))

    def tell(n: int) -> None:
        nonlocal done
        done += n
        progress(Progress(stage, done, sum(sizes)))

    return tell


def n_concepts(k: int, n_fit: int) -> int:
    """K as asked for, or less, so that a concept has five pictures on average; two at least."""
    return min(k, max(2, n_fit // PICTURES_OF_A_CONCEPT))


def held_out(image_ids: Sequence[str], seed: int) -> Bool[np.ndarray, " n"]:
    """A quarter of the pictures, by a hash: which ones does not depend on their order."""
    keys = [hashlib.sha256(f"{seed}\0{image_id}\0{STAGE}".encode()).hexdigest() for image_id in image_ids]
    found = np.zeros(len(keys), dtype=bool)
    found[np.argsort(np.array(keys), kind="stable")[: len(keys) // HELD_OUT]] = True
    return found


def gram(z: Float[Tensor, "n width"]) -> Float[np.ndarray, "n n"]:
    """Z Zᵀ in float64, a few columns at a time."""
    total = torch.zeros(len(z), len(z), dtype=torch.float64)
    for part in z.split(1 << 14, dim=1):
        total += part.double() @ part.double().T
    return total.numpy()


def _shard(wanted: Wanted, pictures: Pictures, seed: int) -> str:
    asked = [wanted.plain(), pictures.lemma, pictures.image_ids, seed]
    return reopen.shard_name(STAGE, "noun", asked)


def _answer(scored: ScoredRun, wanted: Wanted, pictures: Pictures, told: Callable[[int], None]) -> Tables:
    """The shard of one noun."""
    sites = checked_sites(scored.model, wanted.of, wanted.layer)
    found = read_vectors(scored.model, scored.run.prompt, scored.path, pictures, sites, told)
    if len(found.examples) < LEAST:
        raise UsageError(
            f"only {counted(len(found.examples), 'picture')} of {pictures.lemma!r} still open: put the others back"
        )
    tested, failures = _tested(scored, wanted, pictures.lemma, found)
    parts = [
        _of_one(scored, wanted, pictures.lemma, found, tested, site, kind) for site in sites for kind in wanted.kinds
    ]
    rows: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        for table, some in part.items():
            rows.setdefault(table, []).extend(some)
    tables = {name: pa.Table.from_pylist(some, schema=TABLES[name]) for name, some in rows.items()}
    wrong = (*found.failures, *failures)
    return tables | ({"failure": failure_table(wrong)} if wrong else {})


@dataclass(frozen=True)
class _Tested:
    """Which pictures are held out, and of each of them, by metric, what rates the words of a concept."""

    is_test: Bool[np.ndarray, " n"]
    ratings: Mapping[int, Sequence[tuple[str, _Rate]]]


def _tested(scored: ScoredRun, wanted: Wanted, noun: str, found: Vectors) -> tuple[_Tested, list[Failure]]:
    is_test = held_out([one.image_id for one in found.examples], scored.run.settings.seed)
    added = added_references(scored.path)
    ratings, failures = {}, []
    for row in np.flatnonzero(is_test).tolist():
        example = found.examples[row]
        references = added.get(example.image_id, example.references)
        try:
            ratings[row] = list(_ratings(wanted.metrics, noun, example, found.texts[row], references))
        except ImageError as error:
            failures.append(Failure.of(example.source, STAGE, error))
    return _Tested(is_test, ratings), failures


def _ratings(
    metrics: Sequence[TextMetric | ImageMetric], noun: str, example: Example, caption: str, references: Sequence[str]
) -> Iterator[tuple[str, _Rate]]:
    """What concepts' words are compared with, for one picture: a metric's name, and what rates lists of words."""
    for metric in metrics:
        if isinstance(metric, ImageMetric):
            yield f"{metric.name}:image", partial(_rate_image, metric, example)
            continue
        yield f"{metric.name}:caption", partial(_rate_texts, metric, noun, (caption,))
        if references:
            yield f"{metric.name}:reference", partial(_rate_texts, metric, noun, tuple(references))


def _rate_image(metric: ImageMetric, example: Example, words: Sequence[Sequence[str]]) -> list[float]:
    texts = [f"{CLIP_WORDS}{', '.join(some)}." for some in words]
    return metric.compare_images(texts, [reopen.open_again(example)] * len(texts))


def _rate_texts(metric: TextMetric, noun: str, texts: Sequence[str], words: Sequence[Sequence[str]]) -> list[float]:
    """The best of the texts for each list of words, the noun's own forms left out."""
    said = [" ".join(word for word in some if lemma_of(word) != noun and word != noun) for some in words]
    rated = [metric.compare(said, [text] * len(said)) for text in texts]
    return np.max(rated, axis=0).tolist()


def _of_one(
    scored: ScoredRun, wanted: Wanted, noun: str, found: Vectors, tested: _Tested, site: str, kind: str
) -> dict[str, list[dict[str, Any]]]:
    """The rows of one dictionary."""
    model, seed = scored.model, scored.run.settings.seed
    coordinates, axes = in_span(gram(found.values[site]))
    fit, test = coordinates[~tested.is_test], coordinates[tested.is_test]
    dictionary = _by_share(KINDS[kind](fit, n_concepts(wanted.k, len(fit)), seed), fit)
    directions = torch.from_numpy((dictionary.concepts @ axes).astype(np.float32)) @ found.values[site]
    said = words_of(model, directions, site)
    width = found.values[site].shape[1]
    drawn = random_words(model, site, width, [len(one.words) for one in said], seed)
    key = {"noun": noun, "dictionary": f"{kind}:{site}:k{wanted.k}:n{wanted.limit}"}
    about = {
        "kind": kind,
        "site": site,
        "k": len(said),
        "n_fit": len(fit),
        "n_test": len(test),
        "explained": explained(fit, dictionary, fit.mean(0)),
        "explained_test": explained(test, dictionary, fit.mean(0)),
        "word_overlap": overlap([one.words for one in said]),
        "word_overlap_random": overlap(drawn),
    }
    codes = dictionary.coefficients(coordinates)
    return {
        "dictionary": [key | about],
        "dictionary_concept": list(_concept_rows(model, key, found, tested.is_test, codes, said, directions, site)),
        "dictionary_test": list(_test_rows(key, found, tested, codes, [one.words for one in said], drawn)),
    }


def _by_share(dictionary: Dictionary, fit: Float[np.ndarray, "n r"]) -> Dictionary:
    """The same dictionary, the concept that is strongest in most pictures first."""
    counts = np.bincount(dictionary.coefficients(fit).argmax(1), minlength=len(dictionary.concepts))
    order = np.argsort(-counts, kind="stable")
    return replace(dictionary, concepts=dictionary.concepts[order])  # type: ignore[type-var]


def _concept_rows(
    model: Model,
    key: Mapping[str, str],
    found: Vectors,
    is_test: Bool[np.ndarray, " n"],
    codes: Float[np.ndarray, "n k"],
    said: Sequence[Said],
    directions: Float[Tensor, "k width"],
    site: str,
) -> Iterator[dict[str, Any]]:
    strongest = codes.argmax(1)
    for concept, one in enumerate(said):
        led, led_test = (float((strongest[of] == concept).mean()) for of in (~is_test, is_test))
        order = [row for row in np.argsort(-codes[:, concept], kind="stable") if not is_test[row]][:N_IMAGES]
        shown = [row for row in order if codes[row, concept] > 0]
        yield {
            **key,
            "concept": concept,
            "led": led,
            "led_test": led_test,
            "words": list(one.words),
            "logits": list(one.logits),
            "images": [found.examples[row].image_id for row in shown],
            "coefficients": codes[shown, concept].tolist(),
            **_carriers(model, directions[concept], site),
            "direction": [] if site == UNITS else directions[concept].tolist(),
        }


def _carriers(model: Model, direction: Float[Tensor, " width"], site: str) -> dict[str, list[Any]]:
    """The units that carry most of a concept; their weights, as parts of its length: the squares of all add up to 1."""
    if site != UNITS:
        return {"layers": [], "units": [], "weights": []}
    weights = direction / direction.norm().clamp(min=torch.finfo(torch.float32).tiny)
    best = weights.abs().argsort(descending=True, stable=True)[:N_UNITS]
    m = model.anatomy.d_mlp
    return {"layers": (best // m).tolist(), "units": (best % m).tolist(), "weights": weights[best].tolist()}


def _test_rows(
    key: Mapping[str, str],
    found: Vectors,
    tested: _Tested,
    codes: Float[np.ndarray, "n k"],
    words: Sequence[Sequence[str]],
    drawn: Sequence[Sequence[str]],
) -> Iterator[dict[str, Any]]:
    """How well concepts' words fit each held-out picture: its strongest, any of them, and random directions'."""
    for row, ratings in tested.ratings.items():
        order = np.argsort(-codes[row], kind="stable")
        for metric, rate in ratings:
            rated = np.array(rate([*words, *drawn]))
            own, random = rated[: len(words)], rated[len(words) :]
            for top in TOPS:
                yield {
                    **key,
                    "image_id": found.examples[row].image_id,
                    "metric": metric,
                    "top": top,
                    "concept": int(order[0]),
                    "value": float(own[order[:top]].mean()),
                    "any_concept": float(own.mean()),
                    "random": float(random.mean()),
                }

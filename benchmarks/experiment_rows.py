"""Made-up rows of invariance, specificity and sensitivity in the proportions of a real run, and what their pages ask.

A run of its own kind within the benchmark's: 1,000 pictures of 3 nouns, 6 methods, 8 k, 5 permutations (720,000 rows of
`invariance`), with shuffled rankings for the layer chart, and 5 draws of 5 pictures of each of 80 nouns, layer by layer
(614,400 rows of `shared_layer`). It is part of `filter_latency.py`, which times the queries.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

import numpy as np
import pyarrow as pa

from mmn.names import CONTRIBUTION, HELD_OUT, ORIGINAL, SAME_PICTURE
from mmn.store import Store
from mmn.studies.invariance.cross_image_queries import CrossImageQueries
from mmn.studies.invariance.queries import InvarianceQueries
from mmn.studies.sensitivity.queries import SensitivityQueries
from mmn.studies.specificity.queries import SpecificityQueries
from mmn.studies.tables import LATER, TABLES

METHODS: Final = ("contribution", "contribution-folded", "contribution-actfn", "activation", "attribution", "random")
METRICS: Final = ("lexical:noun", "lexical:caption", "lexical:reference")
LEMMAS: Final = tuple(f"noun{lemma:02d}" for lemma in range(80))
KS: Final = (10, 43, 100, 154, 307, 768, 1000, 2000)
IMAGES, NOUNS, DRAWS, SHUFFLED_IMAGES, TOP_K = 1000, 3, 5, 100, 1000


def experiment_tables(rng: np.random.Generator, n_layers: int) -> dict[str, pa.Table]:
    """The tables of a shard: concepts of 1,000 further pictures, and the experiments' rows about them."""
    said = [(f"{IMAGES + i:064x}", lemma) for i in range(IMAGES) for lemma in rng.choice(LEMMAS, NOUNS, replace=False)]
    found = {
        "image": _images(said),
        "caption": _captions(said),
        "concept": _concepts(said),
        "score": _shuffled_scores(rng, said, n_layers),
        "invariance": pa.concat_tables([_invariance(rng, said), _cross_image(rng)]),
        "shared_layer": _shared_layers(rng, n_layers),
        "specificity": _specificity(rng, said, n_layers),
        "sensitivity": _sensitivity(rng, said),
    }
    return {name: _whole(name, table) for name, table in found.items()}


def _whole(name: str, table: pa.Table) -> pa.Table:
    """The table in its schema; columns that it lacks have what rows of earlier versions are given."""
    later = LATER.get(name, {})
    columns = [
        table[field.name]
        if field.name in table.column_names
        else pa.repeat(pa.scalar(later.get(field.name), field.type), len(table))
        for field in TABLES[name]
    ]
    return pa.table(columns, TABLES[name].names).cast(TABLES[name])


def experiment_queries(store: Store, layers: tuple[int, int]) -> dict[str, Callable[[], object]]:
    """What the three pages ask at once, each with its intervals; some led by units of `layers`."""
    lemma, led = ["noun07"], f"layers {layers[0]}–{layers[1]}"
    return {
        "invariance: 6 methods, 8 k, intervals": lambda: store.ask(InvarianceQueries).curves("latest", METHODS, KS),
        "invariance: 1 noun": lambda: store.ask(InvarianceQueries).curves("latest", METHODS, KS, lemma),
        f"invariance: led by {led}": lambda: store.ask(InvarianceQueries).curves("latest", METHODS, KS, layers=layers),
        "invariance: by concept": lambda: store.ask(InvarianceQueries).by_concept("latest", CONTRIBUTION, 100),
        "invariance: by layer, k 100": lambda: store.ask(InvarianceQueries).by_layer("latest", CONTRIBUTION, 100),
        "invariance: by layer, k 1000": lambda: store.ask(InvarianceQueries).by_layer("latest", CONTRIBUTION, 1000),
        "invariance: nouns that survive": lambda: store.ask(InvarianceQueries).survival("latest"),
        "invariance: what was measured": lambda: store.ask(InvarianceQueries).measured("latest"),
        "across: 80 nouns": lambda: store.ask(CrossImageQueries).by_concept("latest", CONTRIBUTION, 100, 5),
        f"across: {led}": lambda: store.ask(CrossImageQueries).by_concept(
            "latest", CONTRIBUTION, 100, 5, layers=layers
        ),
        "across: by layer": lambda: store.ask(CrossImageQueries).by_layer("latest", CONTRIBUTION, 100, 5),
        "specificity: heat map of 12 concepts": lambda: store.ask(SpecificityQueries).by_concept(
            "latest", CONTRIBUTION
        ),
        "specificity: summary, 5 methods": lambda: store.ask(SpecificityQueries).summary("latest", METHODS[:5]),
        "specificity: highest for own noun": lambda: store.ask(SpecificityQueries).highest_for_own_noun(
            "latest", METHODS[:5]
        ),
        "specificity: pictures to choose": lambda: store.ask(SpecificityQueries).pictures("latest", CONTRIBUTION),
        "sensitivity: 6 methods, 3 measures": lambda: store.ask(SensitivityQueries).summary("latest", METHODS, METRICS),
        f"sensitivity: led by {led}": lambda: store.ask(SensitivityQueries).summary(
            "latest", METHODS, METRICS, layers=layers
        ),
    }


def _variants() -> list[str]:
    return [ORIGINAL, *(f"shuffled-{draw}" for draw in range(DRAWS))]


def _images(said: list[tuple[str, str]]) -> pa.Table:
    rows = [
        {"image_id": i, "source": i, "sources": [i], "width": 336, "height": 336, "reference": []}
        for i in dict.fromkeys(image for image, _ in said)
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["image"])


def _captions(said: list[tuple[str, str]]) -> pa.Table:
    keys = [(image, variant) for image in dict.fromkeys(image for image, _ in said) for variant in _variants()]
    columns = {"image_id": [key[0] for key in keys], "variant": [key[1] for key in keys]}
    return pa.table(
        columns | {"text": ["a noun"] * len(keys), "tokens": pa.array([[1]] * len(keys), pa.list_(pa.int32()))}
    )


def _concepts(said: list[tuple[str, str]]) -> pa.Table:
    fixed = {"n_mentions": 1, "token_id": 0, "position": 0, "logit": 1.0, "prob": 0.5, "residual": 0.0}
    fixed |= {"is_first": True, "is_multi_token": False, "is_shared_token": False}
    rows = [
        {"image_id": image, "variant": variant, "lemma": noun, "noun": noun} | fixed
        for (image, noun), variant in itertools.product(said, _variants())
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["concept"])


def _shuffled_scores(rng: np.random.Generator, said: list[tuple[str, str]], n_layers: int) -> pa.Table:
    """One method's rankings of the first pictures, in the original and shuffled: 1.8 million rows more."""
    keys = list(itertools.product(said[: SHUFFLED_IMAGES * NOUNS], _variants()))
    n = len(keys)
    return pa.table(
        {
            "image_id": np.repeat([key[0][0] for key in keys], TOP_K),
            "variant": np.repeat([key[1] for key in keys], TOP_K),
            "noun": np.repeat([key[0][1] for key in keys], TOP_K),
            "method": np.full(n * TOP_K, CONTRIBUTION),
            "rank": np.tile(np.arange(1, TOP_K + 1), n),
            "layer": rng.integers(0, n_layers, n * TOP_K),
            "unit": rng.integers(0, 300, n * TOP_K),
            "score": np.tile(np.linspace(9, 1, TOP_K), n),
            "activation": pa.nulls(n * TOP_K, pa.float32()),
            "token_position": pa.nulls(n * TOP_K, pa.int32()),
            "expert": pa.nulls(n * TOP_K, TABLES["score"].field("expert").type),
        }
    )


def _invariance(rng: np.random.Generator, said: list[tuple[str, str]]) -> pa.Table:
    repeats = len(METHODS) * len(KS) * DRAWS
    n = len(said) * repeats
    settings = list(itertools.product(METHODS, KS, range(DRAWS)))
    return pa.table(
        {
            "image_id": np.repeat([image for image, _ in said], repeats),
            "kind": np.full(n, "region"),
            "noun": np.repeat([noun for _, noun in said], repeats),
            "method": np.tile([one[0] for one in settings], len(said)),
            "k": np.tile([one[1] for one in settings], len(said)),
            "draw": np.tile([one[2] for one in settings], len(said)),
            "ratio": rng.random(n),
            "floor_other_noun": rng.random(n),
            "floor_random": np.full(n, 0.01),
            "n": np.ones(n, dtype=np.int32),
        }
    )


def _cross_image(rng: np.random.Generator) -> pa.Table:
    settings = list(itertools.product(LEMMAS, METHODS, KS, range(DRAWS)))
    n = len(settings)
    nouns, methods, ks, draws = (list(column) for column in zip(*settings, strict=True))
    return pa.table(
        {
            "image_id": pa.nulls(n, pa.string()),
            "kind": ["cross-image"] * n,
            "noun": nouns,
            "method": methods,
            "k": ks,
            "draw": draws,
            "ratio": rng.random(n),
            "floor_other_noun": pa.nulls(n, pa.float64()),
            "floor_random": np.full(n, 0.01),
            "n": np.full(n, 5, dtype=np.int32),
        }
    )


def _shared_layers(rng: np.random.Generator, n_layers: int) -> pa.Table:
    settings = list(itertools.product(LEMMAS, METHODS, KS, range(DRAWS), [5], range(n_layers)))
    columns = dict(zip(TABLES["shared_layer"].names, map(list, zip(*settings, strict=True)), strict=False))
    n = len(settings)
    return pa.table(columns | {"n_shared": rng.integers(0, 3, n), "n_random": rng.random(n)})


def _specificity(rng: np.random.Generator, said: list[tuple[str, str]], n_layers: int) -> pa.Table:
    keys = [
        (image, one, other, method, is_control, selection)
        for start in range(0, len(said), NOUNS)
        for (image, one), (_, other) in itertools.product(said[start : start + NOUNS], repeat=2)
        for method in METHODS[:5]
        for is_control in (False, True)
        for selection in (HELD_OUT, SAME_PICTURE)
    ]
    names = ("image_id", "unit_noun", "noun", "method", "is_control", "selection")
    columns = dict(zip(names, map(list, zip(*keys, strict=True)), strict=True))
    n = len(keys)
    scores = rng.standard_normal(n)
    return pa.table(
        columns
        | {"layer": rng.integers(0, n_layers, n), "unit": rng.integers(0, 300, n), "score": scores, "share": scores}
    )


def _sensitivity(rng: np.random.Generator, said: list[tuple[str, str]]) -> pa.Table:
    keys = list(itertools.product(said, METHODS, METRICS))
    columns = {"image_id": [key[0][0] for key in keys], "noun": [key[0][1] for key in keys]}
    columns |= {"method": [key[1] for key in keys], "metric": [key[2] for key in keys]}
    return pa.table(columns | {"value": rng.random(len(keys)), "control": rng.random(len(keys))})

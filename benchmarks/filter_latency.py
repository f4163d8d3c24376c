"""Do the pages answer a changed filter in 0.3 s over 5 million scores?

Builds a cache of the size of a LLaVA run (32 layers of 11,008 units; 500 pictures of 5 nouns, 2 methods, top 1,000)
from random units, which is the worst case: no two rankings share more than chance. It goes the way of real data:
`write_shard`, then `load_new_shards`. Prints median, worst and the ratio to the budget for each filter.

    python benchmarks/filter_latency.py [--images 500] [--repeats 15]
    python benchmarks/filter_latency.py --shape 30x1536     # specimen-smollm's 46,080 units
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.experiment_rows import experiment_queries, experiment_tables
from mmn.core import ModelFacts, Outcome, Run, ScoreSettings
from mmn.names import COMPLETE, CONTRIBUTION, ORIGINAL, RANDOM
from mmn.runs import shards
from mmn.store import Store
from mmn.studies.scoring.layer_queries import LayerQueries
from mmn.studies.tables import SCHEMAS

BUDGET_S: Final = 0.3
METHODS: Final = (CONTRIBUTION, RANDOM)
NOUNS_PER_IMAGE: Final = 5
LEMMAS: Final = tuple(f"noun{i:02d}" for i in range(80))
TOP_K: Final = 1000
IMAGES_PER_SHARD: Final = 16
LLAVA: Final = "32x11008"
TIME: Final = "2026-01-01T00:00:00+00:00"


def main() -> None:
    """Prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--shape", default=LLAVA, metavar="LxM", help=f"layers x units of each; default: {LLAVA}")
    arguments = parser.parse_args()
    n_layers, d_mlp = map(int, arguments.shape.split("x"))
    model = ModelFacts("synthetic", "0" * 16, "synthetic", n_layers, d_mlp)
    with tempfile.TemporaryDirectory() as folder:
        n_rows = _build(Path(folder), arguments.images, model)
        started = time.perf_counter()
        with Store.open(Path(folder)) as store:
            store.load_new_shards([store.runs_path])
            assert not store.set_aside, store.set_aside
            seconds = time.perf_counter() - started
            print(f"loading: {seconds:.1f} s, {n_rows / seconds:,.0f} rows/s")
            _time_filters(store, arguments.repeats, n_layers)
        print(f"database: {(Path(folder) / 'mmn.duckdb').stat().st_size / 1e6:.0f} MB")


def _time_filters(store: Store, repeats: int, n_layers: int) -> None:
    middle = (n_layers // 4, n_layers * 3 // 4 - 1)
    both = list(METHODS)
    queries: dict[str, Callable[[], object]] = {
        "all nouns, 1 method, k 100": lambda: store.ask(LayerQueries).distribution("latest", [CONTRIBUTION], [100]),
        "all nouns, 2 methods, k 10, 100, 1000": lambda: store.ask(LayerQueries).distribution(
            "latest", both, [10, 100, 1000]
        ),
        f"all nouns, 2 methods, layers {middle[0]}–{middle[1]}": lambda: store.ask(LayerQueries).distribution(
            "latest", both, [100], layers=middle
        ),
        "1 noun, 2 methods, k 1000": lambda: store.ask(LayerQueries).distribution("latest", both, [1000], LEMMAS[:1]),
        "5 nouns, 2 methods, k 100, 1000": lambda: store.ask(LayerQueries).distribution(
            "latest", both, [100, 1000], LEMMAS[:5]
        ),
        "40 nouns, 2 methods, k 100, 1000": lambda: store.ask(LayerQueries).distribution(
            "latest", both, [100, 1000], LEMMAS[:40]
        ),
        "unit table, all nouns, k 1000": lambda: store.ask(LayerQueries).unit_rows("latest", CONTRIBUTION, 1000),
        "unit table, 1 layer, k 1000": lambda: store.ask(LayerQueries).unit_rows(
            "latest", CONTRIBUTION, 1000, layer=middle[0]
        ),
        "unit table, 1 noun, k 1000": lambda: store.ask(LayerQueries).unit_rows(
            "latest", CONTRIBUTION, 1000, lemmas=LEMMAS[:1]
        ),
        "per picture, k 100": lambda: store.ask(LayerQueries).counts_per_image("latest", CONTRIBUTION, 100),
        **experiment_queries(store, middle),
        "nouns of the filter": lambda: store.concepts("latest"),
        "list of runs": store.runs,
    }
    print(f"{'filter':40} {'median ms':>10} {'worst ms':>10} {'of ' + str(BUDGET_S) + ' s':>10}")
    for name, query in queries.items():
        seconds = [_seconds(query) for _ in range(repeats)]
        median = statistics.median(seconds)
        print(f"{name:40} {median * 1e3:10.0f} {max(seconds) * 1e3:10.0f} {median / BUDGET_S:10.2f}")


def _seconds(query: Callable[[], object]) -> float:
    started = time.perf_counter()
    query()
    return time.perf_counter() - started


def _build(cache_path: Path, n_images: int, model: ModelFacts) -> int:
    """Writes the shards; returns the number of score rows."""
    rng = np.random.default_rng(0)
    settings = ScoreSettings("synthetic", METHODS, TOP_K)
    run_path = shards.create_run(
        cache_path / "runs", Run("0" * 16, TIME, model, "synthetic", "synthetic", settings, {})
    )
    started = time.perf_counter()
    n_rows = 0
    for first in range(0, n_images, IMAGES_PER_SHARD):
        tables = _shard(rng, range(first, min(first + IMAGES_PER_SHARD, n_images)), model)
        n_rows += len(tables["score"])
        shards.write_shard(run_path, f"batch-{first:06d}", tables)
    shards.write_shard(run_path, "experiments", experiment_tables(rng, model.n_layers))
    shards.finish_run(run_path, Outcome(COMPLETE, TIME, 0.0))
    n_bytes = sum(path.stat().st_size for path in run_path.rglob("score.parquet"))
    seconds = time.perf_counter() - started
    print(f"shards: {n_rows:,} rows, {n_bytes / n_rows:.1f} bytes/row, made and written in {seconds:.1f} s")
    return n_rows


def _shard(rng: np.random.Generator, images: range, model: ModelFacts) -> dict[str, pa.Table]:
    keys = [(f"{i:064x}", noun) for i in images for noun in rng.choice(LEMMAS, NOUNS_PER_IMAGE, replace=False)]
    n_rankings, n = len(keys) * len(METHODS), len(keys) * len(METHODS) * TOP_K
    flat = np.concatenate([rng.choice(model.n_units, TOP_K, replace=False) for _ in range(n_rankings)])
    ids, nouns = np.array(keys).T
    columns = {
        "image_id": np.repeat(ids, n // len(keys)),
        "variant": np.full(n, ORIGINAL),
        "noun": np.repeat(nouns, n // len(keys)),
        "method": np.tile(np.repeat(METHODS, TOP_K), len(keys)),
        "rank": np.tile(np.arange(1, TOP_K + 1), n_rankings),
        "layer": flat // model.d_mlp,
        "unit": flat % model.d_mlp,
        "score": -np.sort(-rng.standard_exponential((n_rankings, TOP_K), dtype=np.float32)).ravel(),
        "activation": rng.standard_normal(n, dtype=np.float32),
        "token_position": pa.nulls(n, pa.int32()),
        "expert": pa.nulls(n, SCHEMAS["score"].field("expert").type),
    }
    return {"image": _images(sorted(set(ids))), "concept": _concepts(keys), "score": pa.table(columns)}


def _images(ids: list[str]) -> pa.Table:
    rows = [
        {"image_id": i, "source": i, "sources": [i], "width": 336, "height": 336, "reference": []}
        for i in map(str, ids)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["image"])


def _concepts(keys: list[tuple[str, str]]) -> pa.Table:
    fixed = {"n_mentions": 1, "token_id": 0, "position": 0, "logit": 1.0, "prob": 0.5, "residual": 0.0}
    fixed |= {"is_first": True, "is_multi_token": False, "is_shared_token": False}
    rows = [{"image_id": i, "variant": ORIGINAL, "lemma": str(noun), "noun": str(noun)} | fixed for i, noun in keys]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["concept"])


if __name__ == "__main__":
    main()

"""A small made-up cache for pages, browser journeys and the benchmark: real shards, invented numbers."""

import hashlib
import random
from pathlib import Path

import pyarrow as pa

from mmn.core import ModelFacts, Outcome, Run, ScoreSettings
from mmn.names import COMPLETE, ORIGINAL
from mmn.shards import SCHEMAS, create_run, finish_run, write_shard

NOUNS = ("dog", "bus", "tree", "violin", "zebra", "book", "kite", "grass")
METHODS = ("contribution", "activation", "random")
CAPTION = {"text": "a dog on the grass.", "tokens": [1, 2, 3]}
FLAGS = {
    "is_first": True,
    "is_multi_token": False,
    "is_shared_token": False,
    "is_in_reference": None,
    "target_at": None,
}


def fill(
    cache_path: Path,
    run_id: str = "3f2a9c1b00112233",
    model: str = "specimen",
    n_images: int = 12,
    n_layers: int = 6,
    d_mlp: int = 512,
    top_k: int = 200,
    status: str = COMPLETE,
    n_failed: int = 1,
    created_at: str = "2026-11-20T10:00:00+00:00",
) -> str:
    """Writes the shards of one run into `cache_path`; returns its id."""
    facts = ModelFacts(model, "f" * 16, "llava", n_layers, d_mlp)
    settings = ScoreSettings(prompt="A picture of", methods=METHODS, top_k=top_k)
    run = Run(run_id, created_at, facts, "gallery", "<s><image>A picture of", settings, {"mmn": "0.1.0"})
    run_path = create_run(cache_path / "runs", run)
    rng = random.Random(run_id)
    for start in range(0, n_images, 50):
        numbers = range(start, min(start + 50, n_images))
        tables = _tables(rng, numbers, n_layers, d_mlp, top_k, n_failed if start == 0 else 0)
        write_shard(run_path, f"batch-{start:05d}", tables)
    finish_run(run_path, Outcome(status, "2026-11-20T10:01:00+00:00", 60.0))
    return run_id


def _tables(rng, numbers, n_layers, d_mlp, top_k, n_failed):
    rows: dict[str, list[dict]] = {name: [] for name in SCHEMAS}
    for number in numbers:
        key = {"image_id": hashlib.sha256(str(number).encode()).hexdigest(), "variant": ORIGINAL}
        source = f"/pictures/{number}.jpg"
        size = {"width": 112, "height": 112}
        rows["image"].append(
            {"image_id": key["image_id"], "source": source, "sources": [source], "reference": [], **size}
        )
        rows["caption"].append(key | CAPTION)
        for position, noun in enumerate(rng.sample(NOUNS, 2)):
            said = {"lemma": noun, "noun": noun, "n_mentions": 1, "token_id": 7, "position": position}
            numbers_of = {"logit": 9.5, "prob": 0.9, "residual": 1e-6}
            rows["concept"].append(key | said | numbers_of | FLAGS)
            for method in METHODS:
                rows["score"] += _scores(rng, key | {"noun": noun, "method": method}, n_layers, d_mlp, top_k)
    for number in range(n_failed):
        failed = {"stage": "open", "error": "ImageError", "message": "not a picture; replace the file"}
        rows["failure"].append({"source": f"/pictures/broken-{number}.jpg", **failed})
    return {name: pa.Table.from_pylist(found, schema=SCHEMAS[name]) for name, found in rows.items() if found}


def _scores(rng, key, n_layers, d_mlp, top_k):
    """Ranks whose units crowd in the late layers, but for `random`."""
    chosen: dict[tuple[int, int], None] = {}
    late = key["method"] != "random"
    while len(chosen) < top_k:
        layer = min(n_layers - 1, int(n_layers * rng.random() ** (0.4 if late else 1)))
        chosen[layer, int(d_mlp * rng.random() ** (2 if late else 1))] = None
    return [
        key
        | {"rank": rank, "layer": layer, "unit": unit, "score": 10.0 / rank, "activation": 1.0, "token_position": None}
        for rank, (layer, unit) in enumerate(chosen, start=1)
    ]

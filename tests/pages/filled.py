"""A small made-up cache for pages, browser journeys and the benchmark: real shards, invented numbers."""

import hashlib
import random
from pathlib import Path

import pyarrow as pa
from PIL import Image

from mmn.core import ModelFacts, Outcome, Run, ScoreSettings
from mmn.models.geometry import Cell, Grid, Grids
from mmn.models.geometry.serialise import to_json
from mmn.names import BLANK, COMPLETE, ORIGINAL
from mmn.runs.shards import create_run, finish_run, write_shard
from mmn.studies.tables import SCHEMAS, TABLES
from tests.pages.filled_circuits import circuit_tables
from tests.pages.filled_dictionaries import dictionary_tables
from tests.pages.filled_domains import domain_tables
from tests.pages.filled_effects import effect_tables
from tests.pages.filled_experiments import experiment_tables
from tests.pages.filled_hallucination import hallucination_tables
from tests.pages.filled_image_tokens import image_token_tables
from tests.pages.filled_lens import lens_tables
from tests.pages.filled_patchscopes import patchscope_tables
from tests.pages.filled_projector import projector_tables

NOUNS = ("dog", "bus", "tree", "violin", "zebra", "book", "kite", "grass")
METHODS = ("contribution", "activation", "random")
N_LAYERS, D_MLP, TOP_K, LOOKED = 4, 64, 40, 10
GRIDS = Grids((Grid.even(2, 2, (0.0, 0.0, 64.0, 48.0)),), tuple(Cell(0, i // 2, i % 2) for i in range(4)))
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
    proof = {"exact": 2e-7, "ablation": 3e-7}
    run = Run(run_id, created_at, facts, "gallery", "<s><image>A picture of", settings, {"mmn": "0.1.0"}, proof)
    run_path = create_run(cache_path / "runs", run)
    rng = random.Random(run_id)
    for start in range(0, n_images, 50):
        numbers = range(start, min(start + 50, n_images))
        tables = _tables(rng, numbers, n_layers, d_mlp, top_k, n_failed if start == 0 else 0)
        write_shard(run_path, f"batch-{start:05d}", tables)
    finish_run(run_path, Outcome(status, "2026-11-20T10:01:00+00:00", 60.0))
    return run_id


def fill_whole(
    cache_path: Path, run_id: str = "5e6f000000000000", annotated: bool = True, d_experts: tuple[int, ...] = ()
) -> str:
    """A run in which nothing is missing: pictures that open, references, a grey variant, suppressors, budgets, and
    (unless told otherwise) decoded units and where they look.
    """
    facts = ModelFacts("whole", "a" * 16, "llava", N_LAYERS, D_MLP, d_experts=d_experts)
    methods = ("contribution", "contribution-folded", "activation", "random")
    settings = ScoreSettings(prompt="A", methods=methods, top_k=TOP_K, bottom_k=5, variants=(ORIGINAL, BLANK))
    run = Run(run_id, "2026-11-21T10:00:00+00:00", facts, "gallery", "<image>A", settings, {"mmn": "0.1.0"})
    run_path = create_run(cache_path / "runs", run)
    rng = random.Random(run_id)
    rows: dict[str, list[dict]] = {name: [] for name in TABLES}
    for number in range(20):
        path = cache_path / "pictures" / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 48), (10 * number, 90, 200 - 5 * number)).save(path)
        _tell_picture(rng, rows, path, number, methods)
    if annotated:
        rows["neuron"] = [_decoded(rng, layer, unit) for layer in range(N_LAYERS) for unit in range(D_MLP)]
    else:
        rows |= {"look": [], "field": [], "grid": []}
    told = {name: pa.Table.from_pylist(found, schema=TABLES[name]) for name, found in rows.items() if found}
    write_shard(run_path, "all", {name: table for name, table in told.items() if name in SCHEMAS})
    if annotated:
        write_shard(run_path, "annotation", {name: table for name, table in told.items() if name not in SCHEMAS})
        write_shard(run_path, "experiments", experiment_tables(rng, rows, methods, N_LAYERS, D_MLP))
        write_shard(run_path, "effects", effect_tables(rows, methods, D_MLP))
        write_shard(run_path, "domains", domain_tables(random.Random(run_id), rows, facts, run_id))
        write_shard(run_path, "image-tokens", image_token_tables(rng, rows, N_LAYERS, len(GRIDS.cells)))
        write_shard(run_path, "dictionaries", dictionary_tables(rng, rows, N_LAYERS))
        write_shard(run_path, "lens", lens_tables(rng, rows, N_LAYERS, len(GRIDS.cells)))
        write_shard(run_path, "circuits-made-up", circuit_tables(rng, rows, N_LAYERS, D_MLP))
        write_shard(run_path, "hallucination", hallucination_tables(rows, NOUNS, len(GRIDS.cells)))
        write_shard(run_path, "patchscopes", patchscope_tables(rng, rows, N_LAYERS))
        write_shard(run_path, "projector", projector_tables(rng, rows, N_LAYERS, D_MLP))
    finish_run(run_path, Outcome(COMPLETE, "2026-11-21T10:01:00+00:00", 60.0))
    return run_id


def _tell_picture(rng, rows, path, number, methods):
    image_id = hashlib.sha256(path.read_bytes()).hexdigest()
    said = rng.sample(NOUNS, 2)
    text = f"a {said[0]} and a {said[1]}."
    reference = [f"a {said[0]}."] + ["a picture of a meadow."] * (number % 2)
    size = {"width": 64, "height": 48}
    rows["image"].append(
        {"image_id": image_id, "source": str(path), "sources": [str(path)], "reference": reference, **size}
    )
    rows["grid"].append({"image_id": image_id, "grid": to_json(GRIDS)})
    looked: set[tuple[int, int]] = set()
    for variant, logit in ((ORIGINAL, 9.5), (BLANK, 2.5)):
        key = {"image_id": image_id, "variant": variant}
        rows["caption"].append(key | {"text": text, "tokens": [1, 2, 3]})
        for position, noun in enumerate(said):
            flags = FLAGS | {
                "is_in_reference": position == 0,
                "is_multi_token": position == 1,
                "is_first": position == 0,
            }
            base = {"lemma": noun, "noun": noun, "n_mentions": 1, "token_id": 7, "position": position}
            rows["concept"].append(key | base | {"logit": logit, "prob": logit / 10, "residual": 0.0} | flags)
            rows["budget"] += _budget(key | {"noun": noun}, logit)
            for method in methods:
                scores = _scores(rng, key | {"noun": noun, "method": method}, N_LAYERS, D_MLP, TOP_K)
                rows["score"] += scores + _suppressors(scores)
                if variant == ORIGINAL:
                    rows["field"] += [_field(row) for row in scores[:LOOKED]]
                    rows["field"] += [_field(row) | HELD_OUT for row in scores[:LOOKED]]
                    looked |= {(row["layer"], row["unit"]) for row in scores[:LOOKED]}
    rows["look"] += [
        {"image_id": image_id, "layer": layer, "unit": unit, "activations": [rng.gauss(0, 1) for _ in GRIDS.cells]}
        for layer, unit in sorted(looked)
    ]


def _suppressors(scores):
    """Five units that are not among `scores`, ranks −1 to −5."""
    kept = {(row["layer"], row["unit"]) for row in scores}
    free = [(0, unit) for unit in range(D_MLP) if (0, unit) not in kept][:5]
    return [
        scores[0] | {"rank": -1 - i, "layer": layer, "unit": unit, "score": -5.0 + i}
        for i, (layer, unit) in enumerate(free)
    ]


def _budget(key, logit):
    parts = [("embedding", None, 0.5), *(("attention", layer, 1.0) for layer in range(N_LAYERS))]
    parts += [("ffn", layer, -0.25) for layer in range(N_LAYERS)]
    parts.append(("bias", None, logit - sum(part[2] for part in parts)))
    return [key | {"term": term, "layer": layer, "logit": value} for term, layer, value in parts]


HELD_OUT = {"selection": "held-out", "found_on": "other", "iou": 0.375}


def _field(row):
    key = {name: row[name] for name in ("image_id", "noun", "method", "rank", "layer", "unit")}
    found = {"selection": "same", "found_on": None, "iou_best": 0.75}
    return key | {"iou": 0.5, "iou_other": 0.25, "iou_random": 0.125} | found


def _decoded(rng, layer, unit):
    unit_row = {"model_fingerprint": "a" * 16, "layer": layer, "unit": unit, "tokens": rng.choices(NOUNS, k=10)}
    raw = {"logits": [1 - 0.1 * i for i in range(10)], "is_interpretable": unit % 2 == 0, "mean_logit": 0.25}
    nearest = {"cosine_tokens": unit_row["tokens"][::-1], "cosines": [0.9 - 0.05 * i for i in range(10)]}
    return unit_row | raw | nearest | {"is_cosine_interpretable": unit % 3 == 0}


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

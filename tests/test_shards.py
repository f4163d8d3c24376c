"""Shards are there whole or not at all, and hold nothing that must not be stored."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmn.core import ModelFacts, Outcome, Run, ScoreSettings
from mmn.errors import CacheError
from mmn.names import ABLATE, CANCELLED, COMPLETE, CONTRIBUTION, EVERYWHERE, ORIGINAL, TOP
from mmn.runs import shard_files, shards
from mmn.safety import atomic_files
from mmn.studies.tables import SCHEMAS, TABLES

MODEL = ModelFacts("specimen", "f" * 16, "specimen", n_layers=3, d_mlp=8)
RUN = Run(
    run_id="0123456789abcdef",
    created_at="2026-11-21T10:00:00+00:00",
    model=MODEL,
    images="gallery",
    prompt="<image> A picture of",
    settings=ScoreSettings("A picture of", (CONTRIBUTION, "random"), top_k=4),
    versions={"mmn": "0.1.0"},
)
DONE = Outcome(COMPLETE, "2026-11-21T10:00:09+00:00", 9.0)


def score_rows(image_id: str, noun: str, method: str, scores: np.ndarray, top_k: int) -> list[dict]:
    """The ranked rows of one concept: `scores` over all units, layer by layer; ties to the lower unit."""
    order = np.lexsort((np.arange(scores.size), -scores))[:top_k]
    return [
        {
            "image_id": image_id,
            "variant": ORIGINAL,
            "noun": noun,
            "method": method,
            "rank": rank,
            "layer": int(flat) // MODEL.d_mlp,
            "unit": int(flat) % MODEL.d_mlp,
            "score": float(scores[flat]),
            "activation": 0.5,
            "token_position": None,
            "expert": None,
        }
        for rank, flat in enumerate(order, 1)
    ]


def tables_of(nouns: dict[str, list[str]], seed: int = 0, top_k: int = 4) -> dict[str, pa.Table]:
    """A shard of the pictures `nouns`, each with the nouns of its caption; a noun's lemma is itself without `s`."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[dict]] = {name: [] for name in SCHEMAS}
    for image_id, said in nouns.items():
        rows["image"].append(image_row(image_id))
        rows["caption"].append({"image_id": image_id, "variant": ORIGINAL, "text": " ".join(said), "tokens": [1, 2]})
        for position, noun in enumerate(said):
            rows["concept"].append(concept_row(image_id, noun, position))
            rows["budget"].append(
                {
                    "image_id": image_id,
                    "variant": ORIGINAL,
                    "noun": noun,
                    "term": "embedding",
                    "layer": None,
                    "logit": 1.0,
                }
            )
            for method in RUN.settings.methods:
                rows["score"] += score_rows(image_id, noun, method, rng.standard_normal(MODEL.n_units), top_k)
    rows["failure"].append({"source": "broken.png", "stage": "open", "error": "ImageError", "message": "truncated"})
    return {name: pa.Table.from_pylist(rows[name], schema=schema) for name, schema in SCHEMAS.items()}


def image_row(image_id: str) -> dict:
    source = f"pictures/{image_id}.png"
    size = {"width": 32, "height": 24}
    return {"image_id": image_id, "source": source, "sources": [source], "reference": []} | size


def concept_row(image_id: str, noun: str, position: int = 0, target_at: str | None = None) -> dict:
    return {
        "image_id": image_id,
        "variant": ORIGINAL,
        "lemma": noun.removesuffix("s"),
        "noun": noun,
        "n_mentions": 1,
        "token_id": 7,
        "position": position,
        "logit": 4.0,
        "prob": 0.25,
        "residual": -1e-6,
        "is_first": position == 0,
        "is_multi_token": False,
        "is_shared_token": False,
        "is_in_reference": None,
        "target_at": target_at,
    }


def changed(table: pa.Table, column: str, values: list) -> pa.Table:
    """`table` with other values in the first rows of a column; the column may be empty where it must not."""
    index = table.column_names.index(column)
    filled = [*values, *table[column].to_pylist()[len(values) :]]
    return table.set_column(index, column, pa.array(filled, table.schema.field(column).type))


@pytest.fixture
def run_path(tmp_path: Path) -> Path:
    return shards.create_run(tmp_path / "runs", RUN)


def test_a_run_reads_back_equal(run_path: Path) -> None:
    assert run_path.name == RUN.run_id
    assert shards.read_run(run_path) == (RUN, None)
    shards.finish_run(run_path, DONE)
    assert shards.read_run(run_path) == (RUN, DONE)


def test_a_resumed_run_keeps_its_folder_and_may_complete(run_path: Path) -> None:
    shards.write_shard(run_path, "batch-0", tables_of({"a": ["dog"]}))
    shards.finish_run(run_path, replace(DONE, status=CANCELLED))
    later = replace(RUN, created_at="2026-11-22T10:00:00+00:00")
    assert shards.create_run(run_path.parent, later) == run_path
    assert shards.finished_shards(run_path) == {"batch-0"}
    shards.finish_run(run_path, DONE)
    shards.finish_run(run_path, replace(DONE, status=CANCELLED, seconds=0.1))
    assert shards.read_run(run_path) == (RUN, DONE)


def test_a_folder_of_another_run_is_refused(run_path: Path) -> None:
    run_path.rename(run_path.with_name("f" * 16))
    with pytest.raises(CacheError, match="holds the run 0123456789abcdef"):
        shards.create_run(run_path.parent, replace(RUN, run_id="f" * 16))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"run_id": "x", "new_field": 1, "model": {}, "settings": {}}'])
def test_an_unreadable_run_file_says_so(run_path: Path, text: str) -> None:
    (run_path / shards.RUN_FILE).write_text(text)
    with pytest.raises(CacheError, match=r"run\.json"):
        shards.read_run(run_path)


def test_a_shard_reads_back_equal_in_the_same_order(run_path: Path) -> None:
    tables = tables_of({"b": ["dog", "cats"], "a": ["dog"]})
    shard_path = shards.write_shard(run_path, "batch-00000", tables)
    assert shard_path == run_path / "batch-00000"
    found = shards.read_shard(shard_path)
    assert list(found) == list(SCHEMAS)
    for name, table in tables.items():
        placed = ["source", "sources"] if name == "image" else []  # relative paths come back absolute
        assert found[name].drop(placed).equals(table.drop(placed)), name
        assert found[name].schema.equals(SCHEMAS[name]), name


def test_pictures_beside_the_run_are_found_from_anywhere(run_path: Path) -> None:
    images = tables_of({"a": ["dog"]})["image"]
    beside = images.set_column(1, "source", pa.array(["../../gallery/a.png"]))
    shard_path = shards.write_shard(run_path, "batch", {"image": beside})
    assert shards.read_shard(shard_path)["image"]["source"].to_pylist() == [str(run_path.parents[1] / "gallery/a.png")]


def test_a_copied_run_says_the_same_and_can_be_added_to(run_path: Path, tmp_path: Path) -> None:
    shards.write_shard(run_path, "batch", tables_of({"a": ["dog"]}))
    copy_path = shards.copy_run(run_path, tmp_path / "copies")
    assert shards.read_run(copy_path) == shards.read_run(run_path)
    assert shards.read_shard(copy_path / "batch") == shards.read_shard(run_path / "batch")
    shards.write_shard(copy_path, "more", tables_of({"b": ["cat"]}))
    assert shards.copy_run(run_path, tmp_path / "copies") == copy_path
    assert shards.finished_shards(copy_path) == {"batch", "more"}
    assert shards.finished_shards(run_path) == {"batch"}


def test_other_types_and_column_order_are_brought_into_the_schema(run_path: Path) -> None:
    score = tables_of({"a": ["dog"]})["score"]
    wide = score.set_column(7, "score", score["score"].cast(pa.float64()))
    wide = wide.set_column(5, "layer", score["layer"].cast(pa.int64()))
    wide = wide.set_column(3, "method", score["method"].dictionary_encode())
    tables = tables_of({"a": ["dog"]}) | {"score": wide.select(sorted(wide.column_names))}
    assert shards.read_shard(shards.write_shard(run_path, "batch", tables))["score"].equals(score)


def test_the_first_shard_of_a_name_wins(run_path: Path) -> None:
    first = tables_of({"a": ["dog"]}, seed=0)
    shards.write_shard(run_path, "batch", first)
    shard_path = shards.write_shard(run_path, "batch", tables_of({"a": ["dog"]}, seed=1))
    assert shards.read_shard(shard_path)["score"].equals(first["score"])
    hidden_path = atomic_files.hidden(run_path, "batch")
    shard_files.write_files(hidden_path, RUN, "batch", tables_of({"a": ["dog"]}, seed=1))
    atomic_files.publish(hidden_path, shard_path)  # the other writer was between its look and its rename
    assert shards.read_shard(shard_path)["score"].equals(first["score"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("table", "column"), [("score", "score"), ("score", "activation"), ("concept", "residual")])
def test_nan_and_infinite_values_are_refused(run_path: Path, table: str, column: str, value: float) -> None:
    tables = tables_of({"a": ["dog"]})
    tables[table] = changed(tables[table], column, [value])
    with pytest.raises(AssertionError, match=rf"{table}\.{column}: 1 of \d+ values are NaN or infinite"):
        shards.write_shard(run_path, "batch", tables)
    assert list(run_path.iterdir()) == [run_path / shards.RUN_FILE]


def test_a_score_too_large_for_its_column_is_refused(run_path: Path) -> None:
    tables = tables_of({"a": ["dog"]})
    score = tables["score"].set_column(7, "score", pa.array([1e39] * len(tables["score"]), pa.float64()))
    with pytest.raises((AssertionError, pa.ArrowInvalid)):
        shards.write_shard(run_path, "batch", tables | {"score": score})


def test_missing_values_columns_and_concepts_are_refused(run_path: Path) -> None:
    tables = tables_of({"a": ["dog"]})
    wrong = {
        "score.rank: 1 nulls": {"score": changed(tables["score"], "rank", [None])},
        "score: ": {"score": tables["score"].drop_columns(["token_position"])},
        "score rows without a concept": {"score": changed(tables["score"], "noun", ["cat"])},
        "budget rows without a concept": {"budget": changed(tables["budget"], "variant", ["blank"])},
        "2 concept rows but 1 distinct": {"concept": pa.concat_tables([tables["concept"]] * 2)},
    }
    for message, table in wrong.items():
        with pytest.raises(AssertionError, match=message):
            shards.write_shard(run_path, "batch", tables | table)


@pytest.mark.parametrize("column", ["kind", "selection", "positions"])
def test_a_word_that_no_figure_knows_is_refused(run_path: Path, column: str) -> None:
    """Pages had words of their own for each, and failed with a KeyError on another."""
    concept = tables_of({"a": ["dog"]})["concept"].select(["image_id", "variant", "noun"]).to_pylist()[0]
    known = {"kind": ABLATE, "selection": TOP, "positions": EVERYWHERE, "method": "contribution", "k": 1, "draw": 0}
    effect = concept | known | {"logit": 1.0, "prob": 0.5}
    for value, is_known in ((known[column], True), ("elsewhere", False)):
        table = pa.Table.from_pylist([effect | {column: value}], schema=TABLES["effect"])
        if is_known:
            shards.write_shard(run_path, "batch", {"effect": table})
        else:
            with pytest.raises(AssertionError, match=rf"effect\.{column} is 'elsewhere', which is not among"):
                shards.write_shard(run_path, "other", {"effect": table})


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a b"])
def test_a_shard_needs_a_plain_name(run_path: Path, name: str) -> None:
    with pytest.raises(AssertionError, match="not a shard name"):
        shards.write_shard(run_path, name, tables_of({"a": ["dog"]}))


def test_tables_without_rows_and_shards_of_failures_only(run_path: Path) -> None:
    tables = tables_of({})
    shards.write_shard(run_path, "empty", tables)
    shards.write_shard(run_path, "listing", {"failure": tables["failure"]})
    assert shards.finished_shards(run_path) == {"empty", "listing"}
    assert list(shards.read_shard(run_path / "listing")) == ["failure"]


def test_a_full_disk_is_told_and_leaves_finished_shards(run_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards.write_shard(run_path, "batch-0", tables_of({"a": ["dog"]}))
    whole = pq.write_table

    def write_half(table: pa.Table, path: Path, **options: object) -> None:
        whole(table, path, **options)
        os.truncate(path, 10)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", write_half)
    with pytest.raises(CacheError, match=r"no space left.*MB free.*finished batches are kept.*resume"):
        shards.write_shard(run_path, "batch-1", tables_of({"b": ["dog"]}))
    assert sorted(p.name for p in run_path.iterdir()) == ["batch-0", "run.json"]


def test_an_error_that_is_not_a_full_disk_propagates(run_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="input/output"):
        shards.write_shard(run_path, "batch", tables_of({"a": ["dog"]}))


def test_writing_into_a_deleted_run_says_so(run_path: Path) -> None:
    shards.remove(run_path.parent, run_path.name)()
    with pytest.raises(CacheError, match="deleted while it was being scored"):
        shards.write_shard(run_path, "batch", tables_of({"a": ["dog"]}))
    assert list(run_path.parent.iterdir()) == []


def test_a_broken_shard_is_named(run_path: Path) -> None:
    shard_path = shards.write_shard(run_path, "batch", tables_of({"a": ["dog"]}))
    os.truncate(shard_path / "score.parquet", 100)
    with pytest.raises(CacheError, match=f"{shard_path}.*delete that folder"):
        shards.read_shard(shard_path)


_WRITER = """
import os, sys
from pathlib import Path
sys.path.insert(0, "tests")
import test_shards as t
from mmn.runs import shards
tables = t.tables_of({"a": ["dog", "cat"]})
for n in range(100_000):
    shards.write_shard(Path(sys.argv[1]), f"batch-{os.getpid()}-{n:06d}", tables)
    print("one more", flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_only_whole_shards(run_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(4):
        n_before = len(shards.finished_shards(run_path))
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(run_path)], stdout=subprocess.PIPE, cwd=_ROOT
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(rng.uniform(0, 0.05))
            writer.send_signal(signal.SIGKILL)
        names = shards.finished_shards(run_path)
        assert len(names) > n_before
        for name in names:
            assert list(shards.read_shard(run_path / name)) == list(SCHEMAS)
    shards.create_run(run_path.parent, RUN)
    assert {p.name for p in run_path.iterdir()} == names | {shards.RUN_FILE}


def test_only_leftovers_of_the_dead_are_removed(run_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = atomic_files._HOST
    names = {
        "ours": f".a.{host}.{os.getpid()}.{atomic_files._PROCESS}.00",
        "alive": f".a.{host}.{os.getppid()}.11111111.00",
        "elsewhere": ".a.other-machine.1.11111111.00",
        "stranger": ".DS_Store",
        "dead": f".a.{host}.{dead.pid}.11111111.00",
        "our number, another life": f".a.{host}.{os.getpid()}.11111111.00",
        "elsewhere, long ago": ".b.other-machine.1.11111111.00",
    }
    for name in names.values():
        (run_path / name).mkdir()
    os.utime(run_path / names["elsewhere, long ago"], (0, 0))
    shards.create_run(run_path.parent, RUN)
    left = {kind for kind, name in names.items() if (run_path / name).exists()}
    assert left == {"ours", "alive", "elsewhere", "stranger"}


def test_score_shards_stay_small(tmp_path: Path) -> None:
    """Encodings, not only zstd: on a real run they save 40 %, on this noise, which nothing can press, less."""
    rng = np.random.default_rng(0)
    n_concepts, k = 20, 1000
    score = np.sort(rng.standard_normal((n_concepts, k)).astype(np.float32))[:, ::-1]
    n = n_concepts * k
    concept = [concept_row(f"{i:064x}", "dog") for i in range(n_concepts)]
    columns = {
        "image_id": np.repeat([row["image_id"] for row in concept], k),
        "variant": [ORIGINAL] * n,
        "noun": ["dog"] * n,
        "method": [CONTRIBUTION] * n,
        "rank": np.tile(np.arange(1, k + 1), n_concepts),
        "layer": rng.integers(0, 6, n),
        "unit": rng.integers(0, 512, n),
        "score": score.ravel(),
        "activation": rng.standard_normal(n).astype(np.float32),
        "token_position": pa.nulls(n, pa.int32()),
        "expert": pa.nulls(n, pa.int16()),
    }
    tables = {"concept": pa.Table.from_pylist(concept, schema=SCHEMAS["concept"]), "score": pa.table(columns)}
    large = replace(RUN, model=replace(MODEL, n_layers=6, d_mlp=512), settings=replace(RUN.settings, top_k=k))
    run_path = shards.create_run(tmp_path / "runs", large)
    shard_path = shards.write_shard(run_path, "batch", tables)
    pq.write_table(shards.read_shard(shard_path)["score"], run_path / "plain.parquet", compression="zstd")
    assert (shard_path / "score.parquet").stat().st_size < 0.8 * (run_path / "plain.parquet").stat().st_size


def test_values_of_lists_are_stored_as_those_of_columns_are(run_path: Path) -> None:
    lens = {"image_id": "a", "kind": "lens", "layer": 0, "tokens": ["dog", "cat"], "scores": [0.5, 0.25]}
    table = pa.Table.from_pylist([lens | {"token_position": one} for one in range(9)], schema=TABLES["lens"])
    shard_path = shards.write_shard(run_path, "lens", {"lens": table})
    group = pq.ParquetFile(shard_path / "lens.parquet").metadata.row_group(0)
    columns = {column.path_in_schema: column.encodings for column in map(group.column, range(group.num_columns))}
    assert "RLE_DICTIONARY" in columns["tokens.list.element"]
    assert "BYTE_STREAM_SPLIT" in columns["scores.list.element"]
    assert shards.read_shard(shard_path)["lens"].equals(table)


_ROOT = Path(__file__).parent.parent

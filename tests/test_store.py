"""The database holds each shard once, whatever happens, and answers as a plain computation over the rows does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmn.core import ScoreSettings
from mmn.errors import CacheError, CacheLockedError, CacheNewerError, RunNotFoundError, UsageError
from mmn.figures.captions import caption
from mmn.figures.figure import draw
from mmn.names import CANCELLED, COMPLETE, CONTRIBUTION, EFFECT, MINUS_BLANK, RANDOM, RUNNING
from mmn.runs import shards
from mmn.store import Store, database, migrations
from mmn.store.labels import Label
from mmn.store.reader import MOST_RECENT
from mmn.studies.registry import FIGURES
from mmn.studies.scoring.layer_queries import LayerQueries
from mmn.studies.tables import SCHEMAS, TABLES
from mmn.view import View
from tests.test_shards import DONE, MODEL, RUN, concept_row, image_row, score_rows, tables_of
from tests.unbound import unbind

ROOT = Path(__file__).parent.parent
PICTURES = {"a": ["dog", "cats"], "b": ["dog"], "c": ["trees", "dogs", "sky"]}


@pytest.fixture
def cache_path(tmp_path: Path) -> Path:
    """A cache with one scored run of two shards that no database knows of yet."""
    run_path = shards.create_run(tmp_path / "runs", RUN)
    shards.write_shard(run_path, "batch-0", tables_of({image: PICTURES[image] for image in "ab"}))
    shards.write_shard(run_path, "batch-1", tables_of({"c": PICTURES["c"]}, seed=1))
    return tmp_path


@pytest.fixture
def store(cache_path: Path) -> Iterator[Store]:
    with Store.open(cache_path) as opened:
        assert opened.load_new_shards([opened.runs_path]) == 2
        yield opened


def test_an_empty_cache_opens_and_answers(tmp_path: Path) -> None:
    with Store.open(tmp_path / "new" / "cache") as empty:
        assert empty.load_new_shards([empty.runs_path]) == 0
        assert empty.runs().empty
        with pytest.raises(RunNotFoundError, match="holds none yet"):
            empty.run("latest")


NEW_COLUMNS = ("is_cut", "is_compound", "is_modifier")


def test_rows_arrive_as_they_were_written(store: Store) -> None:
    written = [tables_of({i: PICTURES[i] for i in "ab"}), tables_of({"c": PICTURES["c"]}, seed=1)]
    for name in ("caption", "concept", "score", "budget"):
        expected = pa.concat_tables([tables[name] for tables in written]).to_pylist()
        found = store.table(RUN.run_id, name)
        assert list(found.columns) == ["run_id", *SCHEMAS[name].names]
        assert len(found) == len(expected)
    score = store.table(RUN.run_id, "score").drop(columns=["run_id", "token_position"])
    rows = [{k: v for k, v in row.items() if k != "token_position"} for t in written for row in t["score"].to_pylist()]
    rows.sort(key=lambda row: (row["image_id"], row["noun"], row["method"], row["rank"]))
    assert score.astype(object).to_dict("records") == rows


def test_loading_twice_is_loading_once(cache_path: Path, store: Store) -> None:
    before = {name: store.table(RUN.run_id, name) for name in migrations.PUBLIC_TABLES}
    assert store.load_new_shards([store.runs_path]) == 0
    assert store.load_new_shards([cache_path / "runs" / RUN.run_id]) == 0
    store.close()
    with Store.open(cache_path) as again:
        assert again.load_new_shards([again.runs_path]) == 0
        for name, table in before.items():
            pd.testing.assert_frame_equal(again.table(RUN.run_id, name), table)
        assert again.summary(RUN.run_id)["n_scores"] == 6 * 2 * 4


def test_threads_that_load_at_once_add_each_shard_once(cache_path: Path) -> None:
    with Store.open(cache_path) as store, ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda _: store.load_new_shards([store.runs_path]), range(4)))
        assert sum(counts) == 2
        assert store.summary(RUN.run_id)["n_scores"] == 6 * 2 * 4


def test_progress_counts_shards(cache_path: Path) -> None:
    told = []
    with Store.open(cache_path) as store:
        store.load_new_shards([store.runs_path], lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_a_run_shows_its_end_when_it_has_ended(store: Store) -> None:
    assert store.run("latest")["status"] == RUNNING
    run_path = store.runs_path / RUN.run_id
    for status in (CANCELLED, COMPLETE):
        shards.finish_run(run_path, replace(DONE, status=status))
        store.load_new_shards([store.runs_path])
        assert store.run("latest")["status"] == status
    assert store.run("latest")["seconds"] == 9.0


def test_a_figure_is_remembered_until_something_is_loaded_and_not_for_ever(store: Store) -> None:
    asked: list[int] = []

    def ask(number: int) -> int:
        def answer() -> int:
            asked.append(number)
            return number

        found: int = store.recent(("figure", number), answer)
        return found

    assert [ask(1), ask(1)] == [1, 1]
    assert store.load_new_shards([store.runs_path]) == 0
    ask(1)
    assert asked == [1], "a look in vain changes nothing"
    for number in range(2, 2 + MOST_RECENT["figure"]):
        ask(number)
    assert ask(1) == 1
    assert asked.count(1) == 2, "others were asked for since"
    store.set_label("latest", Label(name="renamed"))
    ask(1)
    assert asked.count(1) == 3


def test_what_is_remembered_of_a_run_ends_with_a_write(store: Store) -> None:
    grey = CONTRIBUTION + MINUS_BLANK
    assert store.score_methods("latest") == [CONTRIBUTION, RANDOM]
    tables = tables_of({"z": ["dog"]}, seed=2)
    tables["score"] = tables["score"].filter(pc.equal(tables["score"]["method"], CONTRIBUTION))
    place = tables["score"].schema.get_field_index("method")
    others = pa.array([grey] * len(tables["score"]))
    tables["score"] = tables["score"].set_column(place, tables["score"].schema.field(place), others)
    shards.write_shard(store.runs_path / RUN.run_id, "batch-2", tables)
    assert grey not in store.score_methods("latest")
    store.load_new_shards([store.runs_path])
    assert grey in store.score_methods("latest")
    assert store.concepts("latest")["n_images"].sum() == 7
    store.delete_run("latest")
    with pytest.raises(RunNotFoundError):
        store.concepts("latest")


def test_a_run_row_holds_every_input(store: Store) -> None:
    row = store.run(RUN.run_id)
    assert row["settings"]["methods"] == [CONTRIBUTION, "random"]
    assert row["versions"] == RUN.versions
    assert (row["n_layers"], row["d_mlp"], row["model_fingerprint"]) == (3, 8, MODEL.fingerprint)
    assert row["created_at"].isoformat() == "2026-11-21T10:00:00"


def test_times_are_kept_in_utc(tmp_path: Path) -> None:
    shards.create_run(tmp_path / "runs", replace(RUN, created_at="2026-11-21T10:00:00+09:00"))
    with Store.open(tmp_path) as store:
        store.load_new_shards([store.runs_path])
        assert store.run("latest")["created_at"].isoformat() == "2026-11-21T01:00:00"


def test_runs_are_found_by_their_beginning(tmp_path: Path) -> None:
    aa11, aa22, aa23, bb33 = (begin + "0" * 12 for begin in ("aa11", "aa22", "aa23", "bb33"))
    for hour, run_id in enumerate([aa11, aa22, aa23, bb33]):
        shards.create_run(tmp_path / "runs", replace(RUN, run_id=run_id, created_at=f"2026-11-21T0{hour}:00:00+00:00"))
    with Store.open(tmp_path) as store:
        store.load_new_shards([store.runs_path])
        assert list(store.runs()["run_id"]) == [bb33, aa23, aa22, aa11]
        assert [store.run(text)["run_id"] for text in ("latest", "b", "aa23", aa22)] == [bb33, bb33, aa23, aa22]
        with pytest.raises(RunNotFoundError, match=rf"more than one.*'aa'.*{aa23}, {aa22}, {aa11}"):
            store.run("aa")
        for text in ("cc", "", "%", "aa_1"):
            with pytest.raises(RunNotFoundError, match=r"no run .*bb33"):
                store.run(text)


def test_counts_and_the_largest_residual(store: Store) -> None:
    counts = {"n_images": 3, "n_failed": 2, "n_concepts": 6, "n_scores": 48}
    assert store.summary("latest") == counts | {"max_residual": 1e-6 / 4.0}
    row = store.runs().iloc[0]
    assert {name: row[name] for name in counts} == counts
    assert store.score_methods("latest") == [CONTRIBUTION, RANDOM]


def test_concepts_count_pictures_by_lemma(store: Store) -> None:
    concepts = store.concepts("latest").set_index("lemma")
    assert list(concepts.index) == ["dog", "cat", "sky", "tree"]
    dog = concepts.loc["dog"]
    assert (dog["n_images"], dog["n_mentions"], dog["mean_prob"], dog["n_first"]) == (3, 3, 0.25, 2)
    assert (dog["n_in_reference"], dog["n_with_reference"]) == (0, 0)
    assert store.concepts("latest", "blank").empty


def test_an_unknown_table_lists_the_tables(store: Store) -> None:
    with pytest.raises(UsageError, match=r"'scores'.*run, image, caption, concept, score"):
        store.table("latest", "scores")
    with pytest.raises(RunNotFoundError):
        store.table("nothing", "score")


def test_relative_sources_open_from_anywhere(store: Store) -> None:
    image = store.table("latest", "image").iloc[0]
    expected = str(store.runs_path / RUN.run_id / "pictures" / "a.png")
    assert image["source"] == expected
    assert list(image["sources"]) == [expected]


def test_one_image_row_though_two_shards_tell_of_it(store: Store) -> None:
    tables = {name: tables_of({"a": ["dog"]})[name] for name in ("image",)}
    shards.write_shard(store.runs_path / RUN.run_id, "shuffled", tables)
    assert store.load_new_shards([store.runs_path]) == 1
    assert list(store.table("latest", "image")["image_id"]) == ["a", "b", "c"]


def test_a_broken_shard_is_named_and_the_others_are_loaded(cache_path: Path) -> None:
    broken = cache_path / "runs" / RUN.run_id / "batch-0"
    whole = (broken / "score.parquet").read_bytes()
    (broken / "score.parquet").write_bytes(whole[: len(whole) // 2])
    with Store.open(cache_path) as store:
        for _ in range(2):  # what has not changed is not read again, and told again
            store.load_new_shards([store.runs_path])
            (told,) = store.set_aside
            assert told.path.is_relative_to(broken)
            assert "delete that folder" in told.remedy
        assert list(store.table("latest", "image")["image_id"]) == ["c"]
        (broken / "score.parquet").write_bytes(whole)
        assert store.load_new_shards([store.runs_path]) == 1
        assert store.set_aside == ()
        assert list(store.table("latest", "image")["image_id"]) == ["a", "b", "c"]


def test_a_broken_run_is_named_and_the_others_are_loaded(cache_path: Path) -> None:
    other = shards.create_run(cache_path / "runs", replace(RUN, run_id="0" * 16))
    (other / shards.RUN_FILE).write_text("{")
    with Store.open(cache_path) as store:
        assert store.load_new_shards([store.runs_path]) == 2
        assert [error.path for error in store.set_aside] == [other / shards.RUN_FILE]
        assert store.summary("latest")["n_images"] == 3


def test_a_nan_is_refused_by_the_database_too(store: Store) -> None:
    with store._cursor() as cursor:
        for value in ("'nan'", "'inf'", "NULL"):
            row = f"SELECT * REPLACE ({value}::FLOAT AS score) FROM score LIMIT 1"  # noqa: S608
            with pytest.raises(duckdb.ConstraintException):
                cursor.execute(f"INSERT INTO score BY NAME {row}")


# ---- deleting

SHIPPED = "5" * 16


@pytest.fixture
def shipped_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that ships with the program and is itself a run."""
    runs_path = tmp_path_factory.mktemp("package")
    run_path = shards.create_run(runs_path, replace(RUN, run_id=SHIPPED))
    shards.write_shard(run_path, "batch-0", tables_of({"a": ["dog"]}))
    return run_path


def test_a_deleted_run_does_not_come_back_by_itself(store: Store, shipped_path: Path) -> None:
    folders = [store.runs_path, shipped_path]
    assert store.load_new_shards(folders) == 1
    for run_id in (RUN.run_id, SHIPPED):
        store.delete_run(run_id)
    assert list(store.runs_path.iterdir()) == []
    assert shipped_path.exists()
    assert store.load_new_shards(folders) == 0
    assert store.runs().empty
    with store._cursor() as cursor:
        for table in ("image", "caption", "concept", "score", "budget", "failure", "image_rank", "shard"):
            assert cursor.table(table).fetchall() == []


def test_restoring_or_scoring_again_brings_a_deleted_run_back(store: Store, shipped_path: Path) -> None:
    store.load_new_shards([shipped_path])
    store.delete_run(SHIPPED)
    store.restore(SHIPPED)
    assert store.load_new_shards([shipped_path]) == 1
    store.delete_run(SHIPPED)
    again = shards.create_run(store.runs_path, replace(RUN, run_id=SHIPPED))
    shards.write_shard(again, "batch-0", tables_of({"b": ["dog"]}))
    assert store.load_new_shards([store.runs_path, shipped_path]) == 1
    assert list(store.table(SHIPPED, "image")["image_id"]) == ["b"]


def test_of_a_run_found_twice_the_first_folder_counts(store: Store, shipped_path: Path) -> None:
    again = shards.create_run(store.runs_path, replace(RUN, run_id=SHIPPED))
    shards.write_shard(again, "other-name", tables_of({"a": ["dog"]}))
    assert store.load_new_shards([store.runs_path, shipped_path]) == 1
    assert store.summary(SHIPPED)["n_concepts"] == 1


# ---- opening


def in_another_process(code: str, *arguments: object) -> subprocess.Popen[str]:
    start = "import sys\nfrom pathlib import Path\nfrom mmn.store import Store\n"
    command = [sys.executable, "-c", start + code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, cwd=ROOT)


def test_a_locked_database_names_its_holder(tmp_path: Path) -> None:
    with in_another_process("s = Store.open(Path(sys.argv[1])); print('open', flush=True); input()", tmp_path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(CacheLockedError, match=rf"in use by process {other.pid} .*close the dashboard"):
            Store.open(tmp_path)
        other.communicate("\n")
    Store.open(tmp_path).close()


def test_a_database_of_a_newer_program_is_left_alone(cache_path: Path) -> None:
    with Store.open(cache_path) as store, store._cursor() as cursor:
        cursor.execute("INSERT INTO migration VALUES (99, now()::TIMESTAMP)")
    with pytest.raises(CacheNewerError, match=r"version 99.*update mmn"):
        Store.open(cache_path)


def test_a_database_of_a_newer_duckdb_is_left_alone(cache_path: Path) -> None:
    Store.open(cache_path).close()
    path = cache_path / database.DATABASE
    content = bytearray(path.read_bytes())
    content[12:20] = (5000).to_bytes(8, "little")  # the storage version
    path.write_bytes(content)
    with pytest.raises(duckdb.Error) as raw:
        duckdb.connect(str(path))
    checksum = re.search(r"computed checksum (\d+)", str(raw.value))
    assert checksum is not None, raw.value
    content[:8] = int(checksum[1]).to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(CacheNewerError, match=r"newer DuckDB.*5000"):
        Store.open(cache_path)


@pytest.mark.parametrize("damage", ["emptied", "replaced", "flipped", "halved"])
def test_a_damaged_database_is_rebuilt_from_the_runs(cache_path: Path, damage: str) -> None:
    with Store.open(cache_path) as store:
        store.load_new_shards([store.runs_path])
    path = cache_path / database.DATABASE
    content = path.read_bytes()
    flipped = bytes(255 - byte for byte in content[4096:12288])
    damaged = {
        "emptied": b"",
        "replaced": b"not a database" * 999,
        "flipped": content[:4096] + flipped + content[12288:],
        "halved": content[: len(content) // 2],
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(CacheError, match=r"damaged.*delete mmn\.duckdb.*runs/"), Store.open(cache_path) as store:
        store.table("latest", "score")
    path.unlink()
    with Store.open(cache_path) as store:
        assert store.load_new_shards([store.runs_path]) == 2


def test_a_cache_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="choose another --cache"):
        Store.open(tmp_path / "file" / "cache")
    (tmp_path / database.DATABASE).mkdir()
    with pytest.raises(CacheError, match="cannot be used"):
        Store.open(tmp_path)


def test_an_older_database_is_brought_up_to_date(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.close()
    add = "ALTER TABLE concept ADD COLUMN note VARCHAR"
    monkeypatch.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, lambda cursor: cursor.execute(add)])
    with Store.open(store.cache_path) as newer:
        concept = newer.table("latest", "concept")
        assert len(concept) == 6
        assert concept["note"].isna().all()
        run_path = newer.runs_path / RUN.run_id
        shards.write_shard(run_path, "batch-2", tables_of({"d": ["dog"]}))
        assert newer.load_new_shards([newer.runs_path]) == 1  # a shard of the old program


def test_a_study_that_was_added_finds_its_table_in_an_older_database(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.close()
    monkeypatch.setitem(migrations.PUBLIC_TABLES, "toy", "run_id VARCHAR NOT NULL, value DOUBLE")
    with Store.open(store.cache_path) as newer:
        assert newer.has_rows("latest", "concept")
        assert not newer.has_rows("latest", "toy")
        assert list(newer.table("latest", "toy").columns) == ["run_id", "value"]


def test_a_cache_from_before_cut_captions_and_compounds_loads_and_tells_nothing_of_them(store: Store) -> None:
    with store._cursor() as cursor:
        new = [("caption", "is_cut"), ("concept", "is_compound"), ("concept", "is_modifier")]
        for table, column in [*new, ("projected_away", "revision"), ("projected_away", "version")]:
            cursor.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        for table in ("outline", "added_source", "reference", "class_activation"):
            cursor.execute(f"DROP TABLE {table}")
        cursor.execute("DELETE FROM migration WHERE version >= 5")
    store.close()
    run_path = store.runs_path / RUN.run_id
    shards.write_shard(run_path, "batch-2", tables_of({"d": ["dog"]}))
    unbind(run_path)
    for name in ("caption", "concept"):
        path = run_path / "batch-2" / f"{name}.parquet"
        rows = pq.read_table(path)
        pq.write_table(rows.drop_columns([one for one in rows.column_names if one in NEW_COLUMNS]), path)
    with Store.open(store.cache_path) as newer:
        assert newer.load_new_shards([newer.runs_path]) == 1
        assert newer.table("latest", "caption")["is_cut"].isna().all()
        concepts = newer.table("latest", "concept")
        assert len(concepts) == 7
        assert concepts[["is_compound", "is_modifier"]].isna().all(axis=None)
        assert {"revision", "version"} <= set(newer.table("latest", "projected_away").columns)


OF_ROWS = {
    "mean_logit": 0.5,
    "cosine_tokens": ["b"] * 10,
    "cosines": [0.25] * 10,
    "is_cosine_interpretable": True,
}


def decoded(unit: int, **more: Any) -> pa.Table:
    row = {"model_fingerprint": RUN.model.fingerprint, "layer": 0, "unit": unit}
    raw = {"tokens": ["a"] * 10, "logits": [1.0] * 10, "is_interpretable": False}
    return pa.Table.from_pylist([row | raw | more], schema=TABLES["neuron"])


def test_a_cache_from_before_other_rows_loads_and_tells_words_by_them_once_units_are_decoded_again(
    store: Store,
) -> None:
    """The old shard lacks the columns; a later one that tells them fills them in, and nothing else is changed."""
    with store._cursor() as cursor:
        for column in OF_ROWS:
            cursor.execute(f"ALTER TABLE neuron DROP COLUMN {column}")
        cursor.execute("DELETE FROM migration WHERE version >= 7")
    store.close()
    run_path = store.runs_path / RUN.run_id
    shards.write_shard(run_path, "neurons", {"neuron": pa.concat_tables([decoded(0), decoded(1)])})
    unbind(run_path)
    path = run_path / "neurons" / "neuron.parquet"
    pq.write_table(pq.read_table(path).drop_columns(list(OF_ROWS)), path)
    with Store.open(store.cache_path) as newer:
        assert newer.load_new_shards([newer.runs_path]) == 1
        assert newer.table("latest", "neuron")[list(OF_ROWS)].isna().all(axis=None)
        shards.write_shard(run_path, "neurons-2", {"neuron": decoded(0, **OF_ROWS, is_interpretable=True)})
        assert newer.load_new_shards([newer.runs_path]) == 1
        first, second = newer.table("latest", "neuron").to_dict("records")
    assert (list(first["cosine_tokens"]), first["mean_logit"]) == (["b"] * 10, 0.5)
    assert first["is_cosine_interpretable"]
    assert not first["is_interpretable"], "the first telling counts"
    assert second["cosine_tokens"] is None


def test_a_failed_migration_leaves_the_database_as_it_was(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.close()

    def fail(cursor: duckdb.DuckDBPyConnection) -> None:
        cursor.execute("ALTER TABLE concept ADD COLUMN note VARCHAR")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, fail])
        with pytest.raises(KeyboardInterrupt):
            Store.open(store.cache_path)
    with Store.open(store.cache_path) as again:
        assert "note" not in again.table("latest", "concept").columns
        assert again.summary("latest")["n_scores"] == 48


_LOADER = """
import mmn.store.store as module
store = Store.open(Path(sys.argv[1]))
def stop(done, total):
    print(done, flush=True)
load = module.loading._insert
module.loading.ROWS_AT_ONCE = 1  # a transaction for each shard
def load_half(own, run, name, tables):
    if name == sys.argv[2]:
        execute = own.execute
        class Half:
            def __getattr__(self, name): return getattr(own, name)
            def execute(self, sql, *values):
                result = execute(sql, *values)
                if "INSERT INTO score" in sql:
                    print("half", flush=True)
                    input()
                return result
        return load(Half(), run, name, tables)
    return load(own, run, name, tables)
module.loading._insert = load_half
store.load_new_shards([store.runs_path])
"""


def test_a_loader_killed_inside_a_shard_leaves_whole_shards(cache_path: Path) -> None:
    with in_another_process(_LOADER, cache_path, "batch-1") as loader:
        assert loader.stdout is not None
        assert loader.stdout.readline() == "half\n"
        loader.kill()
    with Store.open(cache_path) as store:
        assert list(store.table("latest", "image")["image_id"]) == ["a", "b"]
        assert store.summary("latest")["n_scores"] == 3 * 2 * 4
        assert store.load_new_shards([store.runs_path]) == 1
        assert store.summary("latest")["n_scores"] == 6 * 2 * 4


def test_threads_read_at_once_without_mixing_answers(store: Store) -> None:
    def ask(k: int) -> tuple[int, int]:
        rows = store.ask(LayerQueries).distribution("latest", [CONTRIBUTION], [k])
        return k, int(rows["n_units"].sum())

    expected = dict(map(ask, (1, 2, 3, 4)))
    with ThreadPoolExecutor(16) as pool:
        assert all(expected[k] == n for k, n in pool.map(ask, [1, 2, 3, 4] * 12))


# ---- layers


def test_a_hand_checked_layer_distribution(tmp_path: Path) -> None:
    """Two pictures, top 2: by the image L0.u0 and L1.u0 (a), L0.u0 and L2.u7 (b); the random method is not asked."""
    scores = {
        ("a", "dog"): {(0, 0): 5.0, (0, 1): 4.0},
        ("a", "cat"): {(1, 0): 4.5, (0, 1): 1.0},
        ("b", "dog"): {(0, 0): 3.0, (2, 7): 2.0},
    }
    write_cache(tmp_path, {key: dense(units) for key, units in scores.items()}, top_k=2)
    with Store.open(tmp_path) as store:
        store.load_new_shards([store.runs_path])
        rows = store.ask(LayerQueries).distribution("latest", [CONTRIBUTION], [2, 1])
        assert list(rows.columns) == ["method", "k", "layer", "n_units", "share", "mean_units", "n_images"]
        assert rows["n_units"].tolist() == [1, 1, 1, 1, 0, 0]
        assert rows["share"].tolist() == [1 / 3, 1 / 3, 1 / 3, 1.0, 0.0, 0.0]
        assert rows["mean_units"].tolist() == [1.0, 0.5, 0.5, 1.0, 0.0, 0.0], "of a's top 2 and of b's, per layer"
        assert rows["n_images"].tolist() == [2] * 6
        assert rows["k"].tolist() == [2, 2, 2, 1, 1, 1]
        dog = store.ask(LayerQueries).distribution("latest", [CONTRIBUTION], [2], ["dog"], layers=(0, 1))
        assert dog["n_units"].tolist() == [2, 0]
        assert dog["share"].tolist() == [2 / 3, 0.0]
        assert dog["mean_units"].tolist() == [1.5, 0.0], "a: two of layer 0; b: one of layer 0, one of layer 2"
        both = store.ask(LayerQueries).distribution("latest", [CONTRIBUTION], [2], ["dog", "cat"])
        assert both["mean_units"].tolist() == [1.25, 0.25, 0.5], "a counts once: the mean of its two nouns"
        assert both["n_images"].tolist() == [2] * 3
        units = store.ask(LayerQueries).unit_rows("latest", CONTRIBUTION, 2)
        assert units.iloc[0].to_dict() == {
            "layer": 0, "unit": 0, "n_images": 2, "n_concepts": 1, "mean_score": 4.0, "max_score": 5.0, "best_rank": 1,
        }  # fmt: skip
        assert units[["layer", "unit"]].to_numpy().tolist() == [[0, 0], [1, 0], [2, 7]]
        cat = store.ask(LayerQueries).unit_rows("latest", CONTRIBUTION, 2, layer=0, lemmas=["cat"])
        assert cat[["layer", "unit", "best_rank"]].to_numpy().tolist() == [[0, 1, 2]]
        per_image = store.ask(LayerQueries).counts_per_image("latest", CONTRIBUTION, 2)
        assert per_image.to_numpy().tolist() == [["a", 0, 1], ["a", 1, 1], ["b", 0, 1], ["b", 2, 1]]


def dense(units: dict[tuple[int, int], float]) -> np.ndarray:
    scores = np.full(MODEL.n_units, -1.0)
    for (layer, unit), score in units.items():
        scores[layer * MODEL.d_mlp + unit] = score
    return scores


def write_cache(
    cache_path: Path,
    scores: dict[tuple[str, str], np.ndarray],
    top_k: int,
    target: str = "",
    bottom_k: int = 0,
    settings: ScoreSettings | None = None,
) -> None:
    """A run of one shard with these scores per (picture, noun); the noun `target` is a word that nobody said."""
    usual = replace(RUN.settings, methods=(CONTRIBUTION,), top_k=top_k, bottom_k=bottom_k)
    run = replace(RUN, settings=settings or usual)
    (method,) = run.settings.methods
    concept = [concept_row(i, noun, target_at="dog" if noun == target else None) for i, noun in scores]
    score = [row for (i, noun), values in scores.items() for row in score_rows(i, noun, method, values, top_k)]
    image = [image_row(i) for i in sorted({i for i, _ in scores})]
    rows = {"image": image, "concept": concept, "score": score}
    tables = {name: pa.Table.from_pylist(rows[name], schema=SCHEMAS[name]) for name in rows}
    shards.write_shard(shards.create_run(cache_path / "runs", run), "batch", tables)


def brute_force(scores: dict[tuple[str, str], np.ndarray], k: int, lemmas: list[str], target: str) -> list[int]:
    """Distinct units per layer, from the whole score vectors: sort, cut, unite."""
    found: set[int] = set()
    said = {key: values for key, values in scores.items() if key[1] != target}
    if lemmas:
        rankings = [values for (_, noun), values in said.items() if noun.removesuffix("s") in lemmas]
    else:
        images = {image for image, _ in said}
        rankings = [np.max([v for (i, _), v in said.items() if i == image], axis=0) for image in images]
    for values in rankings:
        found.update(sorted(range(MODEL.n_units), key=lambda flat: (-values[flat], flat))[:k])
    return [sum(flat // MODEL.d_mlp == layer for flat in found) for layer in range(MODEL.n_layers)]


few_values = st.lists(st.integers(-3, 3), min_size=MODEL.n_units, max_size=MODEL.n_units)
pictures = st.dictionaries(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["dog", "dogs", "cats", "tree"])),
    few_values.map(lambda values: np.array(values, dtype=np.float64) / 4),
    min_size=1,
    max_size=7,
)


@settings(max_examples=20, deadline=None)
@given(pictures, st.integers(1, MODEL.n_units), st.data())
def test_layer_distribution_equals_brute_force(
    scores: dict[tuple[str, str], np.ndarray], top_k: int, data: st.DataObject
) -> None:
    target = data.draw(st.sampled_from(["", "tree"]), "chosen word")
    said = sorted({noun.removesuffix("s") for _, noun in scores if noun != target})
    k = data.draw(st.integers(1, top_k), "k")
    lemmas = data.draw(st.lists(st.sampled_from(said), unique=True) if said else st.just([]), "lemmas")
    with tempfile.TemporaryDirectory() as folder:
        write_cache(Path(folder), scores, top_k, target)
        with Store.open(Path(folder)) as store:
            store.load_new_shards([store.runs_path])
            if not said:
                with pytest.raises(UsageError, match="has no 'contribution' scores"):
                    store.ask(LayerQueries).distribution("latest", [CONTRIBUTION], [k])
                return
            rows = store.ask(LayerQueries).distribution("latest", [CONTRIBUTION], [k], lemmas)
            expected = brute_force(scores, k, lemmas, target)
            assert rows["n_units"].tolist() == expected
            assert rows["share"].tolist() == pytest.approx([n / sum(expected) for n in expected])
            units = store.ask(LayerQueries).unit_rows("latest", CONTRIBUTION, k, lemmas=lemmas)
            assert units.groupby("layer").size().reindex(range(MODEL.n_layers), fill_value=0).tolist() == expected


def test_layers_whose_effects_were_not_measured_have_no_count(tmp_path: Path) -> None:
    """Not 0: nobody looked. The run keeps which were, and the caption of a figure says so."""
    effects_alone = replace(RUN.settings, methods=(EFFECT,), top_k=2, effect_layers=(1, 2))
    write_cache(tmp_path, {("a", "dog"): dense({(1, 0): 1.0, (2, 3): 2.0})}, 2, settings=effects_alone)
    with Store.open(tmp_path) as store:
        store.load_new_shards([store.runs_path])
        rows = store.ask(LayerQueries).distribution("latest", [EFFECT], [2])
        drawn = draw(FIGURES["layers"], store, View("latest", ks=(2,)))
    assert rows["n_units"].isna().tolist() == [True, False, False]
    assert rows["mean_units"].tolist()[1:] == [1, 1]
    assert "effect of layers 1–2 alone" in drawn.chart.to_dict()["title"]["subtitle"][0]
    assert "measured, of layers 1–2, read at" in caption(drawn)


def test_suppressors_are_not_counted(tmp_path: Path) -> None:
    write_cache(tmp_path, {("a", "dog"): dense({(0, 0): 1.0})}, top_k=2, bottom_k=1)
    shard_path = tmp_path / "runs" / RUN.run_id / "batch"
    tables = shards.read_shard(shard_path)
    shutil.rmtree(shard_path)
    row = {**tables["score"].to_pylist()[0], "rank": -1, "layer": 2, "unit": 5, "score": -9.0}
    tables["score"] = pa.concat_tables([tables["score"], pa.Table.from_pylist([row], schema=SCHEMAS["score"])])
    shards.write_shard(shard_path.parent, "batch", tables)
    with Store.open(tmp_path) as store:
        store.load_new_shards([store.runs_path])
        for lemmas in ([], ["dog"]):
            rows = store.ask(LayerQueries).distribution("latest", [CONTRIBUTION], [2], lemmas)
            assert rows["n_units"].tolist() == [2, 0, 0]


def test_what_is_not_stored_cannot_be_asked(store: Store) -> None:
    wrong: dict[str, dict[str, Any]] = {
        r"k = 5 is not in 1 … 4": {"ks": [5]},
        r"k = 0 is not": {"ks": [0]},
        r"at least one": {"ks": []},
        r"layers 0 … 3": {"layers": (0, 3)},
        r"layers 2 … 1": {"layers": (2, 1)},
        r"no 'activation' scores.*contribution, random": {"methods": [CONTRIBUTION, "activation"]},
        r"nouns \['zebra'\]": {"lemmas": ["zebra"]},
        r"variant 'blank'": {"variant": "blank"},
    }
    ask = partial(store.ask(LayerQueries).distribution, run_id="latest", methods=[CONTRIBUTION], ks=[2])
    for message, arguments in wrong.items():
        with pytest.raises(UsageError, match=message):
            ask(**arguments)
    with pytest.raises(UsageError, match="no 'activation' scores"):
        store.ask(LayerQueries).unit_rows("latest", "activation", 2)
    with pytest.raises(UsageError, match="no 'activation' scores"):
        store.ask(LayerQueries).counts_per_image("latest", "activation", 2)


# ---- schema


def documented() -> dict[str, dict[str, str]]:
    """The tables of docs/schema.md: name → column → type."""
    text = (ROOT / "docs" / "schema.md").read_text(encoding="utf-8")
    tables = {}
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        name = re.match(r"`(\w+)`", section)
        assert name is not None, section[:40]
        tables[name[1]] = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", section, flags=re.MULTILINE))
    return tables


def in_database(store: Store) -> dict[str, dict[str, str]]:
    with store._cursor() as cursor:
        rows = cursor.execute(
            "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() "
            "WHERE NOT internal AND schema_name = 'main' ORDER BY table_name, column_index"
        ).fetchall()
    tables: dict[str, dict[str, str]] = {}
    for table, column, dtype, is_nullable in rows:
        tables.setdefault(table, {})[column] = dtype + (" NULL" if is_nullable else "")
    return tables


def test_the_documentation_names_every_column_and_its_type(store: Store) -> None:
    found, told = in_database(store), documented()
    assert set(found) == set(told)
    for table, columns in found.items():
        assert list(told[table].items()) == list(columns.items()), table


def test_shards_have_the_columns_of_the_database(store: Store) -> None:
    arrow = {"VARCHAR": "string", "VARCHAR[]": "list<element: string>", "INTEGER[]": "list<element: int32>"}
    arrow |= {"INTEGER": "int32", "SMALLINT": "int16", "FLOAT": "float", "DOUBLE": "double", "BOOLEAN": "bool"}
    for table, columns in in_database(store).items():
        if table in SCHEMAS:
            expected = [(name, dtype) for name, dtype in columns.items() if name != "run_id"]
            fields = {f.name: f for f in SCHEMAS[table]}
            assert list(fields) == [name for name, _ in expected]
            for name, dtype in expected:
                own_type = re.sub(r"list<\w+:", "list<element:", str(fields[name].type))
                assert own_type == arrow[dtype.removesuffix(" NULL")], (table, name)
                assert fields[name].nullable == dtype.endswith(" NULL"), (table, name)


def test_json_columns_are_json(store: Store) -> None:
    row = store.runs().iloc[0]
    assert json.loads(row["settings"])["top_k"] == 4

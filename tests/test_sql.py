"""A stranger's SQL reads the tables of a run and nothing else, and ends in time."""

import threading
from pathlib import Path

import pytest

from mmn.store import Store, sql
from mmn.store.sql import SqlError, SqlQueries
from tests.pages.filled import fill, fill_whole


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("cache")
    fill_whole(path)
    fill(path, n_images=3, top_k=5)
    with Store.open(path) as opened:
        opened.load_new_shards([opened.runs_path])
        yield opened


def answer(store: Store, text: str, run_id: str = "5e6f", **more):
    asking = store.ask(SqlQueries).begin(text, run_id, **more)
    assert asking.wait(30), "it ends by itself"
    if asking.error:
        raise asking.error
    return asking.answer


def test_tables_hold_the_rows_of_the_run_or_of_all(store):
    of_run = answer(store, "SELECT DISTINCT run_id FROM image").rows
    assert of_run["run_id"].tolist() == ["5e6f000000000000"]
    assert len(answer(store, "SELECT DISTINCT run_id FROM Image;", run_id="").rows) == 2
    assert answer(store, "WITH X AS (SELECT unit FROM score) SELECT count(*) AS n FROM x").rows["n"][0] > 100
    assert answer(store, "SELECT count(*) AS n FROM neuron", "3f2a").rows["n"][0] == 0, "of another model"


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO run SELECT * FROM run",
        "WITH gone AS (DELETE FROM run RETURNING *) SELECT * FROM gone",
        "WITH made AS (INSERT INTO deleted_run VALUES ('x', now()) RETURNING *) SELECT * FROM made",
        "SELECT 1; DROP TABLE run",
        "COPY run TO '/tmp/run.csv'",
        "ATTACH '/tmp/other.duckdb'",
        "SET enable_external_access = true",
        "PRAGMA database_list",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT noun FROM concept WHERE noun = (SELECT content FROM read_text('/etc/hostname'))",
        "SELECT * FROM '/etc/hostname'",
        "SELECT * FROM query('SELECT 1')",
        "SELECT * FROM duckdb_databases()",
        "SELECT * FROM duckdb_settings",
        "SELECT * FROM (WITH duckdb_databases AS (SELECT 1) SELECT 1), duckdb_databases",
        "WITH shard AS (SELECT 1) SELECT * FROM shard",
        "SELECT * FROM mmn.main.image",
        "SELECT * FROM main.image",
        "SELECT * FROM information_schema.tables",
        "SELECT current_setting('temp_directory')",
        "SELECT count(*) FILTER (current_setting('temp_directory') = '') OVER () FROM run",
        "DESCRIBE run",
        "SELECT * FROM deleted_run",
        "",
        "SELEC 1",
        "SELECT nope FROM run",
    ],
)
def test_anything_but_one_select_of_the_tables_is_refused(text, store):
    with pytest.raises(SqlError) as found:
        answer(store, text)
    assert "\n" not in str(found.value)
    assert store.runs()["run_id"].nunique() == 2


def test_the_engine_itself_refuses_what_the_check_would_let_through(store, monkeypatch):
    """No single layer is trusted: a statement that writes or reads a file fails without the look at its parts, too."""
    monkeypatch.setattr(sql, "check", lambda _cursor, _text: set())
    for text in (
        "WITH made AS (INSERT INTO deleted_run VALUES ('x', now()) RETURNING *) SELECT * FROM made",
        "SELECT * FROM read_text('/etc/hostname')",
        "DELETE FROM run",
        "SET lock_configuration = false",
    ):
        with pytest.raises(SqlError):
            answer(store, text)
    assert store.runs()["run_id"].nunique() == 2


def test_rows_shown_are_limited_and_keep_their_order(store):
    found = answer(store, "SELECT i FROM range(5000) AS t(i) ORDER BY i DESC")
    assert (len(found.rows), found.has_more, found.rows["i"][0]) == (sql.MOST_ROWS, True, 4999)
    assert not answer(store, "SELECT * FROM run").has_more


def test_a_long_question_ends_at_the_limit_or_when_it_is_cancelled(store, monkeypatch):
    endless = "SELECT count(*) FROM range(100000000) AS a, range(100000000) AS b"
    monkeypatch.setattr(sql, "MOST_SECONDS", 0.3)
    with pytest.raises(SqlError, match="longer than"):
        answer(store, endless)
    monkeypatch.setattr(sql, "MOST_SECONDS", 20.0)
    asking = store.ask(SqlQueries).begin(endless)
    threading.Timer(0.2, asking.cancel).start()
    assert asking.wait(5)
    assert "cancelled" in str(asking.error)


def test_a_question_that_takes_too_much_memory_ends(store, monkeypatch):
    monkeypatch.setattr(sql, "MOST_BYTES", 20_000_000)
    with pytest.raises(SqlError, match="memory"):
        answer(store, "SELECT list(a.i + b.i) FROM range(30000) AS a(i), range(10000) AS b(i)")


def test_a_server_shows_no_folder_of_its_machine(store):
    folder = str(Path(store.cache_path))
    with_folders = answer(store, "SELECT source, sources FROM image").rows.to_string()
    assert folder in with_folders
    without = answer(store, "SELECT i.*, r.* FROM image AS i, run AS r", without_folders=True).rows
    assert folder not in without.to_string()
    assert without["source"][0].endswith(".png")
    failed = answer(store, "SELECT source FROM failure", "3f2a", without_folders=True).rows
    assert failed["source"].tolist() == ["broken-0.jpg"]


def test_columns_are_those_of_the_tables(store):
    columns = store.ask(SqlQueries).columns()
    assert ("lemma", "VARCHAR") in columns["concept"]
    assert "deleted_run" not in columns

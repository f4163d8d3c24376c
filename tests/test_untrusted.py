"""A stranger's cache harms nothing: what is broken is set aside by name, and everything else is loaded."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.uploads import save_uploads
from benchmarks import attacks
from mmn.cli import main
from mmn.errors import BrokenFileError, CacheError, UsageError
from mmn.names import ORIGINAL
from mmn.runs import jobs, shards
from mmn.runs.manifests import _sealed, digest, read_run_file
from mmn.safety.inside import inside, is_name, last_part
from mmn.store import Store
from mmn.studies.tables import KEYS, SCHEMAS, TABLES
from tests.test_shards import DONE, RUN, changed, tables_of

ROOT = Path(__file__).parents[1]
OTHER = replace(RUN, run_id="f" * 16)


@pytest.fixture
def cache_path(tmp_path: Path) -> Path:
    """A cache of two runs of two shards each; `RUN` is to be spoilt, `OTHER` must always be loaded whole."""
    for run, seed in ((RUN, 0), (OTHER, 7)):
        run_path = shards.create_run(tmp_path / "runs", run)
        shards.write_shard(run_path, "batch-0", tables_of({"a": ["dog", "cats"]}, seed))
        shards.write_shard(run_path, "batch-1", tables_of({"b": ["dog"]}, seed + 1))
        shards.finish_run(run_path, DONE)
    return tmp_path


def age(run_path: Path) -> None:
    """Makes a run one from before there were digests."""
    values = json.loads((run_path / "run.json").read_text())
    values.pop("digest")
    (run_path / "run.json").write_text(json.dumps(values))
    for manifest in run_path.glob("*/manifest.json"):
        manifest.unlink()


def rewrite(run_path: Path, shard: str, table: str, change: Callable[[pa.Table], pa.Table]) -> None:
    path = run_path / shard / f"{table}.parquet"
    pq.write_table(change(pq.ParquetFile(path).read().cast(SCHEMAS[table])), path)


def look(cache_path: Path) -> tuple[dict[str, int], list[str]]:
    """How many scores of each run are loaded, and what was set aside."""
    with Store.open(cache_path) as store:
        store.load_new_shards([store.runs_path])
        counts = dict(zip(store.runs()["run_id"], store.runs()["n_scores"], strict=True))
        return counts, [str(one) for one in store.set_aside]


WHOLE = 3 * 2 * 4


def test_a_few_dozen_attacks_harm_nothing(tmp_path: Path) -> None:
    tally = attacks.attack(tmp_path, seed=1, most=30)
    assert tally.tried == 30
    assert tally.refused > 15
    assert (tally.harmed, tally.raw) == (0, 0)


@pytest.mark.parametrize(
    ("table", "column", "value", "reason"),
    [
        ("score", "score", float("nan"), "score.score: 1 of 16 values are NaN or infinite"),
        ("score", "layer", 30_000, "score.layer is from 0 to 30000, which is not in 0 … 2"),
        ("score", "layer", -1, "score.layer is from -1 to"),
        ("score", "unit", 8, "score.unit is from 0 to 8, which is not in 0 … 7"),
        ("score", "rank", 0, "ranks count from 1"),
        ("score", "rank", 5, "score.rank is from 1 to 5, which is not in 0 … 4"),
        ("score", "rank", 2, "16 score rows but 15 distinct"),
        ("score", "noun", "zebra", "score rows without a concept"),
        ("score", "method", "activation", "not among methods of the run"),
        ("concept", "prob", 7.0, "concept.prob is from 0.25 to 7.0"),
        ("concept", "position", None, "concept.position: 1 nulls"),
        ("image", "width", -32, "image.width is from -32"),
        ("caption", "image_id", "of nobody", "1 picture that no loaded shard of the run holds"),
    ],
)
def test_a_value_that_no_run_can_hold_is_set_aside_and_the_rest_is_loaded(
    cache_path: Path, table: str, column: str, value: object, reason: str
) -> None:
    run_path = cache_path / "runs" / RUN.run_id
    age(run_path)
    loose = pa.field(column, SCHEMAS[table].field(column).type)
    rewrite(run_path, "batch-0", table, lambda rows: _loosely(changed(rows, column, [value]), loose))
    counts, told = look(cache_path)
    assert counts == {RUN.run_id: 8, OTHER.run_id: WHOLE}
    (one,) = told
    assert reason in one
    assert f"{run_path / 'batch-0'}:" in one
    assert "that folder" in one


def _loosely(rows: pa.Table, field: pa.Field) -> pa.Table:
    """A column that may be empty where the schema says it may not."""
    return pa.table({name: rows[name].combine_chunks() for name in rows.column_names}).cast(
        pa.schema([field if one.name == field.name else one.with_nullable(True) for one in rows.schema])
    )


def test_older_shards_without_digests_are_loaded_and_may_lack_columns_that_may_be_empty(cache_path: Path) -> None:
    run_path = cache_path / "runs" / RUN.run_id
    age(run_path)
    rewrite(run_path, "batch-0", "concept", lambda rows: rows.drop_columns(["target_at", "is_in_reference"]))
    rewrite(run_path, "batch-1", "concept", lambda rows: rows.append_column("newer", pa.nulls(len(rows), pa.int8())))
    assert look(cache_path) == ({RUN.run_id: WHOLE, OTHER.run_id: WHOLE}, [])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: rewrite(path, "batch-0", "score", lambda rows: changed(rows, "score", [0.25])), "its sha-256"),
        (lambda path: (path / "batch-0" / "manifest.json").unlink(), "its manifest.json is missing"),
        (lambda path: (path / "batch-0" / "budget.parquet").unlink(), "budget.parquet is missing"),
        (lambda path: shutil.move(path / "batch-0", path / "batch-00"), "a copy of the shard 'batch-0'"),
        (lambda path: shutil.copytree(path / "batch-0", path / "batch-2"), "a copy of the shard 'batch-0'"),
        (
            lambda path: shutil.copytree(path.parent / OTHER.run_id / "batch-0", path / "more"),
            "a shard of the run 'fff",
        ),
    ],
)
def test_a_shard_is_bound_to_its_run_name_and_content(
    cache_path: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    spoil(cache_path / "runs" / RUN.run_id)
    counts, (told,) = look(cache_path)
    assert reason in told
    assert counts[OTHER.run_id] == WHOLE
    assert counts[RUN.run_id] in (8, WHOLE)


def test_copies_of_older_shards_are_found_by_what_they_tell(cache_path: Path) -> None:
    run_path = cache_path / "runs" / RUN.run_id
    shards.write_shard(run_path, "listing", {"failure": tables_of({})["failure"]})
    age(run_path)
    for name in ("batch-0", "listing"):
        shutil.copytree(run_path / name, run_path / f"{name}-again")
    rewrite(run_path, "batch-0-again", "score", lambda rows: rows.slice(0, 4))  # no exact copy
    counts, told = look(cache_path)
    assert counts[RUN.run_id] == WHOLE
    assert [one.partition("; ")[0].partition(": ")[2] for one in told] == [
        "it tells again of 1 caption that another shard tells of",
        "it is a copy of the shard 'listing'",
    ]
    with Store.open(cache_path) as store:
        assert len(store.table(RUN.run_id, "failure")) == 3


def test_two_shards_of_one_answer_are_no_fault(cache_path: Path) -> None:
    """Two questions may fail on the same picture in the same way."""
    run_path = cache_path / "runs" / RUN.run_id
    for name in ("degrade-a", "degrade-b"):
        shards.write_shard(run_path, name, {"failure": tables_of({})["failure"]})
    _, told = look(cache_path)
    assert told == []


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("run.json", {"created_at": "2026-13-45T99"}, "created_at '2026-13-45T99' is not an ISO 8601 time"),
        ("run.json", {"created_at": "2026-11-21T10:00:00"}, "not a time with a zone"),
        ("run.json", {"settings": asdict(RUN.settings) | {"top_k": None}}, "top_k is 'None' and not of type int"),
        ("run.json", {"settings": asdict(RUN.settings) | {"top_k": True}}, "top_k is 'True'"),
        ("run.json", {"model": asdict(RUN.model) | {"n_layers": 2_000_000_000}}, "which is not in 1 … 1,000"),
        ("run.json", {"model": asdict(RUN.model) | {"d_mlp": 10**400}}, "which is not in 1 …"),
        ("run.json", {"settings": asdict(RUN.settings) | {"methods": ["none"]}}, "'none' is no method"),
        ("run.json", {"run_id": "../../elsewhere"}, "'../../elsewhere' is not 16 hexadecimal digits"),
        ("run.json", {"run_id": "e" * 16}, "it holds the run eeee"),
        ("run.json", {"more": 1}, "does not know"),
        ("outcome.json", {"seconds": float("nan")}, "NaN is no number of JSON"),
        ("outcome.json", {"status": "running"}, "'running' is no end of a run"),
        ("outcome.json", {"finished_at": "\ud800"}, "surrogates not allowed"),
    ],
)
def test_a_manifest_that_no_run_can_have_is_set_aside(
    cache_path: Path, file: str, change: dict[str, object], reason: str
) -> None:
    path = cache_path / "runs" / RUN.run_id / file
    values = json.loads(path.read_text()) | change
    values.pop("digest")
    path.write_text(json.dumps(values))
    counts, told = look(cache_path)
    assert any(reason in one for one in told), told
    assert counts == {OTHER.run_id: WHOLE} | ({RUN.run_id: WHOLE} if file == "outcome.json" else {})


def test_a_changed_run_file_is_found_by_its_digest(cache_path: Path) -> None:
    path = cache_path / "runs" / RUN.run_id / "run.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    _, (told,) = look(cache_path)
    assert "its digest is not that of what it says" in told


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a": ' * 100_000, '{"a": 1, "a": 2}', '"x"', '{"x": "' + "y" * 2_000_000]
)
def test_json_that_is_deep_doubled_or_endless_is_refused(cache_path: Path, text: str) -> None:
    (cache_path / "runs" / RUN.run_id / "run.json").write_text(text)
    counts, told = look(cache_path)
    assert counts == {OTHER.run_id: WHOLE}
    assert len(told) == 1


@pytest.mark.parametrize("place", ["run.json", "outcome.json", "batch-0/manifest.json", "batch-0/score.parquet"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "endless"])
@pytest.mark.timeout(20)
def test_what_is_no_regular_file_is_refused_and_never_waited_for(cache_path: Path, place: str, kind: str) -> None:
    path = cache_path / "runs" / RUN.run_id / place
    data = path.read_bytes()
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        (cache_path / "elsewhere").write_bytes(data)
        path.symlink_to(cache_path / "elsewhere")
    else:
        path.touch()
        os.truncate(path, 5_000_000_000)
    counts, told = look(cache_path)
    assert counts[OTHER.run_id] == WHOLE
    assert any(path.name in one for one in told), told


def test_a_run_that_is_a_link_is_set_aside_and_what_it_leads_to_left_alone(cache_path: Path) -> None:
    run_path, outside = cache_path / "runs" / RUN.run_id, cache_path / "outside"
    run_path.rename(outside)
    run_path.symlink_to(outside)
    counts, (told,) = look(cache_path)
    assert counts == {OTHER.run_id: WHOLE}
    assert "it is a link" in told
    with pytest.raises(CacheError, match="is a link"):
        shards.create_run(cache_path / "runs", RUN)
    assert (outside / "run.json").exists()


def test_deleting_a_run_with_a_traversing_id_deletes_nothing(cache_path: Path) -> None:
    """Such an id can only come from a stranger's database: none is loaded from a file."""
    outside = shards.create_run(cache_path / "elsewhere", RUN)
    with Store.open(cache_path) as store:
        store.load_new_shards([store.runs_path])
        with store._cursor() as cursor:
            for table in ("run", "shard"):
                cursor.execute(f"UPDATE {table} SET run_id = '../elsewhere/{RUN.run_id}' WHERE run_id = '{RUN.run_id}'")  # noqa: S608
        with pytest.raises(CacheError, match="no name of a file"):
            store.delete_run(f"../elsewhere/{RUN.run_id}")
        with pytest.raises(UsageError, match="not the id of an edit"):
            store.delete_edit(OTHER.run_id, "../../runs")
    assert (outside / "run.json").exists()


def test_deleting_a_run_keeps_an_edit_that_another_run_names(cache_path: Path) -> None:
    row: dict[str, Any] = dict.fromkeys(TABLES["edit"].names, "x") | {
        "edit_id": "e1",
        "units": "[[0, 1]]",
        "settings": "{}",
    }
    row |= {"created_at": 0, "relative_norm": 0.5} | dict.fromkeys(
        ("efficacy", "generalisation", "locality", "fluency", "fluency_before")
    )
    for run in (RUN, OTHER):
        edit = pa.Table.from_pylist([row], schema=TABLES["edit"])
        shards.write_shard(cache_path / "runs" / run.run_id, "edit-e1", {"edit": edit})
    with Store.open(cache_path) as store:
        store.load_new_shards([store.runs_path])
        store.edit_path("e1").parent.mkdir()
        store.edit_path("e1").touch()
        store.delete_run(RUN.run_id)
        assert store.edit_path("e1").exists()
        store.delete_run(OTHER.run_id)
        assert not store.edit_path("e1").exists()


def test_names_never_leave_their_folder(tmp_path: Path) -> None:
    for name in ("", ".", "..", "../x", "/x", "a/b", ".hidden", "a\0b", "ü", "x" * 300, "-rf", "a\nb"):
        assert not is_name(name)
        with pytest.raises(CacheError, match="no name of a file"):
            inside(tmp_path, name)
    assert inside(tmp_path, "batch-00000") == tmp_path / "batch-00000"
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(CacheError, match="is a link"):
        inside(tmp_path, "link")


def test_uploaded_names_stay_in_their_folder(tmp_path: Path) -> None:
    hostile = ("../../x.png", "..", "a\0b.png", "\\..\\y.png", "é" * 300 + ".png", "/etc/passwd", "\ud800.png")
    folder = save_uploads(dict.fromkeys(hostile[:-1], b"x"), tmp_path / "uploads")
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == len(hostile) - 1
    assert all(path.parent == folder for path in folder.iterdir())
    assert last_part(hostile[-1]) == "_.png"
    assert {path.name for path in tmp_path.iterdir()} == {"uploads"}


def test_a_run_that_says_other_than_when_it_was_loaded_is_set_aside(cache_path: Path) -> None:
    look(cache_path)
    path = cache_path / "runs" / RUN.run_id / "run.json"
    values = {name: value for name, value in json.loads(path.read_text()).items() if name != "digest"}
    path.write_bytes(_sealed(values | {"prompt": "other"}))
    _, (told,) = look(cache_path)
    assert "another model or prompt than when the run was loaded first" in told


def test_runs_tells_what_was_set_aside(cache_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = cache_path / "runs" / "\x1b[2J![](http:"
    hostile.mkdir()
    (hostile / "run.json").write_text("{")
    os.truncate(cache_path / "runs" / OTHER.run_id / "batch-1" / "score.parquet", 9)
    assert main(["runs", "--cache", str(cache_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    (run,) = [row for row in rows if row["run_id"] == OTHER.run_id]
    assert "score.parquet" in run["set_aside"][0]["path"]
    assert {"path", "reason", "remedy"} == set(run["set_aside"][0])
    (strange,) = [row for row in rows if row["run_id"] is None]
    assert strange["status"] == "set aside"
    assert main(["runs", "--cache", str(cache_path)]) == 0
    assert main(["show", OTHER.run_id, "--cache", str(cache_path)]) == 0
    said = capsys.readouterr()
    assert "set aside: " in said.out
    assert "2 broken files or folders were set aside" in said.err
    assert "\x1b" not in said.out + said.err


def test_loading_a_folder_tells_what_was_set_aside_and_fails_where_nothing_is_left(
    cache_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    cursor = tmp_path_factory.mktemp("own")
    (cache_path / "runs" / RUN.run_id / "run.json").write_text("{")
    assert main(["load", str(cache_path / "runs"), "--cache", str(cursor), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["runs"] == [OTHER.run_id]
    assert len(told["set_aside"]) == 1
    assert main(["load", str(cache_path / "runs" / RUN.run_id), "--cache", str(cursor)]) == 2
    assert "run.json" in capsys.readouterr().err


_ON_A_FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from mmn.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("n_bytes", [100, 20_000, 300_000])
def test_a_disk_that_fills_up_while_rows_are_stored_is_one_line(cache_path: Path, n_bytes: int) -> None:
    words = [sys.executable, "-c", _ON_A_FULL_DISK, str(n_bytes), "runs", "--cache", str(cache_path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"mmn: .*mmn\.duckdb.* cannot be used .*the space left on its disk\n", done.stderr)
    counts, told = look(cache_path)
    assert (counts[RUN.run_id], counts[OTHER.run_id], told) == (WHOLE, WHOLE, [])


def test_a_disk_that_is_full_while_a_shard_is_written_leaves_nothing_of_it(cache_path: Path) -> None:
    code = _ON_A_FULL_DISK.partition("from mmn.cli")[0] + "from tests.test_untrusted import write_more; write_more()"
    words = [sys.executable, "-c", code, "1500", str(cache_path)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert "no space left to write" in done.stdout, done.stderr
    names = {path.name for path in (cache_path / "runs" / RUN.run_id).iterdir()}
    assert names == {"batch-0", "batch-1", "run.json", "outcome.json"}


def write_more() -> None:
    """Writes one more shard; the process that calls it can write only small files."""
    try:
        shards.write_shard(Path(sys.argv[2]) / "runs" / RUN.run_id, "batch-2", tables_of({"c": ["dog", "cats", "sky"]}))
    except CacheError as error:
        print(error)


@pytest.mark.timeout(20)
def test_a_strangers_jobs_are_no_jobs(tmp_path: Path) -> None:
    whole: dict[str, Any] = {
        "job_id": "j1",
        "command": ["x"],
        "model": "m",
        "images": "i",
        "pid": 7,
        "started_at": "2026-01-01",
    }
    wrong: list[dict[str, Any]] = [
        {"pid": 0},
        {"pid": "7"},
        {"job_id": "j2"},
        {"command": 1},
        {"task": 5},
        {"model": None},
        {"x": 1},
    ]
    path = tmp_path / "j1"
    path.mkdir()
    for name in ("lock", "progress", "result.json"):
        os.mkfifo(path / name)
    for change in wrong:
        (path / "job.json").write_text(json.dumps(whole | change))
        assert jobs.list_jobs(tmp_path) == [], change
    (path / "job.json").write_text(json.dumps(whole))
    (job,) = jobs.list_jobs(tmp_path)
    assert jobs.state_of(job).status == "failed"
    (path / "job.json").unlink()
    os.mkfifo(path / "job.json")
    assert jobs.list_jobs(tmp_path) == []


def test_a_shard_is_written_with_its_manifest(cache_path: Path) -> None:
    path = cache_path / "runs" / RUN.run_id / "batch-0"
    files = {file.stem: digest(file.read_bytes()) for file in path.glob("*.parquet")}
    told = json.loads((path / "manifest.json").read_text())
    assert told == {"run_id": RUN.run_id, "shard": "batch-0", "files": files}
    assert read_run_file(path.parent).is_bound


def test_a_broken_file_crosses_processes_as_it_is() -> None:
    import pickle

    error = BrokenFileError(Path("a"), "why", "remedy")
    assert pickle.loads(pickle.dumps(error)).told == error.told  # noqa: S301 - our own bytes


def test_every_table_has_a_key_but_failures() -> None:
    assert set(TABLES) - set(KEYS) == {"failure"}
    for name, key in KEYS.items():
        assert set(key) <= set(TABLES[name].names)
    assert ORIGINAL

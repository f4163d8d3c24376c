"""A run's name, note and tags: kept beside the runs, shown by commands, gone with the run."""

import json

import pytest

from mmn.cli import main
from mmn.errors import UsageError
from mmn.store import Store
from mmn.store.disk_use import DiskUse
from mmn.store.labels import Label, cleaned
from tests.pages.filled import fill


@pytest.fixture
def cache(tmp_path):
    fill(tmp_path, n_images=2, top_k=5)
    return tmp_path


def said(capsys, *words: str) -> dict:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_name_outlives_the_database_and_ends_with_its_run(cache, capsys):
    at = ("--cache", str(cache))
    said(capsys, "label", "3f2a", "--name", "First  try", "--tags", "good, paper,good", *at)
    said(capsys, "label", "3f2a", "--note", "line 1\nline 2", *at)
    (cache / "mmn.duckdb").unlink()
    (row,) = [one for one in said(capsys, "runs", *at) if one["run_id"] == "3f2a9c1b00112233"]
    assert (row["name"], row["tags"], row["note"]) == ("First try", ["good", "paper"], "line 1\nline 2")
    assert said(capsys, "show", "3f2a", *at)["name"] == "First try"
    main(["runs", *at])
    assert "First try good, paper" in " ".join(capsys.readouterr().out.split())
    said(capsys, "delete", "3f2a", *at)
    assert not list((cache / "labels").iterdir())


def test_a_broken_label_is_set_aside_and_the_run_is_there(cache):
    (cache / "labels").mkdir()
    (cache / "labels" / "3f2a9c1b00112233.json").write_text('{"name": 3, "note": "", "tags": []}')
    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path])
        assert store.run("3f2a")["name"] == ""
        assert [one.path.name for one in store.set_aside] == ["3f2a9c1b00112233.json"]


@pytest.mark.parametrize(
    ("name", "note", "tags"),
    [
        ("a" * 61, "", []),
        ("", "", ["a,b"]),
        ("\u202ea", "", []),
        ("", "n" * 4001, []),
        ("", "", list("abcdefghijklmnopqrstu")),
    ],
)
def test_what_cannot_be_a_label_is_refused(name, note, tags):
    with pytest.raises(UsageError):
        cleaned(name, note, tags)


def test_disk_use_is_the_bytes_of_the_runs_files(cache):
    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path])
        store.set_label("3f2a", Label("x"))
        found = sum(path.stat().st_size for path in (cache / "runs").rglob("*") if path.is_file())
        assert store.ask(DiskUse).of_run("3f2a") == found > 1000

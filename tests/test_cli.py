"""The command line: exit codes, one JSON object on standard output, one line for what a user can mend."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from mmn import __version__
from mmn.cli import main
from mmn.runs.shards import finished_shards
from mmn.studies.registry import STAGES
from tests.test_models import BROKEN

ROOT = Path(__file__).parents[1]
METHODS = "contribution,contribution-folded,random"


class ConceptAt:
    """What one command said: `out` and `err` as a whole, `json` if that was asked for."""

    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        lines = self.out.splitlines()
        assert len(lines) == 1, f"not one JSON object and nothing else: {self.out!r}"
        return json.loads(self.out)


@pytest.fixture
def mmn(capfd):
    """Runs a command in this process; what any library prints to the terminal is seen, too."""

    def run(*words: object) -> ConceptAt:
        capfd.readouterr()
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return ConceptAt(code, out, err)

    return run


def score_words(checkpoint, pictures, cache, *more: object) -> list[str]:
    words = [
        "score",
        "--model",
        checkpoint,
        "--images",
        pictures,
        "--cache",
        cache,
        "--methods",
        METHODS,
        "--top-k",
        30,
    ]
    words += ["--max-new-tokens", 8, "--batch-size", 4, "--device", "cpu", "--progress", "none", *more]
    return [str(word) for word in words]


@pytest.fixture(scope="module")
def cache(checkpoint, pictures, tmp_path_factory) -> Path:
    """A cache with one complete run over 16 pictures. Read only."""
    path = tmp_path_factory.mktemp("cli") / "cache"
    assert main(score_words(checkpoint, pictures, path)) == 0
    return path


@pytest.fixture(scope="module")
def run_id(cache) -> str:
    (path,) = (cache / "runs").iterdir()
    return path.name


@pytest.fixture
def own_cache(cache, tmp_path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(cache, tmp_path / "own"))


def is_one_line(text: str) -> bool:
    return text.startswith("mmn: ") and text.count("\n") == 1 and len(text) > 20


def assert_refused(said: ConceptAt, message: str) -> None:
    """Exit 2, one line on standard error, and with --json the same in one object."""
    last = said.err.splitlines(keepends=True)[-1]
    assert said.code == 2
    assert is_one_line(last), said.err
    assert re.search(message, last), said.err
    if said.out:
        assert said.json["message"] == last.removeprefix("mmn: ").strip()
        assert said.json["error"].endswith("Error")


# score


def test_without_an_option_the_cache_is_the_dashboard_s(mmn, cache, run_id, monkeypatch, tmp_path):
    monkeypatch.setenv("MMN_CACHE", str(cache))
    assert run_id in {row["run_id"] for row in mmn("runs", "--json").json}
    monkeypatch.delenv("MMN_CACHE")
    monkeypatch.chdir(tmp_path)
    assert run_id not in {row["run_id"] for row in mmn("runs", "--json").json}


def test_scoring_again_does_nothing_and_says_the_same(mmn, checkpoint, pictures, own_cache, run_id):
    run_path = own_cache / "runs" / run_id
    before = {path: path.stat().st_mtime_ns for path in run_path.rglob("*.parquet")}
    first = mmn(*score_words(checkpoint, pictures, own_cache, "--json"))
    second = mmn(*score_words(checkpoint, pictures, own_cache, "--json"))
    assert (first.code, second.code) == (0, 0)
    assert first.json == second.json
    assert {path: path.stat().st_mtime_ns for path in run_path.rglob("*.parquet")} == before
    result = first.json
    assert set(result) >= {
        "run_id", "status", "n_images", "n_failed", "n_concepts", "n_scores", "seconds", "images_per_s", "max_residual"
    }  # fmt: skip
    assert (result["run_id"], result["status"], result["n_images"], result["n_failed"]) == (run_id, "complete", 16, 0)
    assert result["n_scores"] == result["n_concepts"] * 3 * 30 > 0
    assert 0 < result["max_residual"] < 1e-5
    assert second.err == ""


def test_scoring_prints_the_run_id(mmn, checkpoint, pictures, own_cache, run_id):
    said = mmn(*score_words(checkpoint, pictures, own_cache))
    assert said.out.startswith(f"{run_id}: complete, 16 pictures, ")
    assert "exactness residual" in said.out


def test_targets_and_suppressors(mmn, checkpoint, pictures, tmp_path, cache, run_id):
    said = mmn("export", "--run", run_id, "--table", "concept", "--out", tmp_path / "c.parquet", "--cache", cache)
    assert said.code == 0
    noun = pd.read_parquet(tmp_path / "c.parquet")["noun"].iloc[0]
    more = ["--target", "zebra", "--target", f"tram@{noun}", "--target", "owl@nowhere", "--bottom-k", "5", "--json"]
    said = mmn(*score_words(checkpoint, pictures, tmp_path / "cache", *more))
    assert said.code == 0
    assert said.json["unscored_targets"] == ["owl@nowhere"]
    for table in ("concept", "score"):
        words = ("--run", said.json["run_id"], "--table", table, "--out", tmp_path / f"{table}.csv")
        assert mmn("export", *words, "--cache", tmp_path / "cache").code == 0
    concepts = pd.read_csv(tmp_path / "concept.csv")
    assert (concepts["noun"] == "zebra").sum() > 1
    assert (concepts.loc[concepts["noun"] == "tram", "target_at"] == noun).all()
    assert (concepts["noun"] == "tram").any()
    scores = pd.read_csv(tmp_path / "score.csv")
    assert set(scores["rank"]) == {*range(-5, 0), *range(1, 31)}
    assert (scores.loc[scores["rank"] < 0, "score"] < 0).all()


def test_pictures_that_fail_make_exit_1_and_are_listed(mmn, checkpoint, paint, tmp_path):
    folder = paint(tmp_path / "pictures", 4)
    content = (folder / "001.png").read_bytes()
    (folder / "001.png").write_bytes(content[: len(content) // 2])
    (folder / "zz.jpg").write_bytes(b"no picture")
    said = mmn(*score_words(checkpoint, folder, tmp_path / "cache", "--json"))
    assert said.code == 1
    assert (said.json["status"], said.json["n_images"], said.json["n_failed"]) == ("complete", 3, 2)
    shown = mmn("show", said.json["run_id"], "--cache", tmp_path / "cache", "--json").json
    assert {Path(row["source"]).name for row in shown["failures"]} == {"001.png", "zz.jpg"}
    assert "2 failed (mmn show" in mmn(*score_words(checkpoint, folder, tmp_path / "cache")).out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--methods", "contributions"], "no method 'contributions'; there are contribution, "),
        (["--methods", ","], "--methods is empty"),
        (["--top-k", "0"], "--top-k.*'0' is not a whole number from 1"),
        (["--top-k", "many"], "--top-k.*'many'"),
        (["--bottom-k", "-1"], "--bottom-k"),
        (["--limit", "0"], "--limit"),
        (["--batch-size", "0"], "'0' is not a whole number from 1"),
        (["--max-new-tokens", "0"], "--max-new-tokens"),
        (["--workers", "0"], "--workers"),
        (["--dtype", "float8"], "--dtype.*float8"),
        (["--device", "tpu9"], "--device tpu9"),
        (["--engine", "magic"], "--engine.*magic"),
        (["--nonsense"], "nonsense"),
        (["--images", "/no/such/folder"], "/no/such/folder"),
        (["--model", "/no/such/model"], "/no/such/model"),
        (["--model", "some-body/some-model"], "neither a folder here nor to be had from the hub"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("as_json", [False, True], ids=["", "json"])
def test_a_bad_option_is_refused_in_one_line(mmn, checkpoint, pictures, tmp_path, change, message, as_json):
    words = score_words(checkpoint, pictures, tmp_path / "cache", *change, *(["--json"] if as_json else []))
    said = mmn(*words)
    assert_refused(said, message)
    assert bool(said.out) == as_json
    assert not (tmp_path / "cache" / "runs").exists(), "nothing was scored, nothing is left"


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_refused_in_one_line(mmn, checkpoint, pictures, tmp_path, name):
    copy = Path(shutil.copytree(checkpoint, tmp_path / "model"))
    BROKEN[name][0](copy)
    assert_refused(mmn(*score_words(copy, pictures, tmp_path / "cache", "--json")), BROKEN[name][1])


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("florence2", "norms the residual stream itself"),
        ("pi0", "a robot's actions"),
        ("gpt2", "is no vision-language model of transformers"),
    ],
)
def test_an_unsupported_model_is_refused_with_the_reason(mmn, pictures, tmp_path, model_type, reason):
    import transformers

    transformers.AutoConfig.for_model(model_type).save_pretrained(tmp_path / "model")
    said = mmn(*score_words(tmp_path / "model", pictures, tmp_path / "cache"))
    assert_refused(said, reason)


@pytest.mark.parametrize("content", [{}, {"notes.txt": b"no picture"}])
def test_a_folder_without_a_picture_is_refused_in_one_line(mmn, checkpoint, tmp_path, content):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)
    assert_refused(mmn(*score_words(checkpoint, folder, tmp_path / "cache", "--json")), str(folder))


def test_a_folder_of_broken_pictures_only_is_a_run_of_failures(mmn, checkpoint, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"garbage")
    (folder / "b.png").write_bytes(b"")
    said = mmn(*score_words(checkpoint, folder, tmp_path / "cache", "--json"))
    assert (said.code, said.err) == (1, "")
    assert (said.json["n_images"], said.json["n_failed"], said.json["max_residual"]) == (0, 2, None)


def test_a_full_disk_is_one_clear_line(mmn, checkpoint, pictures, tmp_path, monkeypatch):
    write, n_written = pq.write_table, []

    def write_until_full(*words, **options):
        n_written.append(words)
        if len(n_written) > 7:
            raise OSError(28, "No space left on device")
        write(*words, **options)

    monkeypatch.setattr(pq, "write_table", write_until_full)
    assert_refused(mmn(*score_words(checkpoint, pictures, tmp_path, "--json")), "no space left to write .* to resume")
    (run_path,) = (tmp_path / "runs").iterdir()
    assert len(finished_shards(run_path)) == 1


def test_a_database_that_another_process_holds_is_left_for_it(mmn, checkpoint, pictures, own_cache, run_id):
    hold = "import duckdb, sys; con = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", hold, str(own_cache / "mmn.duckdb")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        said = mmn(*score_words(checkpoint, pictures, own_cache, "--seed", "7"))
        refused = mmn("runs", "--cache", own_cache)
        holder.communicate("")
    assert said.code == 0
    assert "the database is held by another process" in said.out
    assert_refused(refused, f"in use by process {holder.pid}")
    assert {row["run_id"] for row in mmn("runs", "--cache", own_cache, "--json").json} > {run_id, said.out[:16]} - {
        run_id
    }


def test_an_interrupted_job_says_so_and_the_same_command_resumes(mmn, checkpoint, paint, tmp_path):
    """A process of its own and a real SIGINT; pictures enough that it cannot be done before."""
    folder = paint(tmp_path / "pictures", 60)
    words = score_words(checkpoint, folder, tmp_path / "cache", "--json", "--batch-size", "1")
    with subprocess.Popen(
        [sys.executable, "-m", "mmn", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as job:
        give_up = time.monotonic() + 120
        while not list((tmp_path / "cache").glob("runs/*/batch-*")) and time.monotonic() < give_up:
            time.sleep(0.005)
        job.send_signal(signal.SIGINT)
        out, err = job.communicate(timeout=60)
    assert job.returncode == 130
    assert ConceptAt(130, out, err).json["error"] == "Cancelled"
    assert is_one_line(err), err
    (run_path,) = (tmp_path / "cache" / "runs").iterdir()
    n_before = len(finished_shards(run_path))
    assert 0 < n_before < 60
    assert mmn("show", run_path.name, "--cache", tmp_path / "cache", "--json").json["status"] == "cancelled"
    kept = {path: path.stat().st_mtime_ns for path in run_path.rglob("*.parquet")}
    again = mmn(*words)
    assert (again.code, again.json["status"], again.json["n_images"]) == (0, "complete", 60)
    assert kept.items() <= {path: path.stat().st_mtime_ns for path in run_path.rglob("*.parquet")}.items()


def test_progress_as_json_lines(mmn, checkpoint, pictures, own_cache):
    said = mmn(*score_words(checkpoint, pictures, own_cache, "--json", "--progress", "json", "--seed", "3"))
    reports = [json.loads(line) for line in said.err.splitlines()]
    assert reports[0]["stage"] == "list"
    assert [(r["done"], r["total"]) for r in reports if r["stage"] == "score"] == [(n, 16) for n in range(0, 17, 4)]
    assert said.json["status"] == "complete"


def test_progress_without_a_terminal_is_a_line_now_and_then(mmn, checkpoint, pictures, own_cache):
    said = mmn(*score_words(checkpoint, pictures, own_cache, "--progress", "auto"))
    assert "scoring 16/16" in said.err
    assert "\r" not in said.err


# the cache


def test_runs_lists_and_show_tells_all(mmn, cache, run_id, checkpoint, pictures):
    (row,) = [row for row in mmn("runs", "--cache", cache, "--json").json if row["run_id"] == run_id]
    assert (row["status"], row["n_images"], row["model"], row["images"]) == (
        "complete",
        16,
        str(checkpoint),
        str(pictures),
    )
    assert run_id in mmn("runs", "--cache", cache).out
    shown = mmn("show", run_id[:9], "--cache", cache, "--json").json
    assert shown["methods"] == METHODS.split(",")
    assert shown["failures"] == []
    assert shown["settings"]["top_k"] == 30
    assert shown["versions"]["torch"]
    text = mmn("show", run_id, "--cache", cache).out
    assert str(checkpoint) in text
    assert "complete" in text


@pytest.mark.parametrize("command", [["show"], ["delete"], ["export", "--table", "score", "--out", "x.csv", "--run"]])
def test_an_unknown_run_is_refused(mmn, cache, command):
    assert_refused(mmn(*command, "ffffffffffffffff", "--cache", cache, "--json"), "ffffffffffffffff")


@pytest.mark.parametrize("table", ["run", "image", "caption", "concept", "score", "budget", "failure"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_export_writes_every_row(mmn, cache, run_id, tmp_path, table, ending):
    out = tmp_path / f"{table}.{ending}"
    said = mmn("export", "--run", run_id, "--table", table, "--out", out, "--cache", cache, "--json")
    assert said.code == 0
    rows = pd.read_csv(out) if ending == "csv" else pd.read_parquet(out)
    assert said.json["n_rows"] == len(rows)
    assert len(rows) == {"run": 1, "image": 16, "caption": 16, "failure": 0}.get(table, len(rows))
    assert (len(rows) > 0) == (table != "failure")
    if table == "caption" and ending == "csv":
        assert all(isinstance(json.loads(cell), list) for cell in rows["tokens"])


def test_export_refuses_other_endings_tables_and_places(mmn, cache, run_id, tmp_path):
    words = ("export", "--run", run_id, "--cache", cache, "--json")
    assert_refused(mmn(*words, "--table", "score", "--out", tmp_path / "x.xlsx"), r"must end in \.csv or \.parquet")
    assert_refused(mmn(*words, "--table", "scores", "--out", tmp_path / "x.csv"), "'scores'")
    assert_refused(mmn(*words, "--table", "score", "--out", tmp_path / "no" / "x.csv"), "no/x.csv cannot be written")
    assert_refused(mmn(*words, "--table", "score", "--out", tmp_path / "no" / "x.parquet"), "no/x.parquet cannot be")


def test_delete_removes_a_run_for_good(mmn, own_cache, run_id):
    assert mmn("delete", run_id, "--cache", own_cache, "--json").json == {"run_id": run_id, "deleted": True}
    assert not (own_cache / "runs" / run_id).exists()
    assert run_id not in mmn("runs", "--cache", own_cache).out
    assert_refused(mmn("show", run_id, "--cache", own_cache), run_id)


@pytest.mark.parametrize("whole", [True, False], ids=["a folder of runs", "a run's folder"])
def test_load_takes_shards_written_elsewhere(mmn, cache, run_id, tmp_path, whole):
    elsewhere = Path(shutil.copytree(cache / "runs", tmp_path / "elsewhere"))
    folder = elsewhere if whole else elsewhere / run_id
    first = mmn("load", folder, "--cache", tmp_path / "new", "--json").json
    assert first == {"n_shards": 4, "runs": [run_id]}
    assert mmn("load", folder, "--cache", tmp_path / "new", "--json").json["n_shards"] == 0
    assert mmn("show", run_id, "--cache", tmp_path / "new", "--json").json["n_images"] == 16


def test_load_refuses_a_folder_without_a_run(mmn, tmp_path):
    assert_refused(mmn("load", tmp_path, "--cache", tmp_path / "new", "--json"), "holds no run")
    assert_refused(mmn("load", tmp_path / "no", "--cache", tmp_path / "new"), "holds no run")


def test_load_refuses_a_run_file_that_is_none(mmn, tmp_path):
    (tmp_path / "run.json").write_text("{")
    assert_refused(mmn("load", tmp_path, "--cache", tmp_path / "new", "--json"), "run.json")


@pytest.mark.parametrize("ending", ["svg", "pdf", "png", "json", "csv"])
def test_the_layer_figure_in_every_format(mmn, cache, run_id, tmp_path, ending):
    out = tmp_path / f"layers.{ending}"
    said = mmn("figure", "layers", "--run", run_id, "--out", out, "--ks", "5,10", "--cache", cache, "--json")
    assert said.code == 0
    assert said.json["out"] == str(out)
    beginning = {"svg": b"<svg", "pdf": b"%PDF", "png": b"\x89PNG", "json": b"{", "csv": b"method"}[ending]
    assert beginning in out.read_bytes()[:200]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--ks", "31"], "30"),
        (["--ks", "x"], "'x' is not a number"),
        (["--ks", "5", "--shares", ".1"], "not both"),
        (["--methods", "activation"], "activation"),
        (["--concepts", "no-such-noun"], "no-such-noun"),
        (["--layers", "7-9"], "layer"),
        (["--width", "wide"], "--width"),
        (["--out", "layers.gif"], "gif"),
        (["--out", "/no/such/folder/layers.svg"], "/no/such/folder/layers.svg cannot be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_figure_that_cannot_be_drawn_is_refused(mmn, cache, run_id, tmp_path, change, message):
    words = ["figure", "layers", "--run", run_id, "--out", tmp_path / "x.svg", "--cache", cache, "--json", *change]
    assert_refused(mmn(*words), message)


def test_an_unknown_figure_is_refused(mmn, cache, run_id, tmp_path):
    words = ("figure", "lairs", "--run", run_id, "--out", tmp_path / "x.svg", "--cache", cache)
    assert_refused(mmn(*words), "no figure 'lairs'; there are layers")


def test_a_cache_that_cannot_be_made_is_refused(mmn, tmp_path):
    (tmp_path / "file").write_text("")
    assert_refused(mmn("runs", "--cache", tmp_path / "file" / "cache", "--json"), "cache")


# models


def test_doctor_reports_an_exact_model(mmn, checkpoint):
    facts = mmn("doctor", checkpoint, "--device", "cpu", "--json").json
    assert facts["exactness_residual"] < 1e-5
    assert (facts["family"], facts["n_layers"], facts["d_mlp"], facts["n_image_tokens"]) == ("llava", 3, 48, 64)
    assert "exactness_residual" in mmn("doctor", checkpoint, "--device", "cpu").out


def test_doctor_refuses_what_score_refuses(mmn, tmp_path):
    assert_refused(mmn("doctor", tmp_path, "--json"), "no config.json")


def test_models_lists_every_type_with_what_it_gives_or_the_reason_against_it(mmn):
    from mmn.models.tried import all_tried

    rows = mmn("models", "--json").json
    assert [row["family"] for row in rows] == [one.model_type for one in all_tried()]
    assert all(row["note"] for row in rows if row["supported"] == "no")
    assert "florence2" in (said := mmn("models").out)
    assert "norms the residual stream itself" in said


# the door


@pytest.mark.parametrize("words", [[], ["nonsense"], ["score"], ["show"], ["runs", "--nonsense"], ["figure", "layers"]])
def test_bad_usage_is_one_line_that_says_where_help_is(mmn, words):
    of = " ".join(["mmn", *(word for word in words[:1] if word != "nonsense")])
    assert_refused(mmn(*words), f"see {of} --help")


def test_a_whole_process_prints_one_json_object_and_nothing_else(checkpoint, pictures, own_cache):
    """Standard output of the real thing, whatever a library writes to it while it is loaded."""
    words = [sys.executable, "-m", "mmn", *score_words(checkpoint, pictures, own_cache, "--json", "--seed", "5")]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ConceptAt(result.returncode, result.stdout, result.stderr).json["status"] == "complete"
    assert (result.returncode, result.stderr) == (0, "")


def test_a_reader_that_stops_reading_is_no_error(cache):
    words = f"{sys.executable} -m mmn runs --cache {cache} | true"
    result = subprocess.run(words, cwd=ROOT, shell=True, capture_output=True, text=True, check=False, env=os.environ)  # noqa: S602
    assert result.stderr == ""


def test_every_stage_that_a_command_reports_has_a_label():
    """A command that was only tested without its progress once failed on a terminal."""
    text = "\n".join(file.read_text() for file in (Path(__file__).parents[1] / "mmn").rglob("*.py"))
    stages = set(re.findall(r'Progress\("([\w-]+)"', text)) | set(re.findall(r'^STAGE: Final = "([\w-]+)"', text, re.M))
    assert {"score", "lens", "degrade", "load"} <= stages
    assert stages <= set(STAGES)


def test_the_version_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(r"mmn \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_the_citation_names_this_version():
    cited = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {__version__}\n" in cited
    assert "2308.01544" in cited
    assert "2311.07470" in cited


def test_a_run_without_a_caption_sends_nobody_to_its_captions(mmn, checkpoint, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"no picture")
    said = mmn(*score_words(checkpoint, tmp_path / "pictures", tmp_path / "cache"))
    assert said.code == 1
    assert "no picture of this run has been captioned" in said.out
    assert "--table caption" not in said.out

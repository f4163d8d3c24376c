"""The Score page: what it will cost, the job it starts, and what became of it."""

import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from app.estimate import BYTES_PER_ROW, CONCEPTS_ASSUMED, estimate
from app.state import default_ks, duration, find_label, k_options, parse_k, short
from app.text import plain
from app.uploads import save_uploads
from mmn.names import METHODS
from mmn.runs import jobs

FAKE = Path(__file__).with_name("fake_score.py")


@pytest.fixture(autouse=True)
def fake_program(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jobs, "PROGRAM", (sys.executable, str(FAKE)))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (64, 64), (i * 40, 20, 20)).save(folder / f"{i}.png")
    (folder / "broken.jpg").write_bytes(b"not a picture")
    return folder


def text(at: AppTest) -> str:
    return " ".join(element.value for element in [*at.markdown, *at.caption])


def choose_folder(at: AppTest, folder: Path | str) -> AppTest:
    source: Any = at.get("button_group")[0]
    source.set_value("Folder or list").run()
    return at.text_input(key="score-folder").set_value(str(folder)).run()


def press_start(at: AppTest) -> AppTest:
    return next(b for b in at.button if b.label == "Start scoring").click().run()


def wait_for_end(cache: Path) -> jobs.JobState:
    (job,) = jobs.list_jobs(cache / "jobs")
    give_up = time.monotonic() + 10
    while jobs.is_alive(job):
        assert time.monotonic() < give_up
        time.sleep(0.05)
    return jobs.state_of(job)


def test_methods_explain_themselves(empty_cache, open_app):
    at = open_app("score")
    boxes = {box.label: box.help for box in at.checkbox}
    assert set(METHODS) < set(boxes)
    for name, method in METHODS.items():
        assert plain(method.equation) in boxes[name]
        assert plain(method.source) in boxes[name]


def test_both_bundled_models_are_offered_and_the_specimen_is_the_first(empty_cache, open_app):
    model = next(box for box in open_app("score").selectbox if box.key == "score-model")
    assert model.options[:2] == ["specimen", "specimen-frozen"]
    assert model.value == "specimen"


def test_cost_of_a_folder_counts_pictures_and_failures(empty_cache, pictures, open_app):
    at = choose_folder(open_app("score"), pictures)
    assert "**3 pictures**, and 1 that cannot be used" in text(at)
    assert "At most about **18,000 score rows**" in text(at), "3 pictures, 3 nouns, 2 scores, 1000 units"
    assert "not known yet" in text(at)
    assert any("1 file cannot be used" in e.label for e in at.expander)


def test_missing_folder_is_said_and_cannot_be_started(empty_cache, open_app):
    at = choose_folder(open_app("score"), "/no/such/folder")
    assert "/no/such/folder" in at.error[0].value
    assert all(button.label != "Start scoring" for button in at.button)


def test_start_runs_the_command_line_and_shows_its_end(filled_cache, pictures, open_app):
    at = press_start(choose_folder(open_app("score"), pictures))
    assert not at.exception
    assert wait_for_end(filled_cache).status == "complete"
    (job,) = jobs.list_jobs(filled_cache / "jobs")
    words = list(job.command)
    for name, value in {"--model": "specimen", "--images": str(pictures), "--cache": str(filled_cache)}.items():
        assert words[words.index(name) + 1] == value
    assert words[words.index("--methods") + 1] == "contribution,random"
    assert words[-3:] == ["--json", "--progress", "json"]
    assert "--prompt" not in words, "the command's own default"
    at.run()
    assert any("specimen on pictures: complete" in e.label for e in at.expander)
    assert "5 pictures, 1,000 score rows, 1 s (5.0 pictures per second)." in text(at)
    assert len(at.get("page_link")) == 1
    assert "1 picture could not be used" in text(at), "the run's failures"
    assert ":green[:material/verified: Proved on two pictures" in text(at)
    assert "zeroing a unit misses 3e-07 of what was predicted" in text(at)


def test_layers_of_effects_are_asked_for_where_one_is_chosen_and_reach_the_command(empty_cache, pictures, open_app):
    at = choose_folder(open_app("score"), pictures)
    assert "score-effect-layers" not in {box.key for box in at.text_input}
    at.checkbox(key="score-method-effect").check().run()
    at.text_input(key="score-effect-layers").set_value("7-6").run()
    assert "Layers of effect: give FIRST-LAST" in at.error[0].value
    assert all(button.label != "Start scoring" for button in at.button)
    press_start(at.text_input(key="score-effect-layers").set_value("6-7").run())
    wait_for_end(empty_cache)
    (job,) = jobs.list_jobs(empty_cache / "jobs")
    assert job.command[job.command.index("--effect-layers") + 1] == "6-7"


def test_failed_job_shows_its_message(empty_cache, pictures, open_app):
    at = press_start(choose_folder(open_app("score"), pictures.rename(pictures.with_name("unscorable"))))
    wait_for_end(empty_cache)
    at.run()
    assert any("specimen on unscorable: failed" in e.label for e in at.expander)
    assert at.error[0].value == "no weights there; give a folder with some"


def test_running_job_is_seen_after_a_reload_and_only_once_started(empty_cache, pictures, open_app, monkeypatch):
    monkeypatch.setenv("FAKE_STEP_S", "0.5")
    press_start(choose_folder(open_app("score"), pictures))
    (job,) = jobs.list_jobs(empty_cache / "jobs")
    try:
        again = choose_folder(open_app("score"), pictures)
        cancel = next(b for b in again.button if b.label == "Cancel")
        assert "A job is running already" in text(again)
        press_start(again)
        assert "already being scored" in again.warning[0].value
        cancel.click().run()
    finally:
        jobs.cancel(job)
    assert wait_for_end(empty_cache).status == "cancelled"


def test_estimate_uses_the_last_run_of_the_same_model():
    run = {
        "run_id": "a",
        "model": "m",
        "n_images": 100,
        "n_concepts": 250,
        "seconds": 50.0,
        "n_layers": 2,
        "d_mlp": 100,
    }
    runs = pd.DataFrame([run | {"model": "other"}, run, run | {"run_id": "b", "seconds": 9999.0}])
    known = estimate(runs, "m", 400, 0, 2, 1000, 10)
    assert (known.seconds, known.rate) == (200.0, 2.0)
    assert known.n_rows == 400 * 2.5 * 2 * (200 + 10), "top k is cut to the model's units"
    assert known.n_bytes == known.n_rows * BYTES_PER_ROW
    assert estimate(runs, "m", 400, 0, 2, 1000, 10, ["a"]).rate == 100 / 9999, "another machine's time is no estimate"
    bundled = estimate(runs, "m", 400, 0, 2, 1000, 10, ["a", "b"])
    assert (bundled.seconds, bundled.concepts_per_image) == (None, 2.5)
    unknown = estimate(runs, "new", 400, 0, 1, 1000, 0)
    assert (unknown.seconds, unknown.concepts_per_image) == (None, CONCEPTS_ASSUMED)
    assert estimate(pd.DataFrame(), "m", 1, 0, 1, 1, 0).seconds is None


def test_same_upload_is_the_same_folder(tmp_path: Path):
    files = {"a.png": b"1", "../../b.png": b"2"}
    folder = save_uploads(files, tmp_path)
    assert save_uploads(dict(reversed(files.items())), tmp_path) == folder
    assert save_uploads(files | {"a.png": b"3"}, tmp_path) != folder
    assert len(list(folder.iterdir())) == 2, "and no name leads out of it"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("written", "k"),
    [("43", 43), ("1.4 %", 43), ("1.4%", 43), ("43 (1.4 %)", 43), ("1,000", 1000), ("0", None), ("1001", None),
     ("2.5", None), ("nan", None), ("inf", None), ("%", None), ("", None)],
)  # fmt: skip
def test_k_is_read_as_number_or_share(written: str, k: int | None):
    assert parse_k(written, 3072, 1000) == k


def test_ks_on_offer_are_stored():
    assert default_ks(3072, 1000) == [9, 43, 154]
    assert default_ks(11008 * 40, 100) == [100]
    assert all(1 <= k <= 50 for k in k_options(3072, 50))
    assert 43 in k_options(3072, 1000)


def test_words():
    assert [duration(s) for s in (0, 59.6, 200, 7500)] == ["0 s", "1 min", "3 min 20 s", "2 h 5 min"]
    assert [
        short(s) for s in ("specimen", "/data/my images/", "coco:/a/b.json:/c/val", "llava-hf/llava-1.5-7b-hf")
    ] == [
        "specimen",
        "my_images",
        "val",
        "llava-1.5-7b-hf",
    ]
    labels = ["m gallery 3f2a9c1b", "m gallery 3f2a0000"]
    assert find_label(labels, "3f2a9c1b00112233") == labels[0]
    assert find_label(labels, "3f2a9") == labels[0]
    assert find_label(labels, "3f2a") is None
    assert find_label(labels, "") is None


def test_a_grey_picture_costs_two_more_rankings_for_each_score_but_a_draw(empty_cache, pictures, open_app):
    at = choose_folder(open_app("score"), pictures)
    at.checkbox(key="score-blank").check().run()
    assert "At most about **45,000 score rows**" in text(at), "3 pictures, 3 nouns, 2 + 2 + 1 rankings, 1000 units"

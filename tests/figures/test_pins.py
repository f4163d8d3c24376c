"""Pins outlive a process and bear several writers; a grid and a zip of them hold what they say, and are made again."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mmn.cli import BAD_INPUT, DONE, SOME_FAILED, main
from mmn.errors import BrokenFileError, CacheError, UsageError
from mmn.figures.carriers import read_recipe
from mmn.figures.figure import Drawn, draw
from mmn.figures.panels import NARROWEST_IN, Grid, fitting_columns, grid_file, panel_svg
from mmn.figures.pins import FILE, MOST_PINS, Pin, Pins
from mmn.figures.presets import PRESETS, Layout
from mmn.figures.recipes import GridRecipe, letter
from mmn.figures.saving import rows_recipe
from mmn.figures.tables import booktabs
from mmn.store import Store
from mmn.studies.registry import FIGURES
from mmn.view import View
from tests.figures.boxes import boxes, canvas, is_inside, overlap
from tests.figures.everything import drawn_of, stores
from tests.pages.filled import fill_whole

RUN = "5e6f000000000000"
FIGURES_OF_SET = ("invariance-concepts", "sensitivity")
WORDY = ("degradation", "perturbation", "specificity", "cross-image", "budget", "edit")  # or with many cells
NO_BUNDLED_RUN = "from mmn.cli import cache, figure; cache.RUN_PATHS = figure.RUN_PATHS = ()"


@pytest.fixture(scope="module", autouse=True)
def _no_bundled_run():
    """Loading it takes longer than all else here."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("mmn.cli.figure.RUN_PATHS", ())
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cache")
    fill_whole(path)
    with Store.open(path) as store:
        store.load_new_shards([store.runs_path])
        for name in FIGURES_OF_SET:
            drawn = draw(FIGURES[name], store, View(run=RUN, methods=("activation",)))
            Pins(path).add(Pin(rows_recipe(drawn), "Mine: 50 % of a_b." if name == "sensitivity" else ""))
    return path


@pytest.fixture(scope="module")
def unpacked(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the zip that the command writes."""
    folder = tmp_path_factory.mktemp("zip")
    assert main(f"pins --out {folder / 'set.zip'} --preset cvpr --cache {cache}".split()) == DONE
    with zipfile.ZipFile(folder / "set.zip") as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def pins(cache: Path, tmp_path: Path) -> Pins:
    shutil.copy(cache / FILE, tmp_path / FILE)
    return Pins(tmp_path)


def named(pins: Pins) -> list[str]:
    return [one.recipe.figure for one in pins.read()]


def test_pins_move_go_and_come_back(pins: Pins) -> None:
    first, second = pins.read()
    pins.move(second.pin_id, -1)
    pins.move(second.pin_id, -1)
    assert named(pins) == ["sensitivity", "invariance-concepts"]
    removed = pins.remove(second.pin_id)
    assert removed == (second, 0)
    assert named(pins) == ["invariance-concepts"]
    pins.add(removed[0], place=removed[1])
    pins.write_caption(first.pin_id, "Other words")
    assert [one.caption for one in pins.read()] == ["Mine: 50 % of a_b.", "Other words"]
    pins.add(first)
    assert len(pins.read()) == 2, "the same figure of the same view is pinned once"
    assert pins.remove("0" * 16) is None


def test_several_windows_lose_no_pin(pins: Pins) -> None:
    pin = pins.read()[0]
    others = [Pin(replace(pin.recipe, view={**pin.recipe.view, "most": str(n + 1)})) for n in range(12)]
    threads = [threading.Thread(target=Pins(pins.path.parent).add, args=(one,)) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.pin_id for one in pins.read()} >= {one.pin_id for one in others}
    with pytest.raises(UsageError, match=f"{MOST_PINS}"):
        pins.add(*(Pin(replace(pin.recipe, run_id=f"{n:x}")) for n in range(MOST_PINS)))
    assert len(pins.read()) == 14


@pytest.mark.parametrize("text", ["", "[]", "{", '{"mmn_pins": 1, "pins": [{}]}', '{"mmn_pins": 9, "pins": []}'])
def test_a_damaged_file_is_told_and_kept(text: str, pins: Pins) -> None:
    pin = pins.read()[0]
    pins.path.write_text(text)
    for ask in (pins.read, lambda: pins.add(pin)):
        with pytest.raises(BrokenFileError, match="move the file away"):
            ask()
    assert pins.path.read_text() == text


def test_a_link_for_the_lock_writes_nowhere(pins: Pins, tmp_path: Path) -> None:
    other = tmp_path / "precious"
    other.write_text("kept")
    (tmp_path / "pins.lock").unlink(missing_ok=True)
    (tmp_path / "pins.lock").symlink_to(other)
    with pytest.raises((OSError, CacheError)):
        pins.move(pins.read()[0].pin_id, 1)
    assert other.read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere: run the tests as another user")
def test_a_folder_that_cannot_be_written_still_shows_its_pins(pins: Pins) -> None:
    folder = pins.path.parent
    folder.chmod(0o500)
    try:
        assert len(pins.read()) == 2
        with pytest.raises(CacheError, match="cannot be written"):
            pins.remove(pins.read()[0].pin_id)
    finally:
        folder.chmod(0o700)


def test_letters_follow_the_alphabet() -> None:
    assert [letter(n) for n in (0, 1, 25, 26, 51, 52)] == ["a", "b", "z", "aa", "az", "ba"]


@pytest.mark.parametrize("preset", PRESETS)
def test_columns_leave_every_panel_its_least_width(preset: str) -> None:
    layout = Layout(preset, "double")
    for n in fitting_columns(layout):
        assert n == 1 or Grid(layout, n).panel.width_in >= NARROWEST_IN
    with pytest.raises(UsageError, match="do not fit"):
        Grid(layout, fitting_columns(layout)[-1] + 1)


def test_no_word_of_a_grid_is_cut_off_or_over_another(tmp_path: Path) -> None:
    """In the narrowest panels that there are: two side by side at NeurIPS."""
    narrow = Grid(Layout("neurips", "double"), 2)
    with stores(tmp_path) as opened:
        panels = [drawn_of(name, opened) for name in WORDY]
        for place, panel in enumerate(panels):
            svg = panel_svg(panel, place, "svg", narrow)
            words = boxes(svg)
            assert words[[box.text.startswith(f"({letter(place)}) ") for box in words].index(True)]
            cut = [box.text for box in words if not is_inside(box, canvas(svg))]
            over = [(one.text, other.text) for one, other in combinations(words, 2) if overlap(one, other)]
            assert (panel.figure.name, cut, over) == (panel.figure.name, [], [])


def test_a_grid_has_its_width_and_its_panels_apart(cache: Path) -> None:
    with Store.open(cache) as store:
        panels = [draw(FIGURES[name], store, View(run=RUN, methods=("activation",))) for name in FIGURES_OF_SET]
    svg = grid_file(panels, "svg", Grid()).content.decode()
    assert 'width="6.75in"' in svg
    words = boxes(svg)
    assert [box.text for box in words if not is_inside(box, canvas(svg))] == []
    assert [(one.text, other.text) for one, other in combinations(words, 2) if overlap(one, other)] == []
    names = re.findall(r' id="([^"]+)"', svg)
    assert len(names) == len(set(names)), "gradients and clips of two panels do not take each other's names"
    alone = boxes(panel_svg(panels[1], 1, "svg", Grid()))
    assert {box.size for box in words} >= {box.size for box in alone}


def test_the_zip_holds_each_figure_its_rows_its_words_and_the_grid(cache: Path, unpacked: Path) -> None:
    ends = ("csv", "csv.recipe.json", "pdf", "png", "svg", "txt")
    names = {f"{start}.{end}" for start in ("a-invariance-concepts", "b-sensitivity") for end in ends}
    assert {one.name for one in unpacked.iterdir()} == names | {"grid.svg", "grid.pdf", "captions.txt", "set.zip"}
    captions = (unpacked / "captions.txt").read_text()
    assert captions.startswith("(a) ")
    assert "\n\n(b) Mine: 50 % of a_b.\n" in captions
    assert (unpacked / "b-sensitivity.txt").read_text() == "Mine: 50 % of a_b.\n"
    with Store.open(cache) as store:
        data = draw(FIGURES["sensitivity"], store, View(run=RUN, methods=("activation",))).rows.data
    saved = pd.read_csv(unpacked / "b-sensitivity.csv")
    pd.testing.assert_frame_equal(saved, data.reset_index(drop=True), check_dtype=False, rtol=1e-8)
    assert 'width="3.25in"' in (unpacked / "a-invariance-concepts.svg").read_text()


def test_a_grid_has_its_fonts_and_letters_by_poppler(unpacked: Path) -> None:
    if not shutil.which("pdffonts"):
        pytest.skip("needs pdffonts: apt-get install poppler-utils")
    asked = {"pdffonts": [], "pdftotext": ["-"]}
    said = {
        name: subprocess.run([name, str(unpacked / "grid.pdf"), *ends], capture_output=True, text=True, check=True)
        for name, ends in asked.items()
    }
    assert all(one.stderr == "" for one in said.values()), "a file that poppler finds nothing wrong with"
    fonts = said["pdffonts"].stdout.splitlines()[2:]
    assert fonts
    assert all(re.search(r" yes yes yes +\d+ +0$", line) for line in fonts), "embedded, subset, with their letters"
    assert {"(a)", "(b)"} <= set(said["pdftotext"].stdout.split())


def test_each_recipe_is_made_again_elsewhere_byte_for_byte(cache: Path, unpacked: Path, tmp_path: Path) -> None:
    """Another process, another cache, which has the run imported (`mmn load`); then a run that was measured again."""
    other = tmp_path / "other"
    names = [
        "a-invariance-concepts.svg",
        "a-invariance-concepts.pdf",
        "b-sensitivity.png",
        "b-sensitivity.csv",
        "grid.pdf",
    ]
    code = f"""
import sys
from pathlib import Path
from mmn.cli import main
{NO_BUNDLED_RUN}
assert main(["load", {str(cache / "runs")!r}, "--cache", {str(other)!r}]) == 0
for name in sys.argv[1:]:
    out = {str(tmp_path)!r} + "/again-" + name
    assert main(["figure", "--recipe", {str(unpacked)!r} + "/" + name, "--out", out, "--cache", {str(other)!r}]) == 0
"""
    subprocess.run([sys.executable, "-c", code, *names], check=True, capture_output=True, text=True)
    assert [one for one in names if (unpacked / one).read_bytes() != (tmp_path / f"again-{one}").read_bytes()] == []


def test_a_grid_says_which_panel_differs(cache: Path, unpacked: Path, tmp_path: Path, capsys) -> None:
    import duckdb

    other = tmp_path / "other"
    shutil.copytree(cache, other)
    with duckdb.connect(str(other / "mmn.duckdb")) as connection:
        connection.execute("UPDATE sensitivity SET value = value / 2")
    words = ["figure", "--recipe", str(unpacked / "grid.svg"), "--out", str(tmp_path / "g.svg"), "--cache", str(other)]
    assert main([*words, "--json"]) == SOME_FAILED
    out = capsys.readouterr()
    assert "(b) columns of the rows with other values: " in out.err
    assert "(a)" not in out.err
    assert json.loads(out.out)["same"] is False
    hostile = json.loads(read_recipe(unpacked / "grid.svg").to_json())
    changes: list[dict[str, Any]] = [{"columns": 40}, {"columns": "2"}, {"panels": []}, {"panels": [1]}]
    for changed in [*changes, {"form": "exe"}, {"layout": 1}]:
        (tmp_path / "hostile.json").write_text(json.dumps(hostile | changed))
        assert main([*words[:2], str(tmp_path / "hostile.json"), *words[3:]]) == BAD_INPUT
        assert capsys.readouterr().err.count("\n") == 1


def test_pins_are_listed_added_and_removed_from_a_terminal(cache: Path, unpacked: Path, tmp_path: Path, capsys) -> None:
    at = ["--cache", str(tmp_path / "new")]
    assert main(["pins", *at]) == DONE
    assert "no figure is pinned" in capsys.readouterr().out
    assert main(["pins", "--add", str(unpacked / "grid.pdf"), str(unpacked / "a-invariance-concepts.csv"), *at]) == DONE
    capsys.readouterr()
    assert main(["pins", "--json", *at]) == DONE
    listed = json.loads(capsys.readouterr().out)["pins"]
    assert [one["figure"] for one in listed] == list(FIGURES_OF_SET)
    assert isinstance(read_recipe(unpacked / "grid.pdf"), GridRecipe)
    assert main(["pins", "--out", str(tmp_path / "g.svg"), *at]) == BAD_INPUT, "its run is not in this cache"
    assert RUN in capsys.readouterr().err
    assert main(["pins", "--remove", listed[0]["pin_id"][:6], *at]) == DONE
    assert main(["pins", "--remove", "zz", *at]) == BAD_INPUT
    assert len(Pins(tmp_path / "new").read()) == 1


def test_tables_say_measures_in_words(cache: Path) -> None:
    with Store.open(cache) as store:
        drawn: Drawn = draw(FIGURES["sensitivity"], store, View(run=RUN))
    data = drawn.rows.data.assign(metric="lexical-v1:caption:top10")
    text = booktabs(replace(drawn, rows=replace(drawn.rows, data=data)), "")
    assert "the caption: same word (lexical-v1, top 10 units) & " in text
    assert ":top10" not in text


def test_the_same_pins_are_the_same_zip(cache: Path, unpacked: Path, tmp_path: Path) -> None:
    words = f"pins --out {tmp_path / 'again.zip'} --preset cvpr --cache {cache}".split()
    assert main(words) == DONE
    assert (tmp_path / "again.zip").read_bytes() == (unpacked / "set.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO((tmp_path / "again.zip").read_bytes())) as archive:
        assert all(one.date_time[0] == 1980 for one in archive.infolist())

"""A figure's file carries what makes it again; a cache that differs is told; a file that lies is refused in a line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import duckdb
import pytest

from mmn.cli import BAD_INPUT, DONE, SOME_FAILED, main
from mmn.figures import pdf
from mmn.figures.carriers import BESIDE, BESIDE_ENDING, read_recipe
from mmn.figures.figure import draw
from mmn.figures.presets import Layout
from mmn.figures.recipes import Recipe
from mmn.figures.saving import save_figure
from mmn.figures.text_width import broken, width_of
from mmn.store import Store
from mmn.studies.registry import FIGURES
from mmn.view import View
from tests.pages.filled import fill_whole

RUN = "5e6f000000000000"
FORMS = ("svg", "pdf", "png", "json", "csv", "parquet", "tex")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cache")
    fill_whole(path)
    return path


@pytest.fixture(scope="module")
def made(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One figure in every format, in a venue's layout."""
    folder = tmp_path_factory.mktemp("made")
    paths = {form: folder / f"figure.{form}" for form in FORMS}
    for path in paths.values():
        words = f"figure invariance-concepts --run {RUN} --out {path} --preset nature --width double --cache {cache}"
        assert main(words.split()) == DONE
    return paths


def again(path: Path, out: Path, cache: Path, *more: str) -> int:
    return main(["figure", "--recipe", str(path), "--out", str(out), "--cache", str(cache), *more])


@pytest.mark.parametrize("form", FORMS)
def test_a_recipe_makes_the_same_file_again(
    form: str, made: dict[str, Path], cache: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / f"again.{form}"
    assert again(made[form], out, cache, "--json") == DONE
    assert out.read_bytes() == made[form].read_bytes()
    told = json.loads(capsys.readouterr().out)
    assert (told["same"], told["differences"]) == (True, [])
    beside = made[form].with_name(made[form].name + BESIDE_ENDING)
    assert beside.exists() == (form in BESIDE)
    if form in BESIDE:
        assert again(beside, out, cache) == DONE


def test_a_recipe_says_what_was_chosen_of_several(made: dict[str, Path]) -> None:
    recipe = read_recipe(made["svg"])
    assert isinstance(recipe, Recipe)
    assert recipe.view == {"run": RUN, "methods": ["contribution-folded"], "ks": ["40"]} or set(recipe.view) >= {
        "methods",
        "ks",
    }
    assert recipe.layout == Layout("nature", "double")
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_one_panel_of_a_page_is_made_again(cache: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "panel.svg", tmp_path / "again.svg"
    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path])
        whole = draw(FIGURES["specificity"], store, View(run=RUN))
        save_figure(whole.where("is_control", True), path, Layout())
    assert again(path, out, cache) == DONE
    assert out.read_bytes() == path.read_bytes()
    assert "units of each noun" not in out.read_text()


def test_a_cache_that_differs_is_told(made: dict[str, Path], cache: Path, tmp_path: Path, capsys) -> None:
    other = tmp_path / "other"
    shutil.copytree(cache, other)
    with duckdb.connect(str(other / "mmn.duckdb")) as connection:
        connection.execute("UPDATE invariance SET ratio = ratio / 2 WHERE kind = 'region'")
    assert again(made["csv"], tmp_path / "f.csv", other) == SOME_FAILED
    told = capsys.readouterr().err
    assert "not the same file" in told
    assert "ratio" in told
    assert "lemma" not in told, "what is the same is not named"


def test_a_run_that_is_not_there_is_told(made: dict[str, Path], tmp_path: Path, capsys) -> None:
    assert again(made["svg"], tmp_path / "f.svg", tmp_path / "empty") == BAD_INPUT
    assert RUN in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "why"), [(["--preset", "acl"], "--preset"), (["--ks", "3"], "--ks"), (["--no-control"], "--no-control")]
)
def test_a_recipe_says_it_all(
    more: list[str], why: str, made: dict[str, Path], cache: Path, tmp_path: Path, capsys
) -> None:
    assert again(made["svg"], tmp_path / "f.svg", cache, *more) == BAD_INPUT
    assert f"leave {why} out" in capsys.readouterr().err


def test_a_recipe_is_of_one_format(made: dict[str, Path], cache: Path, tmp_path: Path, capsys) -> None:
    assert again(made["svg"], tmp_path / "f.pdf", cache) == BAD_INPUT
    assert "FILE.svg" in capsys.readouterr().err


def damaged(values: dict, **changed: object) -> str:
    return json.dumps(values | changed)


HOSTILE = {
    "empty": lambda _text: b"",
    "no recipe": lambda _text: b"<svg xmlns='http://www.w3.org/2000/svg'></svg>",
    "bare pdf": lambda _text: b"%PDF-1.7\n%%EOF",
    "open pdf": lambda _text: b"%PDF-1.7\n/MmnRecipe (" + b"\\(" * 1_000_000,
    "png that lies of its length": lambda _text: b"\x89PNG\r\n\x1a\n" + b"\xff\xff\xff\xfftEXtmmn-recipe\0{",
    "png of nothing": lambda _text: b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0abcd0000" * 100_000,
    "nested": lambda _text: b"[" * 500_000,
    "nested recipe": lambda _text: b'{"mmn_recipe": ' + b"[" * 90_000 + b"]" * 90_000 + b"}",
    "entities": lambda _text: b'<!DOCTYPE a [<!ENTITY b "c">]><svg><metadata id="mmn-recipe">&b;</metadata></svg>',
    "long": lambda text: damaged(json.loads(text), figure="x" * 1_000_000).encode(),
    "no figure of ours": lambda text: damaged(json.loads(text), figure="\x1b[31mnone").encode(),
    "other fields": lambda text: damaged(json.loads(text), command="rm").encode(),
    "a path for a run": lambda text: damaged(json.loads(text), run_id="../../etc").encode(),
    "a view of nothing": lambda text: damaged(json.loads(text), view={"nothing": 1}).encode(),
    "a view that is a list": lambda text: damaged(json.loads(text), view=[1]).encode(),
    "a layout of nothing": lambda text: damaged(
        json.loads(text), layout={"preset": "vogue", "width": 1, "ppi": 1}
    ).encode(),
    "a width of lists": lambda text: damaged(
        json.loads(text), layout={"preset": "acl", "width": [], "ppi": 300}
    ).encode(),
    "rows below zero": lambda text: damaged(json.loads(text), n_rows=-1).encode(),
    "a panel of objects": lambda text: damaged(json.loads(text), kept=["method", [{}]]).encode(),
    "a newer format": lambda text: damaged(json.loads(text), mmn_recipe=99).encode(),
    "not a number": lambda text: text.replace('"n_rows": ', '"n_rows": NaN, "x": ').encode(),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_lies_is_refused_in_one_line(
    kind: str, made: dict[str, Path], cache: Path, tmp_path: Path, capsys
) -> None:
    path = tmp_path / "hostile.json"
    path.write_bytes(HOSTILE[kind](read_recipe(made["json"]).to_json()))
    assert again(path, tmp_path / "f.json", cache) == BAD_INPUT
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert len(told) < 1000
    assert "\x1b" not in told
    assert not (tmp_path / "f.json").exists()


def test_pipes_links_and_what_is_not_there_are_refused(
    made: dict[str, Path], cache: Path, tmp_path: Path, capsys
) -> None:
    os.mkfifo(tmp_path / "pipe.svg")
    (tmp_path / "link.svg").symlink_to(made["svg"])
    (tmp_path / "alone.csv").write_text("a\n1\n")
    for name in ("pipe.svg", "link.svg", "gone.svg", "alone.csv"):
        assert again(tmp_path / name, tmp_path / "f.svg", cache) == BAD_INPUT
        assert capsys.readouterr().err.count("\n") == 1


def test_a_pdf_has_its_fonts_words_and_recipe_by_poppler(made: dict[str, Path]) -> None:
    if not shutil.which("pdffonts"):
        pytest.skip("needs pdffonts: apt-get install poppler-utils")
    asked = {"fonts": ["pdffonts"], "info": ["pdfinfo", "-custom"], "text": ["pdftotext"]}
    ends = {"text": ["-"]}
    said = {
        name: subprocess.run(
            [*command, str(made["pdf"]), *ends.get(name, [])], capture_output=True, text=True, check=True
        )
        for name, command in asked.items()
    }
    assert all(one.stderr == "" for one in said.values()), "a file that poppler finds nothing wrong with"
    fonts = said["fonts"].stdout.splitlines()[2:]
    assert fonts
    assert all(re.search(r" yes yes yes +\d+ +0$", line) for line in fonts), "embedded, subset, with their letters"
    assert "concept by concept" in said["text"].stdout
    assert f'"run_id": "{RUN}"' in said["info"].stdout
    assert "Date" not in said["info"].stdout


def test_a_pdf_may_hold_any_text() -> None:
    text = '{"a": "(b) \\\\ )("}'
    table = b"xref\n0 2\n0000000000 65535 f\r\n0000000009 00000 n\r\ntrailer\n<< /Root 1 0 R >>\n"
    plain = b"%PDF-1.7\n1 0 obj\n<<\n>>\nendobj\n" + table + b"startxref\n30\n%%EOF"
    assert pdf.recipe_text(pdf.ordered(plain, {"MmnRecipe": text})) == text


@pytest.mark.parametrize(("text", "em"), [("iiii", 4 * 0.222), ("WWWW", 4 * 0.944), ("95 % of", 3.391)])
def test_widths_are_those_of_the_font(text: str, em: float) -> None:
    assert width_of(text, 10) == pytest.approx(10 * em, rel=0.01)
    assert width_of(text, 10, bold=True) >= width_of(text, 10)


def test_lines_are_no_wider_than_asked_and_lose_nothing() -> None:
    text = "means over a picture's concepts, then pictures: " + "x" * 80
    lines = broken(text, 100, 7)
    assert all(width_of(line, 7) <= 100 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")

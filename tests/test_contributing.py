"""What CONTRIBUTING.md says of adding a study, a figure and a score is done as it says, in a package of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"```python\n# (\S+\.py)\n(.*?)```", re.DOTALL)
ADDED = """
import os, sys
sys.path[:0] = [{package!r}, {root!r}]
from mmn import names, studies
import squared_activation
studies.MODULES.append("noun_place.study")
names.METHODS[squared_activation.METHOD.name] = squared_activation.METHOD
"""  # the one line of a study, the one entry of a score


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of CONTRIBUTING.md, in a folder of their own."""
    folder = tmp_path_factory.mktemp("package")
    blocks = BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text())
    assert len(blocks) == 9, "study, tables, measure, command, queries, rows, figures, page, score"
    for name, text in blocks:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def cache(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a run that is scored by the added score, and measured by the added study; and what commands wrote.

    All in one interpreter, which takes longer to begin than any of them.
    """
    folder = tmp_path_factory.mktemp("cache")
    lines = (
        "score --model specimen --images gallery --limit 4 --methods contribution,activation-squared",
        "noun-place latest",
        f"export latest --table noun_place --out {folder / 'noun_place.csv'}",
        *(
            f"figure {name} --run latest --methods activation-squared --out {folder / name}.json"
            for name in ("noun-place", "layers")
        ),
    )
    run(
        package,
        f"""
from mmn.cli import main
for line in {lines!r}:
    assert main([*line.split(), "--cache", {str(folder)!r}]) == 0, line
""",
    )
    return folder


@pytest.fixture(scope="module")
def told(package: Path) -> str:
    """What the command line and the docs say of what there is."""
    return run(
        package,
        """
from mmn.cli import main
from mmn.studies.describe import figures_page
for words in (["--help"], ["score", "--help"], ["figure", "--help"]):
    try: main(words)
    except SystemExit: pass
print("THE PAGE OF FIGURES")
print(figures_page())
""",
    )


def run(package: Path, program: str) -> str:
    """What a program says in a fresh interpreter, where the study and the score were added."""
    words = [sys.executable, "-c", ADDED.format(package=str(package), root=str(ROOT)) + program]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_command_line_has_them(told: str) -> None:
    helps, _, _ = told.partition("THE PAGE OF FIGURES")
    assert "where nouns stand, and the layers of their top units" in helps
    assert "activation-squared" in helps
    assert "the layer of a noun's top unit, by its place in the caption" in helps


def test_the_table_is_in_the_database(cache: Path) -> None:
    lines = (cache / "noun_place.csv").read_text().splitlines()
    assert lines[0] == "run_id,image_id,noun,method,place,layer"
    assert {line.split(",")[3] for line in lines[1:]} == {"contribution", "activation-squared"}


@pytest.mark.parametrize("name", ["noun-place", "layers"])
def test_its_figure_and_others_draw_the_added_score(cache: Path, name: str) -> None:
    spec = json.loads((cache / f"{name}.json").read_text())
    assert {row["method"] for rows in spec["datasets"].values() for row in rows if "method" in row} == {
        "activation-squared"
    }


def test_its_page_shows_the_figure(package: Path, cache: Path) -> None:
    shown = run(
        package,
        f"""
os.environ["MMN_CACHE"] = {str(cache)!r}
from app import resources
from pathlib import Path
resources.BUNDLED_RUNS = ()
from streamlit.testing.v1 import AppTest
at = AppTest.from_file({str(ROOT / "app" / "main.py")!r}, default_timeout=60).run()
at = at.switch_page({str(package / "pages" / "noun_place.py")!r}).run()
assert not at.exception, at.exception
print(at.title[0].value, "|", at.get("vega_lite_chart")[0].proto.spec)
""",
    )
    assert shown.startswith("Noun place | ")
    assert "Layer of a noun's top unit, by its place in the caption" in shown


def test_the_docs_list_it(told: str) -> None:
    _, _, listed = told.partition("THE PAGE OF FIGURES")
    assert "noun-place" in listed
    assert "The layer of a noun's top unit, by its place in the caption" in listed

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
    """A cache with a run that is scored by the added score, and measured by the added study."""
    folder = tmp_path_factory.mktemp("cache")
    mmn(package, folder, "score --model specimen --images gallery --limit 4 --methods contribution,activation-squared")
    mmn(package, folder, "noun-place latest")
    return folder


def run(package: Path, program: str) -> str:
    """What a program says in a fresh interpreter, where the study and the score were added."""
    words = [sys.executable, "-c", ADDED.format(package=str(package), root=str(ROOT)) + program]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def mmn(package: Path, cache: Path, line: str) -> str:
    return run(package, f"from mmn.cli import main\nsys.exit(main([*{line.split()!r}, '--cache', {str(cache)!r}]))")


def test_the_command_line_has_them(package: Path, cache: Path) -> None:
    helps = run(
        package,
        "from mmn.cli import main\nfor words in (['--help'], ['score', '--help'], ['figure', '--help']):\n"
        "    try: main(words)\n    except SystemExit: pass\n",
    )
    assert "where nouns stand, and the layers of their top units" in helps
    assert "activation-squared" in helps
    assert "the layer of a noun's top unit, by its place in the caption" in helps


def test_the_table_is_in_the_database(package: Path, cache: Path) -> None:
    out = cache / "noun_place.csv"
    mmn(package, cache, f"export latest --table noun_place --out {out}")
    lines = out.read_text().splitlines()
    assert lines[0] == "run_id,image_id,noun,method,place,layer"
    assert {line.split(",")[3] for line in lines[1:]} == {"contribution", "activation-squared"}


@pytest.mark.parametrize("name", ["noun-place", "layers"])
def test_its_figure_and_others_draw_the_added_score(package: Path, cache: Path, name: str) -> None:
    out = cache / f"{name}.json"
    mmn(package, cache, f"figure {name} --run latest --methods activation-squared --out {out}")
    spec = json.loads(out.read_text())
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


def test_the_docs_list_it(package: Path) -> None:
    listed = run(package, "from mmn.studies.describe import figures_page\nprint(figures_page())")
    assert "noun-place" in listed
    assert "The layer of a noun's top unit, by its place in the caption" in listed

"""The program from Python: the script of its page runs, and the page says what is there."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mmn
from mmn.cli import main
from mmn.specimen import RUN_PATHS
from mmn.studies.describe import figures_page

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "api.md").read_text()
FUNCTIONS = ("load_model", "score", "open_cache", "draw", "save")


def python_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_script_of_the_page_runs(tmp_path: Path) -> None:
    script = python_blocks()[0]
    assert 8 <= len([line for line in script.splitlines() if line.strip()]) <= 12, "about ten lines"
    (tmp_path / "script.py").write_text(script)
    environment = {name: value for name, value in os.environ.items() if name != "MMN_CACHE"}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "status='complete', n_images=2, n_failed=0" in ended.stdout
    assert (tmp_path / "layers.svg").read_text().startswith("<svg")
    assert (tmp_path / "cache" / "mmn.duckdb").is_file()


@pytest.mark.parametrize("name", [*FUNCTIONS, "RunSummary", "Neuron"])
def test_the_page_has_every_signature(name: str) -> None:
    told = f"{name}{inspect.signature(getattr(mmn, name))}"
    told = re.sub(r"(: |-> )'([^']*)'", r"\1\2", told).removesuffix(" -> None")
    assert f"{told}\n" in "".join(python_blocks())


def test_the_page_names_all_that_is_public() -> None:
    named = set(re.findall(r"^(?:- `)?(\w+)", "".join(python_blocks()[1:]) + PAGE, re.MULTILINE))
    assert set(mmn.__all__) - named == set()


def test_every_public_name_is_there_and_no_other() -> None:
    assert set(mmn.__all__) <= set(dir(mmn))
    assert all(getattr(mmn, name) is not None for name in mmn.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = mmn.no_such_name


def test_a_script_and_the_command_score_the_same_run(
    checkpoint: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = mmn.score(mmn.load_model(str(checkpoint), device="cpu"), pictures, tmp_path, limit=2, top_k=20)
    assert (scored.status, scored.n_images) == ("complete", 2)
    where = ["--images", str(pictures), "--cache", str(tmp_path)]
    words = ["score", "--model", str(checkpoint), *where, "--limit", "2", "--top-k", "20", "--device", "cpu"]
    assert main(words) == 0
    assert capsys.readouterr().out.startswith(scored.run_id)
    with mmn.open_cache(tmp_path) as cache:
        assert len(cache.table(scored.run_id, "score")) == scored.n_scores
        assert len(cache.runs()) == 1 + len(RUN_PATHS), "this one, and those that come along"


def test_one_picture_that_does_not_open_is_no_success(tiny, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    scored = mmn.score(tiny, tmp_path / "broken.png", tmp_path / "cache")
    assert (scored.status, scored.n_images, scored.n_failed) == ("failed", 0, 1)


def test_what_is_wrong_is_an_error_of_ours(tiny, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(mmn.MmnError, match="no method 'magic'"):
        mmn.score(tiny, pictures, tmp_path, methods="magic")
    with mmn.open_cache(tmp_path) as cache:
        with pytest.raises(mmn.MmnError, match="does not read --edit"):
            mmn.draw("sensitivity", cache, mmn.View(run="latest", edit="abc"))
        with pytest.raises(mmn.MmnError, match="no figure 'magic'"):
            mmn.draw("magic", cache, mmn.View(run="latest"))
        drawn = mmn.draw("sensitivity", cache, mmn.View(run="latest"))
    with pytest.raises(mmn.MmnError, match="not a format"):
        mmn.save(drawn, tmp_path / "figure.gif")
    assert mmn.save(drawn, tmp_path / "figure.csv").read_text().startswith("method,")


def test_the_page_of_figures_is_what_the_registry_says() -> None:
    committed = (ROOT / "docs" / "figures.md").read_text()
    assert committed == figures_page(), "run python -m mmn.studies.describe > docs/figures.md"

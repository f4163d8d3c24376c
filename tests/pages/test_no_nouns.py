"""A run whose captions hold no noun: every command that looks at nouns and every page say so, in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mmn.cli import main
from mmn.scores import batch
from mmn.specimen import RUN_PATHS
from mmn.store import Store
from mmn.studies.registry import FIGURES
from mmn.units.kept import kept_sets
from tests.pages.test_every_page import PAGES, assert_fine

SAYS = "no caption of this run holds a noun (its 3 pictures)"
AGAIN = [
    "annotate latest",
    "modules latest",
    "lens latest",
    "domains latest",
    "image-tokens latest",
    "hallucination latest",
    "patchscopes latest",
    "projector latest",
    "specificity latest",
    "sensitivity latest",
    "invariance latest --kind region",
    "invariance latest --kind cross-image",
    "degrade latest --kind ablate",
    "degrade latest --kind perturb --preset p2",
    "edit latest --noun dog --to cat",
    "circuits latest",
    "dictionaries latest",
    "shift latest latest",
]
ABOUT_NOUNS = ("concept", "score", "budget", "neuron", "field", "lens", "invariance", "specificity", "effect", "edit")


@pytest.fixture(scope="module")
def scored(pictures: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a run of three pictures whose captions hold no noun."""
    cache = tmp_path_factory.mktemp("nounless") / "cache"
    words = ["score", "--model", checkpoint, "--images", pictures, "--cache", cache, "--limit", "3", "--annotate", "3"]
    words += ["--max-new-tokens", "4", "--progress", "none"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(batch, "find_concepts", lambda *_given: ())
        assert main(list(map(str, words))) == 0
    with Store.open(cache) as store:  # once, and not for every copy
        store.load_new_shards([store.runs_path, *RUN_PATHS])
    return cache


def refused(command: str, cache: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """The one line that a command says when it exits with 2."""
    capfd.readouterr()
    assert main([*command.split(), "--cache", str(cache)]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize("command", AGAIN)
def test_a_command_says_that_no_caption_holds_a_noun(command: str, cache: Path, capfd) -> None:
    assert SAYS in refused(f"{command} --progress none", cache, capfd)


@pytest.mark.parametrize("figure", [name for name, figure in FIGURES.items() if not figure.subject])
def test_a_figure_says_that_no_caption_holds_a_noun(figure: str, cache: Path, capfd, tmp_path: Path) -> None:
    out = tmp_path / "a.svg"
    assert SAYS in refused(f"figure {figure} --run latest --out {out}", cache, capfd)
    assert not out.exists()


@pytest.mark.parametrize("command", ["report latest --out {}/a.html", "units save mine --run latest"])
def test_what_is_made_of_a_run_says_that_no_caption_holds_a_noun(command: str, cache: Path, capfd, tmp_path) -> None:
    assert SAYS in refused(command.format(tmp_path), cache, capfd)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert kept_sets(cache).sets == ()


def test_tables_of_nouns_are_refused_and_captions_exported(cache: Path, capfd, tmp_path: Path) -> None:
    for table in ABOUT_NOUNS:
        assert SAYS in refused(f"export --run latest --table {table} --out {tmp_path / 'a.csv'}", cache, capfd)
    for table, n_rows in (("run", 1), ("image", 3), ("caption", 3), ("failure", 0)):
        command = f"export --run latest --table {table} --out {tmp_path / 'a.csv'} --json --cache {cache}"
        capfd.readouterr()
        assert main(command.split()) == 0
        assert json.loads(capfd.readouterr().out)["n_rows"] == n_rows


def test_scoring_says_so_in_the_end(scored: Path, pictures: Path, checkpoint: Path, capfd) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(batch, "find_concepts", lambda *_given: ())
        words = ["score", "--model", checkpoint, "--images", pictures, "--cache", scored, "--limit", "3"]
        assert main([*map(str, words), "--max-new-tokens", "4", "--progress", "none"]) == 0
    assert SAYS in capfd.readouterr().out


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_that_no_caption_holds_a_noun(page: str, scored: Path, empty_cache: Path, open_app) -> None:
    shutil.copytree(scored / "runs", empty_cache / "runs")
    with Store.open(empty_cache) as store:
        store.load_new_shards([store.runs_path])
    at = open_app(page)
    assert_fine(at)
    assert any("no caption of this run holds a noun" in one.value.lower() for one in at.info)
    if page not in ("image", "score", "figures", "runs", "sql", "benchmark"):  # of all runs, of none, of captions
        assert any(SAYS in one.value[:1].lower() + one.value[1:] for one in at.main.info)

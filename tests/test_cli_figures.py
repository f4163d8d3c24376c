"""Every chart of the dashboard can be had from a terminal, by the same filters, or says in one line why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmn.cli import BAD_INPUT, DONE, main
from mmn.cli.figure import DRAW
from mmn.figures import FIGURES
from mmn.store import Store
from tests.pages.filled import fill_whole

RUN = "5e6f"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a run in which nothing is missing."""
    path = tmp_path_factory.mktemp("cache")
    fill_whole(path)
    assert main(["runs", "--json", "--cache", str(path)]) == DONE
    return path


@pytest.fixture(scope="module")
def words(cache: Path) -> dict[str, str]:
    """What each figure needs to be told."""
    with Store.open(cache) as store:
        picture = store.pictures(RUN).iloc[0]
        nouns = store.picture_concepts(RUN, picture["image_id"])["noun"].tolist()
        unit = store.table(RUN, "neuron").iloc[0]
    of_noun = f"--image {picture['image_id'][:10]} --noun {nouns[0]}"
    return {
        "layers": "--quantity share --layers 1-2",
        "comparison": "--methods contribution,activation",
        "budget": f"{of_noun} --rival {nouns[1]}",
        "top-share": of_noun,
        "tokens": f"--neuron L{unit['layer']}.u{unit['unit']}",
        "perturbation": "--methods contribution",
        "ablated-layers": "--methods contribution --ks 3",
    }


def test_every_figure_can_be_drawn() -> None:
    assert set(DRAW) == set(FIGURES)


@pytest.mark.parametrize("name", list(FIGURES))
def test_figure(name: str, cache: Path, words: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "figure.json"
    line = f"figure {name} --run {RUN} --out {out} --cache {cache} {words.get(name, '')}"
    assert main(line.split()) == DONE
    spec = json.loads(out.read_text())
    assert any(len(rows) > 1 for rows in spec["datasets"].values())


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("comparison", "--methods A,B"),
        ("budget", "--image ID"),
        ("budget --image 00000000 --noun dog", "no picture"),
        ("tokens", "--neuron"),
        ("tokens --neuron five", "L14.u2019"),
        ("tokens --neuron L99.u1", "L99"),
        ("nothing", "there are layers"),
        ("layers --ks 5 --shares .1", "not both"),
        ("layers --ks five", "not a number"),
    ],
)
def test_what_is_missing_is_said(
    line: str, why: str, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"figure {line} --run {RUN} --out {tmp_path / 'f.svg'} --cache {cache}"
    assert main(words.split()) == BAD_INPUT
    assert why in capsys.readouterr().err


def test_a_noun_that_the_picture_lacks_is_named_with_those_it_has(
    cache: Path, words: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = words["top-share"].split()[1]
    line = f"figure budget --image {image} --noun unicorn --run {RUN} --out {tmp_path / 'f.svg'} --cache {cache}"
    assert main(line.split()) == BAD_INPUT
    assert "unicorn" in capsys.readouterr().err

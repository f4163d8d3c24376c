"""Every chart of the dashboard can be had from a terminal, by the same filters, or says in one line why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmn.cli import BAD_INPUT, DONE, main
from mmn.figures.figure import draw
from mmn.names import RANDOM
from mmn.store import Store
from mmn.store.pictures import PictureQueries
from mmn.studies.registry import FIGURES
from mmn.studies.sensitivity.queries import SensitivityQueries
from mmn.view import View, flag_of
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
        picture = store.ask(PictureQueries).pictures(RUN).iloc[0]
        nouns = store.ask(PictureQueries).concepts(RUN, picture["image_id"])["noun"].tolist()
        unit = store.table(RUN, "neuron").iloc[0]
    of_noun = f"--image {picture['image_id'][:10]} --noun {nouns[0]}"
    return {
        "layers": "--quantity share --layers 1-2",
        "comparison": "--methods contribution,activation",
        "budget": f"{of_noun} --rival {nouns[1]}",
        "top-share": of_noun,
        "tokens": f"--neuron L{unit['layer']}.u{unit['unit']}",
        "perturbation": "--methods contribution",
        "scaling": "--methods contribution",
        "ablated-layers": "--methods contribution --ks 3",
    }


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


def drawn(line: str, cache: Path, tmp_path: Path) -> dict[str, Any]:
    """The specification of a figure that must succeed."""
    out = tmp_path / "figure.json"
    assert main(f"figure {line} --run {RUN} --out {out} --cache {cache}".split()) == DONE
    return json.loads(out.read_text())


def rows_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for rows in spec["datasets"].values() for row in rows]


def test_a_filter_that_a_figure_does_not_read_is_refused_instead_of_ignored(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line, flag in (("fields --concepts dog", "--concepts"), ("invariance --shares .1", "--shares")):
        assert main(f"figure {line} --run {RUN} --out {tmp_path / 'f.svg'} --cache {cache}".split()) == BAD_INPUT
        assert f"does not read {flag}" in capsys.readouterr().err


def test_a_panel_is_the_figure_of_a_view_with_its_value_alone(cache: Path) -> None:
    with Store.open(cache) as store:
        for name, field in (("sensitivity", "metric"), ("layers", "methods")):
            whole = draw(FIGURES[name], store, View(run=RUN))
            parts = dict(whole.parts(RANDOM))
            assert len(parts) > 1
            for value, part in parts.items():
                assert getattr(part.asked.view, field) == (value,)
                alone = draw(FIGURES[name], store, part.asked.view)
                assert alone.rows.data.reset_index(drop=True).equals(part.rows.data.reset_index(drop=True))


def test_help_names_every_figure_its_question_and_its_filters(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["figure", "--help"])
    told = capsys.readouterr().out
    assert not [line for line in told.splitlines() if line.endswith("-")]  # no name is broken at its hyphen
    for figure in FIGURES.values():
        listed = told.partition(f"\n{figure.name} ")[2].partition("\n\n")[0]
        assert figure.question in listed, figure.name
        for name in figure.takes:
            assert flag_of(name) in listed, (figure.name, name)
            assert f"  {flag_of(name)}" in told.partition("options:")[2], name


def test_layers_of_one_score_have_the_page_s_random_control(cache: Path, tmp_path: Path) -> None:
    shown = rows_of(drawn("layers --methods contribution", cache, tmp_path))
    assert all(row["control_mean_units"] is not None for row in shown)
    bare = rows_of(drawn("layers --methods contribution --no-control", cache, tmp_path))
    assert all(row["control_mean_units"] is None for row in bare)


def test_layers_of_interpretable_units(cache: Path, tmp_path: Path) -> None:
    line = "layers --methods contribution --ks 20 --quantity distinct"
    total = {}
    for units in ("all", "interpretable", "not-interpretable"):
        spec = drawn(f"{line} --units {units}", cache, tmp_path)
        total[units] = sum(row["n_units"] for row in rows_of(spec))
        assert ("units only" in json.dumps(spec["title"])) == (units != "all")
    assert total["interpretable"] + total["not-interpretable"] == total["all"]
    assert min(total.values()) > 0


def test_count_is_still_the_distinct_units(cache: Path, tmp_path: Path) -> None:
    specs = [drawn(f"layers --methods contribution --quantity {one}", cache, tmp_path) for one in ("count", "distinct")]
    assert specs[0] == specs[1]


def test_sensitivity_by_one_of_the_measures(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(cache) as store:
        metrics = store.ask(SensitivityQueries).measured(RUN)[1]
    assert len(metrics) > 1
    spec = drawn(f"sensitivity --metric {metrics[1]}", cache, tmp_path)
    assert {row["metric"] for row in rows_of(spec)} == {metrics[1]}
    line = f"figure sensitivity --metric bleu --run {RUN} --out {tmp_path / 'f.svg'} --cache {cache}"
    assert main(line.split()) == BAD_INPUT
    assert metrics[0] in capsys.readouterr().err


def test_specificity_of_the_most_frequent_concepts(cache: Path, tmp_path: Path) -> None:
    for most in (2, 3):
        spec = drawn(f"specificity --most {most}", cache, tmp_path)
        assert len({row["unit_lemma"] for row in rows_of(spec) if "unit_lemma" in row}) == most


def test_what_is_taken_of_several_is_said(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "f.json"
    line = f"figure specificity --run {RUN} --out {out} --cache {cache} --json"
    assert main(line.split()) == DONE
    told = capsys.readouterr()
    assert "score contribution-folded; there are also contribution, activation (--methods)" in told.err
    assert json.loads(told.out)["taken"] == {"score": "contribution-folded"}
    assert main(f"{line} --methods activation".split()) == DONE
    told = capsys.readouterr()
    assert told.err == "", "nothing to say where it was asked for"


def test_budget_beside_the_grey_picture(cache: Path, words: dict[str, str], tmp_path: Path) -> None:
    of_noun = words["top-share"]
    noun = of_noun.split()[-1]
    spec = drawn(f"budget {of_noun} --grey", cache, tmp_path)
    assert {row["noun"] for row in rows_of(spec)} == {noun, f"{noun}, grey picture"}

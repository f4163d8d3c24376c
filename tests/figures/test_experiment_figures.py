"""Charts of invariance, specificity and sensitivity: from a terminal in every format, with n, floors and controls."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mmn.cli import BAD_INPUT, DONE, main
from mmn.figures.export import FORMATS
from mmn.figures.theme import method_colours
from mmn.figures.wording import sample_of_each
from mmn.names import METHODS
from mmn.store import Store
from mmn.store.pictures import PictureQueries
from mmn.studies.registry import FIGURES
from mmn.studies.specificity.queries import SpecificityQueries
from tests.figures.charts import CHARTS
from tests.pages.filled import fill_whole

RUN = {"model": "specimen", "images": "gallery", "n_layers": 4, "d_mlp": 64}
SAYS = {  # what each figure must tell beside its numbers
    "invariance": ["n = 20 pictures, 20 concepts", "another noun", "chance"],
    "invariance-concepts": ["6 concepts", "another noun", "chance"],
    "invariance-layers": ["n = 20 pictures", "random units"],
    "cross-image": ["4 draws of 5 pictures", "not a confidence interval", "random units"],
    "cross-image-layers": ["n = 8 concepts", "random"],
    "specificity": ["n = 20 pictures", "found on another picture", "their control", "survive Benjamini"],
    "specificity-summary": ["n = 20 pictures, 40 concepts", "random unit", "identities shuffled"],
    "specificity-highest": ["n = 20 pictures, 40 concepts", "one in so many", "identities shuffled", "by selection"],
    "selectivity": ["20 units a class, 5 held-out pictures", "their control", "survive Benjamini"],
    "sensitivity": ["n = 20 pictures, 40 concepts", "another picture's units", "over a grey picture"],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cache")
    fill_whole(path)
    with Store.open(path) as store:
        store.load_new_shards([store.runs_path])
    return path


def draw(cache: Path, words: str, out: Path) -> int:
    return main(f"figure {words} --run 5e6f --out {out} --cache {cache}".split())


@pytest.mark.parametrize("name", SAYS)
def test_figure_from_a_terminal_tells_n_and_its_control(name: str, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.json"
    assert draw(cache, name, out) == DONE
    spec = out.read_text()
    said = " ".join([*json.loads(spec)["title"]["subtitle"], spec])
    assert [words for words in SAYS[name] if words not in said] == []
    assert any(len(rows) > 1 for rows in json.loads(spec)["datasets"].values())


@pytest.mark.parametrize("name", ["invariance", "specificity", "sensitivity"])
@pytest.mark.parametrize("form", FORMATS)
def test_every_format(name: str, form: str, cache: Path, tmp_path: Path) -> None:
    code = draw(cache, f"{name} --width single", tmp_path / f"f.{form}")
    if form == "tex" and not FIGURES[name].table:
        assert code == BAD_INPUT
        assert list(tmp_path.iterdir()) == []
        return
    assert code == DONE
    assert (tmp_path / f"f.{form}").stat().st_size > 100


def test_picture_of_specificity_has_its_nouns_in_the_caption_s_order(cache: Path, tmp_path: Path) -> None:
    with Store.open(cache) as store:
        picture = store.ask(SpecificityQueries).pictures("5e6f", "contribution").iloc[0]
        nouns = store.ask(PictureQueries).concepts("5e6f", picture["image_id"])["noun"].tolist()
    assert (
        draw(cache, f"specificity --image {picture['image_id'][:12]} --methods contribution", tmp_path / "f.json")
        == DONE
    )
    spec = json.loads((tmp_path / "f.json").read_text())
    assert spec["spec"]["layer"][0]["encoding"]["x"]["sort"] == nouns


def test_units_chosen_on_the_picture_stand_beside_their_null(cache: Path, tmp_path: Path) -> None:
    assert draw(cache, "specificity --methods contribution --found-on same", tmp_path / "same.json") == DONE
    assert draw(cache, "specificity --methods contribution", tmp_path / "held-out.json") == DONE
    same, held_out = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("same", "held-out"))
    assert "found on the same picture (P2)" in " ".join(same["title"]["subtitle"])

    def diagonal(spec: dict, is_control: bool) -> set[float]:
        (rows,) = spec["datasets"].values()
        own = [row for row in rows if row["unit_lemma"] == row["lemma"] and row["is_control"] == is_control]
        return {round(row["share"], 6) for row in own}

    assert diagonal(same, False) == diagonal(same, True) == {1.0}, "the null's diagonal is as dark: it is selection"
    assert diagonal(held_out, False) == {0.8}
    assert max(diagonal(held_out, True)) <= 0.2


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("cross-image --methods contribution,activation", "one score"),
        ("invariance-layers --ks 5", "measured were 1, 10, 40"),
        ("specificity --layers x", "FIRST-LAST"),
        ("sensitivity --methods unknown", "has no sensitivity of unknown"),
        ("invariance --concepts unicorn", "for the nouns unicorn"),
    ],
)
def test_what_is_missing_is_said(
    line: str, why: str, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert draw(cache, line, tmp_path / "f.svg") == BAD_INPUT
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("name", SAYS)
def test_missing_column_is_an_error_and_not_an_empty_chart(name: str) -> None:
    rest: dict[str, tuple[str | int, ...]] = {"cross-image": ("a", 1), "cross-image-layers": ("a", 1, 5)}
    rest |= {"invariance-concepts": ("a", 1), "invariance-layers": ("a", 1)}
    more = rest.get(name, ("a",))
    with pytest.raises(AssertionError, match="missing columns"):
        CHARTS[name](pd.DataFrame({"k": [1]}), {"model": "m", "images": "i", "n_layers": 2, "d_mlp": 8}, *more)


def test_a_score_has_one_colour_wherever_it_is_drawn() -> None:
    names = list(METHODS)
    assert method_colours(names)[::-1] == method_colours(names[::-1])
    assert len(set(method_colours(names))) == len(names)
    assert method_colours(["random-matched:activation"]) == method_colours(["random-matched"])
    assert method_colours(["activation-minus-blank"]) != method_colours(["activation"])


def test_the_sample_of_each_line_is_a_span_where_they_differ() -> None:
    assert sample_of_each([20, 20], [41, 41]) == "n = 20 pictures, 41 concepts each"
    assert sample_of_each([12, 20], [1, 1]) == "n = 12–20 pictures, 1 concept each"
    assert sample_of_each([1], [3]) == "n = 1 picture, 3 concepts"


def crossed(*n_draws: int) -> pd.DataFrame:
    rows = [
        {"noun": f"noun {number}", "ratio": 0.5, "ratio_low": low, "ratio_high": high, "n_draws": n}
        for number, n in enumerate(n_draws)
        for low, high in [(0.4, 0.6) if n > 1 else (None, None)]
    ]
    return pd.DataFrame(rows).astype({"ratio_low": float, "ratio_high": float}).assign(floor_random=0.1, n=5)


def across(data: pd.DataFrame) -> dict[str, Any]:
    return CHARTS["cross-image"](data, RUN, "contribution", 10).to_dict()


def test_concepts_with_a_single_draw_are_told_and_drawn_without_a_line() -> None:
    spec = across(crossed(5, 3, 1))
    told = spec["title"]["subtitle"]
    assert "3 concepts: 2 with 3–5 draws of 5 pictures, 1 with a single draw" in told[0]
    assert "no line: a single draw" in told[1]
    rows = [row for rows in spec["datasets"].values() for row in rows if row.get("concept") == "noun 2"]
    assert [(row["ratio_low"], row["range"]) for row in rows] == [(None, "a single draw")]
    assert any(layer.get("transform") == [{"filter": "isValid(datum.ratio_low)"}] for layer in spec["layer"])
    assert "each with a single draw of 5 pictures" in across(crossed(1, 1))["title"]["subtitle"][0]
    assert "2 concepts, each with 5 draws of 5 pictures" in across(crossed(5, 5))["title"]["subtitle"][0]


def test_concepts_of_few_pictures_have_no_line_and_say_why() -> None:
    rows = pd.DataFrame(
        {
            "lemma": ["dog", "cat"],
            "ratio": [0.5, 0.6],
            "ratio_low": [0.4, None],
            "ratio_high": [0.6, None],
            "floor_other_noun": 0.1,
            "floor_random": 0.01,
            "n_images": [20, 2],
        }
    )
    spec = CHARTS["invariance-concepts"](rows, RUN, "contribution", 10).to_dict()
    assert "2 concepts in 2–20 pictures each" in spec["title"]["subtitle"][0]
    assert "none for fewer than 8 pictures" in spec["title"]["subtitle"][1]
    words = {
        row["concept"]: row["ratio_interval"] for data in spec["datasets"].values() for row in data if "concept" in row
    }
    assert words == {"dog": "40.0 % to 60.0 %", "cat": "2 pictures are too few for an interval"}


def test_percentages_have_a_space_on_paper_as_in_sentences(cache: Path, tmp_path: Path) -> None:
    assert draw(cache, "invariance", tmp_path / "f.svg") == DONE
    svg = (tmp_path / "f.svg").read_text()
    assert "100\u00a0%" in svg
    assert "100%" not in svg

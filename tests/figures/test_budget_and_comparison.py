"""Charts of a logit's terms, of the share of top units, of two rankings, of a unit's tokens."""

import json

import pandas as pd
import pytest

from mmn.figures.export import DRAWN, chart_bytes
from mmn.studies.scoring.budget_figures import stacked_range
from tests.figures.charts import CHARTS

RUN = {"model": "specimen", "images": "gallery", "n_images": 20, "n_layers": 2, "d_mlp": 512}
TERMS = [("embedding", None, 0.5), ("attention", 0, 2.0), ("attention", 1, -1.0), ("ffn", 0, 1.0), ("ffn", 1, -0.5)]


def budget(*nouns: str) -> pd.DataFrame:
    return pd.DataFrame([(noun, *row) for noun in nouns for row in TERMS], columns=["noun", "term", "layer", "logit"])


def share() -> pd.DataFrame:
    return pd.DataFrame({"noun": "dog", "k": [1, 10], "share": [0.1, 0.4]})


def overlap() -> pd.DataFrame:
    ends = {"overlap_low": [0.0, 0.1, 0.4], "overlap_high": [0.1, 0.3, 0.6]}
    return pd.DataFrame({"k": [1, 10, 100], "overlap": [0.0, 0.2, 0.5], "chance": [0.001, 0.01, 0.1]} | ends)


CASES = {
    "budget": lambda: (CHARTS["budget"](budget("dog"), RUN, {"dog": 2.0}, "picture 1"), budget("dog")),
    "budget of two": lambda: (
        CHARTS["budget"](budget("dog", "cat"), RUN, {"dog": 2.0, "cat": 2.0}, "picture 1"),
        budget("dog", "cat"),
    ),
    "top-share": lambda: (CHARTS["top-share"](share(), RUN, "picture 1"), share()),
    "comparison": lambda: (CHARTS["comparison"](overlap(), RUN, "contribution and activation"), overlap()),
    "tokens": lambda: (
        CHARTS["tokens"](pd.DataFrame({"token": ["dog", " "], "logit": [2.0, 1.0]}), RUN, "L1.u2"),
        overlap(),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("form", DRAWN)
def test_every_chart_exports(name, form):
    chart, data = CASES[name]()
    assert len(chart_bytes(chart, data, form)) > 20


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("budget", lambda draw: draw(budget("dog").drop(columns="logit"), RUN, {"dog": 2.0}, "")),
        ("top-share", lambda draw: draw(share().drop(columns="share"), RUN, "")),
        ("comparison", lambda draw: draw(overlap().drop(columns="chance"), RUN, "")),
        ("tokens", lambda draw: draw(pd.DataFrame({"token": ["dog"]}), RUN, "L1.u2")),
    ],
)
def test_missing_column_is_an_error_and_not_an_empty_chart(name, call):
    with pytest.raises(AssertionError, match="missing columns"):
        call(CHARTS[name])


def test_budget_tells_the_residual_of_logit_and_terms():
    spec = CHARTS["budget"](budget("dog"), RUN, {"dog": 2.001}, "picture 1").to_dict()
    assert spec["title"]["subtitle"][1] == "dog: 2.00 logits, residual 1e-03"


def test_budget_without_biases_has_no_place_for_them():
    spec = CHARTS["budget"](budget("dog"), RUN, {"dog": 2.0}, "").to_dict()
    assert spec["encoding"]["x"]["scale"]["domain"] == ["embedding", "0", "1"]
    assert spec["encoding"]["color"]["scale"]["domain"] == ["embedding", "attention", "FFN units"]


def test_colour_of_a_term_does_not_depend_on_what_else_is_there():
    def colour(rows: pd.DataFrame) -> str:
        scale = CHARTS["budget"](rows, RUN, {"dog": 2.0}, "").to_dict()["encoding"]["color"]["scale"]
        return dict(zip(scale["domain"], scale["range"], strict=True))["attention"]

    rows = budget("dog")
    assert colour(rows) == colour(rows[rows["term"] == "attention"])


def test_range_holds_the_stacked_bars():
    assert stacked_range(budget("dog")) == (-1.5, 3.0)


def test_comparison_shows_chance_and_n():
    spec = CHARTS["comparison"](overlap(), RUN, "contribution and activation", "concepts: dog").to_dict()
    assert spec["title"]["subtitle"][0] == "specimen on gallery, n = 20 pictures, concepts: dog"
    assert "mean over a picture's concepts, then over pictures" in spec["title"]["subtitle"][1]
    assert "chance" in json.dumps(spec)

"""The layer distribution's chart: columns, controls, bars and lines."""

import pandas as pd
import pytest

from mmn.figures import FIGURES
from mmn.figures.layers import with_control
from mmn.figures.theme import ordered_colours
from mmn.figures.wording import k_text

RUN = {"model": "specimen", "images": "gallery", "n_images": 1, "n_layers": 6, "d_mlp": 512}


def rows(methods=("contribution", "random"), ks=(3, 43), n_layers=6) -> pd.DataFrame:
    grid = [(m, k, layer) for m in methods for k in ks for layer in range(n_layers)]
    data = pd.DataFrame(grid, columns=["method", "k", "layer"])
    return data.assign(n_units=[k * (layer + 1) for _, k, layer in grid], share=1 / n_layers)


def test_missing_column_is_an_error_and_not_an_empty_chart():
    with pytest.raises(AssertionError, match=r"missing columns: \['n_units'\]"):
        FIGURES["layers"](rows().drop(columns="n_units"), RUN)


def test_title_names_method_model_pictures_and_n():
    title = FIGURES["layers"](rows(), RUN, subset="concepts: dog").to_dict()["title"]
    assert title["text"] == "Distinct top units per layer, contribution"
    assert title["subtitle"] == ["specimen on gallery, n = 1 picture, concepts: dog", "circles: random control"]


def test_k_is_shown_as_number_and_share():
    assert [k_text(k, 3072) for k in (1, 43, 307, 3072)] == ["1 (0.033 %)", "43 (1.4 %)", "307 (10 %)", "3,072 (100 %)"]


def test_random_is_a_control_of_the_others_but_stands_alone_when_alone():
    assert set(with_control(rows(), 512)["method"]) == {"contribution"}
    assert with_control(rows(), 512)["control_n_units"].notna().all()
    assert set(with_control(rows(methods=("random",)), 512)["method"]) == {"random"}
    assert len(FIGURES["layers"](rows(methods=("contribution",)), RUN).to_dict()["layer"]) == 1, "no control scored"


def test_bars_for_few_layers_and_lines_for_many():
    def marks(chart) -> set[str]:
        return {layer["mark"]["type"] for layer in chart.to_dict()["layer"]}

    assert marks(FIGURES["layers"](rows(), RUN)) == {"bar", "point"}
    assert marks(FIGURES["layers"](rows(n_layers=40), RUN)) == {"line", "point"}


def test_a_panel_per_method_and_one_axis_for_all():
    spec = FIGURES["layers"](rows(methods=("contribution", "activation", "random")), RUN).to_dict()
    assert spec["facet"]["sort"] == ["contribution", "activation"]
    assert "resolve" not in spec


def test_ks_keep_their_numeric_order():
    spec = FIGURES["layers"](rows(ks=(1000, 43, 200)), RUN).to_dict()
    domain = spec["layer"][0]["encoding"]["color"]["scale"]["domain"]
    assert [label.split()[0] for label in domain] == ["43", "200", "1,000"]


@pytest.mark.parametrize("n", [1, 2, 3, 6, 9])
def test_ordered_colours(n: int):
    assert len(ordered_colours(n)) == n
    assert len(set(ordered_colours(n))) == min(n, 6)

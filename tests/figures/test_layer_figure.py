"""The layer distribution's chart: columns, controls, bars and lines."""

import re

import pandas as pd
import pytest

from mmn.figures.export import chart_bytes
from mmn.figures.theme import ordered_colours
from mmn.figures.wording import k_text
from mmn.studies.scoring.layer_figures import AXES, CONTROLS, highest, with_control
from tests.figures.charts import CHARTS

RUN = {"model": "specimen", "images": "gallery", "n_layers": 6, "d_mlp": 512}


def rows(methods=("contribution", "random"), ks=(3, 43), n_layers=6) -> pd.DataFrame:
    grid = [(m, k, layer) for m in methods for k in ks for layer in range(n_layers)]
    data = pd.DataFrame(grid, columns=["method", "k", "layer"])
    of_all = n_layers * (n_layers + 1) / 2
    return data.assign(
        n_units=[k * (layer + 1) for _, k, layer in grid],
        share=[(layer + 1) / of_all for _, _, layer in grid],
        mean_units=[k / n_layers for _, k, _ in grid],
        n_images=1,
    )


def test_missing_column_is_an_error_and_not_an_empty_chart():
    with pytest.raises(AssertionError, match=r"missing columns: \['n_units'\]"):
        CHARTS["layers"](rows().drop(columns="n_units"), RUN)


def test_title_names_method_model_pictures_and_n():
    title = CHARTS["layers"](rows(), RUN, subset="concepts: dog").to_dict()["title"]
    assert title["text"] == "Top units of a picture per layer, contribution"
    assert title["subtitle"] == ["specimen on gallery, n = 1 picture, concepts: dog"]


def test_k_is_shown_as_number_and_share():
    assert [k_text(k, 3072) for k in (1, 43, 307, 3072)] == ["1 (0.033 %)", "43 (1.4 %)", "307 (10 %)", "3,072 (100 %)"]


def test_random_is_a_control_of_the_others_but_stands_alone_when_alone():
    assert set(with_control(rows(), 512)["method"]) == {"contribution"}
    assert with_control(rows(), 512)["control_mean_units"].notna().all()
    assert set(with_control(rows(methods=("random",)), 512)["method"]) == {"random"}
    assert len(CHARTS["layers"](rows(methods=("contribution",)), RUN).to_dict()["layer"]) == 1, "no control scored"


def test_a_control_that_fills_every_layer_does_not_squeeze_the_bars():
    """512 pictures draw other units each, so random rankings name nearly all; the bars were a fifth of the height."""
    data = rows(ks=(43,))
    is_random = data["method"] == "random"
    data.loc[is_random, ["n_units", "share"]] = [512, 1 / 6]
    controlled = with_control(data, 512)
    n_distinct = controlled["n_units"].sum()
    assert controlled["control_n_units"].tolist() == pytest.approx([n_distinct / 6] * 6), "as many, spread at random"
    for quantity in AXES:
        top = highest(data, 512, quantity)
        assert controlled[quantity].max() > 0.5 * top, quantity
    spec = CHARTS["layers"](data, RUN, quantity="n_units").to_dict()
    assert spec["title"]["subtitle"][1] == "distinct in all layers: 903 (random: 3,072)"


def test_a_score_of_some_layers_is_drawn_there_and_its_control_is_of_as_many_units():
    """Effects of layers 4 and 5: nothing is drawn of the others, and the control's units all lie in these two."""
    data = rows(("effect", "random"), ks=(43,)).assign(control_scale=1.0)
    is_elsewhere = (data["method"] == "effect") & (data["layer"] < 4)
    data.loc[data["method"] == "effect", "control_scale"] = 3.0
    data.loc[is_elsewhere, ["n_units", "share", "mean_units"]] = float("nan")
    found = with_control(data, 512).set_index("layer")["control_mean_units"]
    assert found.sum() == pytest.approx(43)
    assert found[found.isna()].index.tolist() == [0, 1, 2, 3]


def test_control_of_a_few_layers_is_of_all_distinct_units():
    data = rows(ks=(43,))
    whole, part = (with_control(one, 512) for one in (data, data[data["layer"] < 2]))
    assert part["control_n_units"].tolist() == pytest.approx(whole["control_n_units"].tolist()[:2])


@pytest.mark.parametrize(("n_layers", "channel"), [(6, "shape"), (40, "strokeDash")])
@pytest.mark.parametrize("quantity", AXES)
def test_the_control_has_an_entry_in_the_legend(n_layers: int, channel: str, quantity: str):
    chart = CHARTS["layers"](rows(n_layers=n_layers), RUN, quantity=quantity)
    svg = chart_bytes(chart, rows(), "svg").decode()
    legends = re.findall(r'aria-label="Symbol legend[^"]*"', svg)
    assert any(CONTROLS[quantity] in legend for legend in legends), legends
    assert any(channel in layer["encoding"] for layer in chart.to_dict()["layer"])


def test_bars_for_few_layers_and_lines_for_many():
    def marks(chart) -> set[str]:
        return {layer["mark"]["type"] for layer in chart.to_dict()["layer"]}

    assert marks(CHARTS["layers"](rows(), RUN)) == {"bar", "point"}
    assert marks(CHARTS["layers"](rows(n_layers=40), RUN)) == {"line", "point"}


def test_a_panel_per_method_and_one_axis_for_all():
    spec = CHARTS["layers"](rows(methods=("contribution", "activation", "random")), RUN).to_dict()
    assert spec["facet"]["sort"] == ["contribution", "activation"]
    assert "resolve" not in spec


def test_ks_keep_their_numeric_order():
    spec = CHARTS["layers"](rows(ks=(1000, 43, 200)), RUN).to_dict()
    domain = spec["layer"][0]["encoding"]["color"]["scale"]["domain"]
    assert [label.split()[0] for label in domain] == ["43", "200", "1,000"]


@pytest.mark.parametrize("n", [1, 2, 3, 6, 9])
def test_ordered_colours(n: int):
    assert len(ordered_colours(n)) == n
    assert len(set(ordered_colours(n))) == min(n, 6)

"""Curves of interventions and dots of edits: intervals, the numbers in sentences, lines, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmn.core import Neuron
from mmn.studies.degradation import curves
from mmn.studies.editing.shares import edit_label, labelled_shares
from tests.figures.charts import CHARTS

RUN = {"model": "specimen", "images": "gallery", "n_layers": 8, "d_mlp": 384, "n_images": 20, "n_concepts": 20}


def means(methods: tuple[str, ...] = ("contribution",), sigmas: tuple[float, ...] = (np.nan,)) -> pd.DataFrame:
    """Twenty pictures; top units halve the probability with each step of k, a little more or less by picture (the mean
    stays), random ones take 1 % or 3 %.
    """
    left = {("top", 0): lambda k: 0.5**k, ("random", 0): lambda k: 1 - 0.01 * k, ("random", 1): lambda k: 1 - 0.03 * k}
    rows = [
        {
            "image_id": str(image),
            "method": method,
            "selection": selection,
            "positions": "everywhere",
            "draw": draw,
            "k": 100 * k,
            "sigma": sigma,
            "factor": np.nan,
            "baseline_prob": 0.5 + image / 100,
            "prob": (0.5 + image / 100) * share(k if np.isnan(sigma) else k * sigma)
            + (0.02 * (-1) ** image if k and sigma != 0 else 0),
            "logit": 1.0,
            "similarity": np.nan,
            "lost": 0.0,
            "noun_share": np.nan,
            "nats": np.nan,
            "nats_captions": np.nan,
            "n_nouns": 1,
        }
        for image in range(20)
        for method in methods
        for (selection, draw), share in left.items()
        for k in ((0, 1, 2) if np.isnan(sigmas[0]) else (1, 2))
        for sigma in sigmas
    ]
    return pd.DataFrame(rows)


def spec(name: str, *values: Any) -> dict[str, Any]:
    return CHARTS[name](*values).to_dict()


def test_a_curve_is_the_mean_over_pictures_within_its_interval() -> None:
    found = curves.curves(means(), "prob")
    top = found[found["selection"] == "top"].set_index("k")
    assert top["mean"].tolist() == pytest.approx([0.595, 0.2975, 0.14875])
    assert ((top["low"] < top["mean"]) & (top["mean"] < top["high"])).all()
    assert set(top["n"]) == {20}


def test_draws_are_a_picture_s_own_and_do_not_widen_the_band() -> None:
    """Both draws differ by 4 % in every picture: their mean has no more doubt than one draw of all pictures."""
    both = curves.curves(means(), "relative")
    one = curves.curves(means().query("draw == 0"), "relative")
    random, alone = (rows[(rows["selection"] == "random") & (rows["k"] == 200)].iloc[0] for rows in (both, one))
    assert (random["mean"], alone["mean"]) == (pytest.approx(0.96), pytest.approx(0.98))
    assert (random["n"], random["n_draws"]) == (20, 2)
    assert random["high"] - random["low"] == pytest.approx(alone["high"] - alone["low"], rel=0.05)


def test_the_untouched_model_s_share_of_itself_has_no_interval() -> None:
    found = curves.curves(means(), "relative")
    untouched = found[found["k"] == 0]
    assert (untouched["mean"] == 1).all()
    assert untouched[["low", "high"]].isna().all(axis=None)
    assert found.loc[found["k"] > 0, ["low", "high"]].notna().all(axis=None)


def test_few_pictures_are_drawn_without_a_band_and_said() -> None:
    few = means().query("image_id in ['0', '1', '2']")
    found = curves.curves(few, "prob")
    assert found["mean"].notna().all()
    assert found[["low", "high"]].isna().all(axis=None)
    drawn = spec("degradation", found, RUN | {"n_images": 3, "n_concepts": 3})
    assert "no intervals: 3 pictures are too few" in drawn["title"]["subtitle"][1]
    drop = curves.probability_drop(curves.curves(few, "relative"), "contribution")
    assert "(3 pictures are too few for an interval; random units: 3 %)" in curves.describe_drop(drop, 3072)


def test_what_was_not_measured_has_no_points() -> None:
    assert curves.curves(means(), "similarity").empty


def test_a_drop_in_words() -> None:
    found = curves.probability_drop(curves.curves(means(), "relative"), "contribution")
    assert found.k == 200
    assert (found.drop, found.control) == pytest.approx((0.75, 0.04))
    assert found.halved_at == pytest.approx(100)
    assert curves.describe_drop(found, 3072) == (
        "At k = 200 (6.5 %) the probability falls by 75 % (95 % interval 73 to 77 %; random units: 4 %); "
        "half of it is gone at k = 100 (3.3 %)."
    )


def test_a_rise_and_no_halving_are_said_as_such() -> None:
    found = curves.ProbabilityDrop(10, -0.5, -0.6, -0.4, float("nan"), None, 20)
    assert curves.describe_drop(found, 100) == (
        "At k = 10 (10 %) the probability rises by 50 % (95 % interval 40 to 60 %); no measured k halves it."
    )


def test_one_method_has_a_line_for_each_selection_and_several_one_each() -> None:
    one = spec("degradation", curves.curves(means(), "prob"), RUN)
    assert one["title"]["text"] == "Probability of the noun after ablation, contribution"
    assert one["title"]["subtitle"][0] == "specimen on gallery, n = 20 pictures, 20 concepts, all concepts"
    two = spec("degradation", curves.curves(means(("contribution", "activation")), "prob"), RUN)
    domains = [
        one["layer"][1]["encoding"]["color"]["scale"]["domain"],
        two["layer"][1]["encoding"]["color"]["scale"]["domain"],
    ]
    assert domains == [["top", "random"], ["contribution", "activation", "random"]]


def test_axis_of_k_shows_zero_and_shares() -> None:
    x = spec("degradation", curves.curves(means(), "prob"), RUN)["layer"][0]["encoding"]["x"]
    assert x["scale"]["type"] == "symlog"
    assert x["axis"]["values"] == [0, 100, 200]
    assert "3072" in x["axis"]["labelExpr"]


@pytest.mark.parametrize(("against", "first"), [("sigma", {"k": 100, "sigma": 0.0}), ("k", {"k": 0, "sigma": 0.5})])
def test_noise_begins_at_the_untouched_model_on_both_axes(against: str, first: dict[str, float]) -> None:
    data = curves.curves(means(sigmas=(0.0, 0.5, 1.0)), "prob")
    drawn = CHARTS["perturbation"](data, RUN, "prob", against)
    rows = pd.DataFrame(next(iter(drawn.to_dict()["datasets"].values())))
    top = rows[rows["selection"] == "top"].sort_values([against, "k" if against == "sigma" else "sigma"])
    assert top[["k", "sigma"]].iloc[0].to_dict() == first
    assert top["mean"].iloc[0] == pytest.approx(0.595)


@pytest.mark.parametrize(
    ("name", "more"),
    [("degradation", ()), ("perturbation", ()), ("ablated-layers", (1, "contribution")), ("edit", ("",))],
)
def test_missing_columns_are_an_error(name: str, more: tuple[Any, ...]) -> None:
    with pytest.raises(AssertionError, match="missing columns"):
        CHARTS[name](pd.DataFrame({"k": [1]}), RUN, *more)


def an_edit(edit_id: str, algorithm: str = "p2", selection: str = "top") -> dict[str, Any]:
    units = [Neuron(3, 1), Neuron(2, 1)] if algorithm == "p2" else [Neuron(3, unit) for unit in range(384)]
    method = "contribution" if algorithm == "p2" else None
    return {"edit_id": edit_id, "algorithm": algorithm, "selection": selection, "method": method, "units": units}


def test_labels_of_edits() -> None:
    assert edit_label(an_edit("a")) == "p2, top 2 units by contribution"
    assert edit_label(an_edit("a", selection="random")) == "p2, random 2 units"
    assert edit_label(an_edit("a", "rank-one")) == "rank-one, layer 3"


def test_success_of_edits_side_by_side() -> None:
    edits = pd.DataFrame([an_edit("aaaaaaaa"), an_edit("bbbbbbbb"), an_edit("cccccccc", selection="random")])
    said = {"aaaaaaaa": [True, True, False], "bbbbbbbb": [True] * 3, "cccccccc": [False] * 3}
    captions = pd.DataFrame(
        {"edit_id": edit_id, "image_id": str(i), "role": "other", "is_as_wished": value}
        for edit_id, values in said.items()
        for i, value in enumerate(values)
    )
    data = labelled_shares(edits, captions)
    assert data["mean"].tolist() == pytest.approx([2 / 3, 1, 0])
    assert data["label"].tolist()[:2] == [f"p2, top 2 units by contribution ({one * 6})" for one in "ab"]
    encoding = spec("edit", data, RUN, "dog to boat")["layer"][0]["encoding"]
    assert encoding["y"]["sort"] == ["generalisation (n = 3)"]
    assert encoding["color"]["scale"]["range"][2] == "#8c8c8c", "random units are grey"

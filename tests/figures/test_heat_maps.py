"""Heat maps of shares: one colour scale everywhere, whatever their values, and the diagonal from the upper left."""

from typing import Any

import pandas as pd
import pytest

from tests.figures.charts import CHARTS

RUN = {"model": "specimen", "images": "gallery", "n_images": 9}
PAIRS = [("dog", "dog"), ("dog", "cat"), ("cat", "dog"), ("cat", "cat")]


def of_picture(shares: list[float]) -> dict[str, Any]:
    rows = pd.DataFrame(PAIRS, columns=["unit_noun", "noun"]).assign(
        layer=[1, 1, 2, 2], unit=7, score=shares, share=shares, is_control=False, selection="held-out"
    )
    return CHARTS["specificity"](rows, RUN, "contribution", picture="picture 00179761, “A dog and a cat.”").to_dict()


def of_concepts(shares: list[float]) -> dict[str, Any]:
    rows = pd.DataFrame(PAIRS, columns=["unit_lemma", "lemma"]).assign(
        share=shares, n_images=9, is_control=False, p=0.5, is_discovery=False
    )
    return CHARTS["specificity"](rows, RUN, "contribution").to_dict()


def of_classes(shares: list[float]) -> dict[str, Any]:
    rows = pd.DataFrame(PAIRS, columns=["unit_noun", "noun"]).assign(
        value=shares, share=shares, n_units=20, n_images=5, is_control=False, p=0.5, is_discovery=False
    )
    return CHARTS["selectivity"](rows, RUN, "contribution").to_dict()


MAPS = [of_picture, of_concepts, of_classes]


def cells_of(spec: dict[str, Any]) -> dict[str, Any]:
    """The layer of cells: below pale ones is a white one, so that they are pale in the dark, too."""
    return next(layer for layer in spec["layer"] if layer["encoding"].get("color", {}).get("field") == "share")


@pytest.mark.parametrize("draw", MAPS)
@pytest.mark.parametrize("shares", [[1.0, 0.2, 0.1, 0.9], [1.0, -0.4, -2.5, 3.0], [-0.1, -0.2, -0.3, -0.4]])
def test_a_share_has_the_same_colour_in_every_map(draw: Any, shares: list[float]) -> None:
    """Shares of −1 and below are as dark as those of 1 and above, and 0 is pale."""
    scale = cells_of(draw(shares))["encoding"]["color"]["scale"]
    assert (scale["domain"], scale["domainMid"], scale["clamp"]) == ([-1, 1], 0, True)


@pytest.mark.parametrize("draw", MAPS)
def test_own_nouns_are_the_diagonal(draw: Any) -> None:
    encoding = cells_of(draw([1.0, 0.2, 0.1, 0.9]))["encoding"]
    assert encoding["x"]["sort"] == ["dog", "cat"]
    assert [line.split()[-1] for line in encoding["y"]["sort"]] == ["dog", "cat"]


def test_only_the_map_of_a_picture_leads_to_units() -> None:
    (picture, concepts, classes) = (draw([1.0, 0.2, 0.1, 0.9])["params"][0]["select"]["fields"] for draw in MAPS)
    assert picture == ["layer", "unit"]
    assert concepts == classes == ["row", "column"]

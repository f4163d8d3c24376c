"""What image tokens say and where units look, as charts: the rows behind them, their counts, what is refused."""

import json

import numpy as np
import pandas as pd
import pytest

from mmn.figures.export import DRAWN, chart_bytes
from mmn.studies.annotate.figures import field_overlaps
from mmn.studies.lens.figures import nearest_cosines, noun_shares

RUN = {"model": "specimen", "images": "gallery", "n_layers": 4, "d_mlp": 64}


def rows_of(chart) -> pd.DataFrame:
    (rows,) = chart.to_dict()["datasets"].values()
    return pd.DataFrame(rows)


def title_of(chart) -> str:
    title = chart.to_dict()["title"]
    return " ".join([title["text"], *title["subtitle"]])


@pytest.fixture
def cosines() -> pd.DataFrame:
    """Three image tokens of two pictures, all nearer to a word than two random vectors: D = 1."""
    return pd.DataFrame(
        {"kind": ["nearest"] * 3 + ["random"] * 2, "image_id": ["a", "a", "b", None, None]}
        | {"token": ["dog"] * 5, "cosine": [0.5, 0.6, 0.7, 0.1, 0.2]}
    )


@pytest.fixture
def shares() -> pd.DataFrame:
    lines = {"any noun of the caption": 5, "its noun, elsewhere": 3, "its noun, on the object": 3}
    rows = [
        {"layer": layer, "line": line, "mean": 0.2, "low": 0.1, "high": 0.3, "n": n}
        for line, n in lines.items()
        for layer in range(4)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def overlaps() -> pd.DataFrame:
    """Contribution has units of both kinds; attribution was measured before units were held out."""
    numbers = {f"{name}{end}": [0.1, 0.2, 0.1] for name in ("iou", "iou_random") for end in ("", "_low", "_high")}
    none = {f"iou_other{end}": [0.15, 0.15, np.nan] for end in ("", "_low", "_high")}
    of = {"method": ["contribution", "contribution", "attribution"], "selection": ["held-out", "same", "same"]}
    return pd.DataFrame(of | {"n": 40, "n_images": 9, "iou_best": [0.4, 0.4, np.nan]} | numbers | none)


def test_cosines_are_shares_of_each_kind_and_the_test_is_in_the_title(cosines: pd.DataFrame) -> None:
    chart = nearest_cosines(cosines, RUN)
    rows = rows_of(chart)
    assert rows.groupby("vectors")["share"].sum().tolist() == pytest.approx([1, 1])
    assert "D = 1.000" in title_of(chart)
    assert "n = 3 image tokens of 2 pictures, 2 random vectors" in title_of(chart)


def test_equal_cosines_are_drawn_too(cosines: pd.DataFrame) -> None:
    rows = rows_of(nearest_cosines(cosines.assign(cosine=0.0), RUN))
    assert rows.groupby("vectors")["share"].sum().tolist() == pytest.approx([1, 1])


def test_areas_are_not_stacked(cosines: pd.DataFrame) -> None:
    """Vega stacks areas by default, and image tokens then stood on the random vectors."""
    layers = nearest_cosines(cosines, RUN).to_dict()["layer"]
    assert [layer["encoding"]["y"]["stack"] for layer in layers] == [None, None]


def test_shares_name_the_pictures_with_objects(shares: pd.DataFrame) -> None:
    assert "n = 5 pictures, 3 with known objects" in title_of(noun_shares(shares, RUN))
    alone = shares[shares["line"] == "any noun of the caption"]
    assert "n = 5 pictures no intervals: 5 pictures are too few" in title_of(noun_shares(alone, RUN))


def test_a_missing_overlap_has_no_point(overlaps: pd.DataFrame) -> None:
    chart = field_overlaps(overlaps, RUN, 10)
    rows = rows_of(chart)
    assert rows["method"].value_counts().to_dict() == {"contribution": 4, "attribution": 2}
    of = rows[rows["method"] == "contribution"].set_index("overlap")["iou"].to_dict()
    assert of == {
        "with the noun's object: units found on another picture": 0.1,
        "the same: units chosen on this picture (P1, P2)": 0.2,
        "with the picture's other objects": 0.15,  # of the held-out units
        "of random units of the same layers": 0.1,
    }
    assert "mean within a picture, then over pictures" in title_of(chart)
    assert "their mean IoU is 0.40 at most" in title_of(chart)
    assert "at most" not in title_of(field_overlaps(overlaps.assign(iou_best=np.nan), RUN, 10))
    assert "n = 9 pictures with known objects" in title_of(chart)
    assert "up to 10 units" in title_of(chart)


def test_missing_columns_are_named(cosines: pd.DataFrame, shares: pd.DataFrame, overlaps: pd.DataFrame) -> None:
    for draw, data, column in (
        (nearest_cosines, cosines, "cosine"),
        (noun_shares, shares, "low"),
        (lambda rows, run: field_overlaps(rows, run, 1), overlaps, "iou_random"),
    ):
        with pytest.raises(AssertionError, match=column):
            draw(data.drop(columns=column), RUN)


@pytest.mark.parametrize("form", [form for form in DRAWN if form != "png"])
def test_every_format_is_written(
    form: str, cosines: pd.DataFrame, shares: pd.DataFrame, overlaps: pd.DataFrame
) -> None:
    charts = [
        (nearest_cosines(cosines, RUN), cosines),
        (noun_shares(shares, RUN), shares),
        (field_overlaps(overlaps, RUN, 5), overlaps),
    ]
    for chart, data in charts:
        assert len(chart_bytes(chart, data, form)) > 100
    json.dumps(charts[0][0].to_dict(), allow_nan=False)

"""A second run beside the first: on the same scales, with the difference on the pictures that both hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pytest

from mmn.cli import BAD_INPUT, DONE, main
from mmn.errors import UsageError
from mmn.figures.figure import draw
from mmn.figures.pairing import Pictures, paired
from mmn.figures.scales import share_scales
from mmn.store import Store
from mmn.studies.registry import FIGURES
from mmn.view import View
from tests.pages.filled import fill, fill_whole

A, B, OTHER = "5e6f000000000000", "7c7a000000000000", "3f2a9c1b00112233"
SMALL, LARGE = {"n_layers": 2, "d_mlp": 100}, {"n_layers": 2, "d_mlp": 1000}


@pytest.fixture(autouse=True, scope="module")
def without_the_bundled_runs() -> Iterator[None]:
    """Loading them takes longer than all of these tests."""
    with pytest.MonkeyPatch.context() as patched:
        for module in ("figure",):
            patched.setattr(f"mmn.cli.{module}.RUN_PATHS", ())
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of the same pictures, and one of another model on others."""
    path = tmp_path_factory.mktemp("compared")
    fill_whole(path, A)
    fill_whole(path, B)
    fill(path, OTHER)
    return path


@pytest.fixture
def store(cache: Path) -> Iterator[Store]:
    with Store.open(cache) as opened:
        opened.load_new_shards([opened.runs_path])
        yield opened


def of_pictures(values: dict[str, float], k: int = 10) -> Pictures:
    rows = [{"image_id": name, "k": k, "value": value} for name, value in values.items()]
    return Pictures(pd.DataFrame(rows), ("k",), "k", "value")


def test_the_difference_is_of_the_pictures_that_both_runs_hold() -> None:
    first = {f"p{n}": float(n) for n in range(10)}
    second = {f"p{n}": n + 1.0 + 0.1 * (-1) ** n for n in range(2, 10)} | {"only in B": 1e6}
    row = paired(of_pictures(first), of_pictures(second), SMALL, SMALL).rows.iloc[0]
    half = 2.3646 * np.std([0.1 * (-1) ** n for n in range(8)], ddof=1) / np.sqrt(8)  # Student's t of 7
    assert (row["n_shared"], row["b_minus_a"]) == (8, pytest.approx(1.0))
    assert (row["b_minus_a_low"], row["b_minus_a_high"]) == pytest.approx((1 - half, 1 + half), abs=1e-4)


def test_k_of_another_model_is_compared_as_a_share_of_its_units() -> None:
    values = {f"p{n}": float(n) for n in range(8)}
    both = paired(of_pictures(values, 10), of_pictures(values, 100), SMALL, LARGE)
    assert list(both.rows["k"]) == [10]
    with pytest.raises(UsageError, match="no point"):
        paired(of_pictures(values, 10), of_pictures(values, 10), SMALL, LARGE)


def test_both_charts_reach_as_far_as_the_further_one() -> None:
    charts = []
    for most in (3.0, 8.0):
        rows = pd.DataFrame({"x": ["a", "b"], "low": [-most, 1.0], "y": [1.0, most]})
        base = alt.Chart(rows).encode(alt.X("x:N"))
        charts.append(
            (base.mark_rule().encode(alt.Y("low:Q"), alt.Y2("y")) + base.mark_point().encode(y="y:Q")).to_dict()
        )
    assert share_scales(*charts) == {"y": (-8.0, 8.0)}
    for chart in charts:
        for layer in chart["layer"]:
            assert layer["encoding"]["y"]["scale"]["domain"] == [-8.0, 8.0]
            assert "scale" not in layer["encoding"]["x"]


def test_a_logarithmic_axis_of_two_runs_does_not_begin_at_0() -> None:
    """Vega draws nothing on one that does: the page's charts were empty frames."""
    charts = []
    for least in (10.0, 100.0):
        rows = pd.DataFrame({"k": [least, 1000.0], "mean": [0.2, 0.4]})
        scale = alt.Scale(type="log")
        line = alt.Chart(rows).mark_line().encode(alt.X("k:Q", scale=scale), alt.Y("mean:Q"))
        charts.append(line.to_dict())
    assert share_scales(*charts) == {"x": (10.0, 1000.0), "y": (0.0, 0.4)}


def test_marks_of_one_axis_agree_whether_its_ends_are_rounded() -> None:
    """One fixes the ends of its axis, another does not: Vega warns where they contradict each other."""
    rows = pd.DataFrame({"at": [0.3], "share": [0.7]})
    fixed = alt.Chart(rows).mark_point().encode(alt.X("share:Q", scale=alt.Scale(domain=[0, 1])))
    charts = [(alt.Chart(rows).mark_rule().encode(alt.X("at:Q")) + fixed).to_dict() for _ in range(2)]
    share_scales(*charts)
    said = {layer["encoding"]["x"]["scale"]["nice"] for chart in charts for layer in chart["layer"]}
    assert said == {False}


def domains(spec: Any) -> set[tuple[float, ...]]:
    """Of all vertical axes of numbers."""
    if isinstance(spec, list):
        return set().union(*map(domains, spec))
    if not isinstance(spec, dict):
        return set()
    y = spec.get("encoding", {}).get("y", {})
    own = {tuple(y["scale"]["domain"])} if y.get("type") == "quantitative" and "domain" in y.get("scale", {}) else set()
    return own.union(*(domains(value) for name, value in spec.items() if name not in ("datasets", "data")))


@pytest.mark.parametrize("name", ["layers", "degradation", "invariance", "specificity-summary", "fields"])
def test_a_figure_of_two_runs(name: str, store: Store) -> None:
    drawn = draw(FIGURES[name], store, View(A, compare=B))
    first, second, difference = (chart.to_dict() for chart in drawn.charts)
    assert [chart["title"]["text"][0][:2] for chart in (first, second)] == ["A:", "B:"]
    assert domains(first) == domains(second)
    assert "picture by picture" in difference["title"]["text"]
    told = drawn.written
    assert set(told["run"]) == {A[:8], B[:8]}
    assert told.loc[told["run"] == B[:8], "b_minus_a"].notna().any()
    assert told.loc[told["run"] == A[:8]].get("n_shared", pd.Series(dtype=float)).isna().all()


@pytest.mark.parametrize("name", ["degradation", "specificity-summary"])
def test_the_difference_is_of_what_the_charts_call_it(name: str, store: Store) -> None:
    """In the same words, order and colours; not `held-out, False`."""
    first, _second, difference = (
        json.dumps(chart.to_dict(), ensure_ascii=False)
        for chart in draw(FIGURES[name], store, View(A, compare=B, methods=("contribution",))).charts
    )
    (names,) = {tuple(one["domain"]) for one in scales(json.loads(difference), "shape")}
    assert len(names) > 2
    assert all(f'"{one}"' in first for one in names)
    if name == "degradation":
        (colours,) = {tuple(one["range"]) for one in scales(json.loads(difference), "color")}
        (own,) = [one for one in scales(json.loads(first), "color") if set(one["domain"]) == set(names)][:1]
        assert dict(zip(names, colours, strict=True)) == dict(zip(own["domain"], own["range"], strict=True))


def scales(spec: Any, channel: str) -> list[dict[str, Any]]:
    """Of all encodings of a channel, those with a domain."""
    if isinstance(spec, list):
        return [found for one in spec for found in scales(one, channel)]
    if not isinstance(spec, dict):
        return []
    scale = spec.get("encoding", {}).get(channel, {}).get("scale", {})
    inner = [
        found for name, part in spec.items() if name not in ("data", "datasets") for found in scales(part, channel)
    ]
    return ([scale] if "domain" in scale else []) + inner


def test_what_cannot_be_compared_is_said(store: Store) -> None:
    def told(name: str, **more: Any) -> str:
        return " ".join(draw(FIGURES[name], store, View(A, compare=OTHER, **more)).asked.told)

    assert "no picture is in both" in told("layers")
    assert "k is compared as a share" in told("layers")
    assert "B has no such figure" in told("sensitivity")
    with pytest.raises(UsageError, match="the run itself"):
        draw(FIGURES["layers"], store, View(A, compare=A))
    both = draw(FIGURES["invariance-layers"], store, View(A, compare=B))
    assert any("no mean of pictures" in line for line in both.asked.told)


def test_a_file_of_two_runs_is_made_again_byte_for_byte(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, again = tmp_path / "one.svg", tmp_path / "again.svg"
    line = f"figure layers --run {A} --compare {B[:6]} --methods contribution --out {one} --cache {cache} --json"
    assert main(line.split()) == DONE
    said = capsys.readouterr()
    assert "20 of A's 20 pictures" in said.err
    assert B[:8] in json.loads(said.out)["caption"]
    assert main(f"figure --recipe {one} --out {again} --cache {cache}".split()) == DONE
    assert one.read_bytes() == again.read_bytes()
    assert main(f"figure layers --run {A} --compare nothing --out {one} --cache {cache}".split()) == BAD_INPUT
    assert capsys.readouterr().err.strip().count("\n") == 0

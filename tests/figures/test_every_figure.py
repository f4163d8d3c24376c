"""What holds of every figure of the registry in the narrowest column of a paper: no word cut off or over another,
series told apart without colour, a caption that says what it must, the same bytes each time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from itertools import combinations, pairwise
from typing import Any

import pytest

from mmn.figures import fitting
from mmn.figures.captions import caption
from mmn.figures.export import chart_bytes, paper_spec
from mmn.figures.figure import Drawn
from mmn.figures.presets import NARROWEST, PRESETS, Layout
from mmn.figures.saving import figure_file
from mmn.figures.tables import booktabs
from mmn.studies.registry import FIGURES
from tests.figures.boxes import boxes, canvas, is_inside, overlap
from tests.figures.everything import drawn_of, stores

NARROW = Layout(NARROWEST)
APART = ("shape", "strokeDash", "x", "y", "xOffset", "yOffset")  # channels that tell series apart without colour
LIGHTER = 10.0  # of CIE L*, 0 to 100: two greys that are told apart side by side


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory):
    with stores(tmp_path_factory.mktemp("caches")) as found:
        yield found


@pytest.fixture(scope="module")
def figure(opened) -> Callable[[str], Drawn]:
    """A figure by its name, drawn once for all that is asked of it."""
    return cache(lambda name: drawn_of(name, opened))


@pytest.mark.parametrize("name", FIGURES)
def test_no_word_is_cut_off_or_over_another(name: str, figure: Callable[[str], Drawn]) -> None:
    drawn = figure(name)
    svg = chart_bytes(drawn.chart, drawn.rows.data, "svg", NARROW).decode()
    width, height = canvas(svg)
    assert width == pytest.approx(NARROW.width_in * 72, abs=0.5)
    words = boxes(svg)
    assert len(words) > 8
    assert [box.text for box in words if not is_inside(box, (width, height))] == []
    assert [(one.text, other.text) for one, other in combinations(words, 2) if overlap(one, other)] == []
    assert min(box.size for box in words) >= 5


@pytest.mark.parametrize("name", FIGURES)
def test_series_are_told_apart_without_colour(name: str, figure: Callable[[str], Drawn]) -> None:
    spec = paper_spec(figure(name).chart, NARROW)
    units = list(fitting._units(spec))
    placed = {
        unit["encoding"][channel]["field"]
        for unit in units
        for channel in APART
        if "field" in unit.get("encoding", {}).get(channel, {})
    }
    for unit in units:
        for channel in ("color", "fill", "stroke"):
            encoding = unit.get("encoding", {}).get(channel, {})
            if encoding.get("type") == "nominal" and encoding["field"] not in placed:
                greys = sorted(map(lightness, encoding["scale"]["range"]))
                assert all(b - a >= LIGHTER for a, b in pairwise(greys)), encoding["field"]


@pytest.mark.parametrize("name", FIGURES)
def test_a_caption_says_what_it_must(name: str, figure: Callable[[str], Drawn]) -> None:
    drawn = figure(name)
    said = caption(drawn)
    run = drawn.asked.run
    for part in (run["model"], run["run_id"], run["model_fingerprint"][:12], f"{run['n_images']:,} picture"):
        assert str(part) in said, part
    assert "95 %" in said or "interval" in said
    assert "ontrol" in said
    data = drawn.rows.data
    for method in set(data["method"]) if "method" in data else ():
        assert f"{method}: " in said
    if "k" in data or "k" in drawn.rows.words:
        assert re.search(rf"k = .*\(\d[\d.]* %\).* of all {drawn.asked.n_units:,} units", said)
    assert "\n" not in said


@pytest.mark.parametrize("name", [name for name, figure in FIGURES.items() if figure.table])
def test_a_table_has_a_line_for_each_row_and_no_stray_sign(name: str, figure: Callable[[str], Drawn]) -> None:
    drawn = figure(name)
    text = booktabs(drawn, "50 % of a_b & c")
    assert r"\caption{50 \% of a\_b \& c}" in text
    lines = text.partition(r"\midrule")[2].partition(r"\bottomrule")[0].strip().splitlines()
    assert len(lines) == len(drawn.rows.data)
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns
    assert {line.count(" & ") + 1 for line in lines} == {len(columns[1])}
    assert not re.search(
        r"(?<!\\)[%#$_]", re.sub(r"\$[^$]*\$", "", text.partition(r"\midrule")[2].rpartition("bottomrule")[0])
    )


@pytest.mark.parametrize("form", ["svg", "pdf", "png", "json", "csv", "parquet", "tex"])
def test_a_file_is_the_same_bytes_each_time(form: str, opened) -> None:
    one, other = (figure_file(drawn_of("sensitivity", opened), form, NARROW) for _ in range(2))
    assert one.content == other.content
    assert one.beside == other.beside


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_in_the_file(preset: str, figure: Callable[[str], Drawn]) -> None:
    drawn, venue = figure("comparison"), PRESETS[preset]
    for width, inches in (("single", venue.single_in), ("double", venue.double_in)):
        layout = Layout(preset, width)
        svg = chart_bytes(drawn.chart, drawn.rows.data, "svg", layout).decode()
        assert f'width="{inches:.6g}in"' in svg
        assert canvas(svg)[0] == pytest.approx(inches * 72, abs=0.5)
        sizes = {box.size for box in boxes(svg)}
        assert min(sizes) == venue.size
        assert max(sizes) <= max(venue.body_pt, 9.5), "no letter is larger than the text around the figure"
        assert preset != "nature" or (min(sizes) >= 5 and max(sizes) <= 7)
        pdf = chart_bytes(drawn.chart, drawn.rows.data, "pdf", layout)
        box = re.search(rb"/MediaBox \[0 0 ([\d.]+) ", pdf)
        assert box
        assert float(box[1]) == pytest.approx(inches * 72, abs=0.5)


def test_a_label_over_another_would_be_noticed() -> None:
    text = '<text transform="translate({},10)" font-size="7px" text-anchor="{}">{}</text>'
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 60 20">{}</svg>'
    found = boxes(
        svg.format(
            text.format(5, "start", "a word") + text.format(12, "start", "more") + text.format(50, "start", "cut off")
        )
    )
    assert overlap(found[0], found[1])
    assert not overlap(found[0], found[2])
    assert [is_inside(box, (60, 20)) for box in found] == [True, True, False]


def lightness(colour: str) -> float:
    """CIE L* of `#rrggbb`."""
    parts: list[Any] = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return float(116 * luminance ** (1 / 3) - 16)

"""Exported figures: exact width, text as text, nothing blank, numbers as drawn."""

import io
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from mmn.errors import UsageError
from mmn.figures.export import FORMATS, chart_bytes
from mmn.figures.presets import PPI, PRESETS, Layout
from mmn.figures.saving import form_of
from mmn.figures.theme import FONT
from tests.figures.boxes import boxes, canvas, is_inside
from tests.figures.charts import CHARTS
from tests.figures.test_layer_figure import RUN, rows

ONE, TWO = ("contribution", "random"), ("contribution", "activation", "random")
WIDTHS_IN = {"single": PRESETS["plain"].single_in, "double": PRESETS["plain"].double_in}
KINDS = {"one": rows(ONE), "panels": rows(TWO), "deep": rows(ONE, ks=(100, 1000, 10_000), n_layers=40)}


@pytest.fixture(params=KINDS)
def figure(request) -> tuple[Any, pd.DataFrame]:
    data = KINDS[request.param]
    return CHARTS["layers"](data, RUN), data


@pytest.mark.parametrize("width", WIDTHS_IN)
def test_svg_is_as_wide_as_the_column_and_its_text_is_text(figure, width):
    svg = chart_bytes(figure[0], figure[1], "svg", Layout(width=width)).decode()
    assert f'width="{WIDTHS_IN[width]:g}in"' in svg
    box = [float(number) for number in re.findall(r'viewBox="([^"]+)"', svg)[0].split()]
    assert box[2] == pytest.approx(WIDTHS_IN[width] * 72, abs=0.5)  # half a point: less than a hairline
    assert "decoder layer (from 0)" in re.sub(r"<[^>]+>", "", svg)
    assert "<text" in svg
    families = set(re.findall(r'font-family="([^"]+)"', svg))
    assert families
    assert all(family.endswith("sans-serif") for family in families), families


@pytest.mark.parametrize("ppi", PPI)
def test_png_has_the_pixels_of_its_width_says_so_and_is_not_blank(figure, ppi):
    with Image.open(io.BytesIO(chart_bytes(figure[0], figure[1], "png", Layout(ppi=ppi)))) as picture:
        assert picture.width == pytest.approx(WIDTHS_IN["single"] * ppi, abs=0.5 * ppi / 72)
        assert picture.info["dpi"] == pytest.approx((ppi, ppi), abs=1)
        grey = picture.convert("L")
        assert grey.getpixel((0, 0)) == 255, "on white"
        assert sum(grey.histogram()[:80]) > 500, "dark ink: the text is there"


def test_pdf_holds_its_fonts_and_text(figure, tmp_path: Path):
    content = chart_bytes(figure[0], figure[1], "pdf")
    path = tmp_path / "figure.pdf"
    path.write_bytes(content)
    assert content.startswith(b"%PDF")
    assert b"FontFile" in content or b"/Font" in content
    if pdftotext := shutil.which("pdftotext"):
        text = subprocess.run([pdftotext, str(path), "-"], capture_output=True, text=True, check=True).stdout
        assert "decoder layer (from 0)" in text


def test_csv_and_parquet_are_the_data(figure):
    chart, data = figure
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet}
    for form, reader in read.items():
        found = reader(io.BytesIO(chart_bytes(chart, data, form)))
        pd.testing.assert_frame_equal(found, data.reset_index(drop=True), check_dtype=form != "parquet")


def test_no_title_is_cut_in_one_column():
    run = RUN | {"model": "a-model-with-quite-a-long-name-7b-hf", "images": "coco:annotations.json:val2017"}
    svg = chart_bytes(CHARTS["layers"](KINDS["one"], run), KINDS["one"], "svg").decode()
    words, size = boxes(svg), canvas(svg)
    of_run = [box for box in words if "model-with" in box.text or "n = 1 picture" in box.text]
    assert len(of_run) == 2, "broken into lines"
    assert all(is_inside(box, size) for box in words)


def test_font_list_ends_in_a_generic_family():
    """An unknown font alone exports a chart without any text."""
    assert FONT.endswith("sans-serif")


@pytest.mark.parametrize("name", ["f.gif", "f"])
def test_an_unknown_format_is_a_usage_error(name):
    with pytest.raises(UsageError, match="svg, pdf, png"):
        form_of(Path(name))


@pytest.mark.parametrize("given", [{"width": "wide"}, {"width": 0.1}, {"preset": "vogue"}, {"ppi": 72}])
def test_an_unknown_layout_is_a_usage_error(given):
    with pytest.raises(UsageError):
        Layout(**given)


def test_width_may_be_inches():
    svg = chart_bytes(CHARTS["layers"](KINDS["one"], RUN), KINDS["one"], "svg", Layout(width=5)).decode()
    assert 'width="5in"' in svg
    assert set(FORMATS) == {"svg", "pdf", "png", "json", "csv", "parquet", "tex"}

"""Characters that no font here has, and those that are no letters: written out and said, never boxes, never a crash."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mmn.errors import UsageError
from mmn.figures import glyphs
from mmn.figures.export import chart_bytes, unshown
from mmn.figures.wording import token_text
from tests.figures.charts import CHARTS

NOWHERE = "\u0379"  # belongs to no script, so no font has it
STRANGE = ["你好", "🍎", "日本語", "한국어", "नमस्ते", NOWHERE]
CONTROLS = ["\x00", "\x1b[31mred", "a\u202egnp.exe", "\ufffe", "two\nlines"]


def tokens(*words: str) -> tuple[Any, pd.DataFrame]:
    data = pd.DataFrame({"token": words, "logit": [1 / (1 + place) for place in range(len(words))]})
    return CHARTS["tokens"](data, {"model": "specimen"}, "L1.u2"), data


def pdf_text(content: bytes, tmp_path: Path) -> str:
    program = shutil.which("pdftotext")
    if program is None:
        pytest.skip("needs pdftotext: apt-get install poppler-utils")
    path = tmp_path / "figure.pdf"
    path.write_bytes(content)
    return subprocess.run([program, str(path), "-"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("form", ["svg", "pdf", "png"])
def test_a_control_character_in_a_token_does_not_end_the_process(form: str):
    chart, data = tokens(*CONTROLS)
    content = chart_bytes(chart, data, form)
    assert len(content) > 1000
    if form == "svg":
        text = content.decode()
        assert r"\x1b[31mred" in text
        assert "\u202e" not in text, "a sign that turns what follows around"


@pytest.mark.parametrize("sign", STRANGE)
@pytest.mark.parametrize("form", ["pdf", "png"])
def test_what_no_font_has_is_written_out_and_said_and_the_rest_is_kept(sign: str, form: str, tmp_path: Path):
    chart, data = tokens("apple", sign)
    missing = unshown(chart, form)
    assert set(missing) == {one for one in sign if not glyphs.drawable(one, form)}
    told = glyphs.remedy(missing, form)
    assert bool(told) == bool(missing)
    assert "\n" not in told
    if missing:
        assert missing[0] in told
        assert "apt-get install fonts-noto" in told or "PNG and SVG do" in told
    content = chart_bytes(chart, data, form)
    if form == "pdf" and missing:
        assert missing[0].encode("unicode_escape").decode() in pdf_text(content, tmp_path)


def test_the_stand_in_for_missing_fonts_is_missing_everywhere():
    assert not glyphs.drawable(NOWHERE, "png")
    assert glyphs.drawable("σ", "pdf")
    assert glyphs.drawable("\u200d", "png"), "joins emoji and draws nothing itself"


@pytest.mark.parametrize(
    ("sign", "package"), [("你", "fonts-noto-cjk"), ("🍎", "fonts-noto-color-emoji"), ("न", "fonts-noto-core")]
)
def test_the_remedy_names_the_package(sign: str, package: str):
    assert package in glyphs.remedy(sign + NOWHERE, "png")


def test_svg_keeps_every_letter():
    chart, data = tokens(*STRANGE)
    assert unshown(chart, "svg") == ""
    text = re.sub(r"<[^>]+>", "", chart_bytes(chart, data, "svg").decode())
    assert all(sign in text for sign in STRANGE)


def test_a_folder_of_fonts_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("MMN_FONTS", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="gone, which is no folder"):
        chart_bytes(*tokens("apple"), "png")
    monkeypatch.setenv("MMN_FONTS", "")
    glyphs.register_fonts()


def test_very_long_and_blank_tokens_are_labels_of_one_line():
    assert token_text(" apple") == "apple"
    assert token_text("  ") == "'  '"
    assert len(token_text("a" * 300)) == 28
    chart, data = tokens("a" * 300, "b")
    svg = chart_bytes(chart, data, "svg").decode()
    title = re.search(r'translate\(([-\d.]+),[-\d.]+\)"[^>]*>What L1', svg)
    assert title is None or float(title[1]) < 20, "the title begins at the left edge, so that it is not cut"
    assert "logit per unit of activation" in svg

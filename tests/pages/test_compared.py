"""A second run beside the first, on the pages: chosen in the sidebar, in the address, kept from page to page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.compared import NONE
from tests.pages.filled import fill_whole
from tests.pages.titles import title_of

A, B = "5e6f000000000000", "7c7a000000000000"


@pytest.fixture
def two_runs(empty_cache: Path) -> Path:
    fill_whole(empty_cache, A)
    fill_whole(empty_cache, B)
    return empty_cache


def titles(at: Any) -> list[str]:
    """The first words of every chart's title."""
    specs = [json.loads(one.proto.spec) for one in at.get("vega_lite_chart") or at.get("arrow_vega_lite_chart")]
    return [title_of(spec)["text"] for spec in specs]


def test_every_chart_has_the_second_run_beside_it_and_their_difference(two_runs, open_app):
    at = open_app("sensitivity", run=[A[:8]], compare=[B[:8]])
    assert not at.exception
    assert [box.value for box in at.selectbox if box.key == "compare"] == [f"whole gallery {B[:8]}"]
    shown = [title[:2] for title in titles(at)]
    assert shown.count("A:") == shown.count("B:") == shown.count("B ") > 0
    assert any("20 of A's 20 pictures" in caption.value for caption in at.caption)
    at = at.switch_page("../pages/image.py").run()
    assert not at.exception
    assert any(f"B, run {B[:8]}" in text.value for text in at.markdown)
    [box] = [box for box in at.selectbox if box.key == "compare"]
    box.set_value(NONE).run()
    assert not any("B, run" in text.value for text in at.markdown)


def test_an_address_of_a_run_that_is_not_there_compares_nothing(two_runs, open_app):
    at = open_app("layers", run=[A[:8]], compare=["ffffffff"])
    assert not at.exception
    assert titles(at)
    assert not any(title.startswith("B") for title in titles(at))

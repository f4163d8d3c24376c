"""A run as one HTML file: opened from the disk with the network off, it draws all of its charts, whatever its words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mmn.cli import BAD_INPUT, DONE, main
from mmn.figures.wording import short_name
from tests.browser.serving import CHROMIUM
from tests.pages.hostile import fill_hostile


@pytest.fixture(autouse=True, scope="module")
def without_the_bundled_runs() -> Iterator[None]:
    """Loading them takes longer than all of these tests."""
    with pytest.MonkeyPatch.context() as patched:
        for module in ("report",):
            patched.setattr(f"mmn.cli.{module}.RUN_PATHS", ())
        yield


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run with hostile words everywhere."""
    cache = tmp_path_factory.mktemp("hostile")
    fill_hostile(cache)
    out = tmp_path_factory.mktemp("reports") / "run.html"
    assert main(f"report 5e6f --out {out} --cache {cache}".split()) == DONE
    return out


class Elements(HTMLParser):
    """The tags of a page, each with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_words_of_a_run_are_no_html_and_the_machine_is_not_told(report: Path) -> None:
    text = report.read_text()
    elements = Elements(text).found
    assert {tag for tag, _ in elements}.isdisjoint({"iframe", "object", "embed", "form"})
    for tag, given in elements:
        for name in ("src", "href"):
            assert (given.get(name) or "data:").startswith(("data:", "#")), (tag, given)
        assert not any(name.startswith("on") for name in given), (tag, given)
    assert "window.hostile" in text, "its words are in it"
    assert "<script>window.hostile" not in text
    assert str(report.parents[1]) not in text
    assert "/models/" not in text
    assert len(re.findall(r'<div class="picture">', text)) == 20
    assert len(report.read_bytes()) < 10_000_000


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium: apt install chromium, or Google Chrome")
def test_it_opens_from_the_disk_with_the_network_off(report, browser):
    context = browser.new_context(viewport={"width": 390, "height": 800}, offline=True)
    page, asked, told = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto(report.as_uri())
    page.wait_for_function("() => [...document.querySelectorAll('.chart')].every((one) => one.querySelector('svg'))")
    assert page.locator(".chart svg.marks").count() > 15
    assert [url for url in asked if not url.startswith(("data:", report.as_uri()))] == []
    assert told == []
    assert page.evaluate("() => window.hostile") is None
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390, "it fits a telephone"
    page.fill("#find", "picture 0")
    assert 0 < page.locator(".picture:visible").count() < 20
    context.close()


def test_folders_are_cut_to_their_last_names() -> None:
    assert short_name("/home/somebody/models/llava") == "llava"
    assert short_name("coco:/data/a.json:/data/pictures/") == "coco:a.json:pictures"
    assert short_name("specimen+/tmp/edit.safetensors") == "specimen+edit.safetensors"
    assert short_name("llava-hf/llava-1.5-7b-hf") == "llava-hf/llava-1.5-7b-hf"


def test_bad_use_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("report latest --out x.pdf", "report nothing --out x.html"):
        assert main([*line.split(), "--cache", str(tmp_path)]) == BAD_INPUT
        assert capsys.readouterr().err.strip().count("\n") == 0

"""The picture by keyboard and pointer: tokens, zoom, the question what wrote one; hostile words are only text."""

import re
from pathlib import Path

import pytest

from tests.browser.serving import CHROMIUM, ROOT, served
from tests.pages.hostile import fill_hostile

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install -r requirements-dev.txt")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium: apt install chromium, or Google Chrome")

ELEMENTS = """() => [...document.querySelectorAll('*')].filter(one => one.shadowRoot?.querySelector('.stage')).map(
    one => [...new Set([...one.shadowRoot.querySelector('.picture').querySelectorAll('*')].map(two => two.tagName))])"""
FOCUS = "() => document.activeElement.shadowRoot?.activeElement?.dataset.token"


def test_a_picture_by_keyboard(page, tmp_path: Path):
    fill_hostile(tmp_path)
    with served(ROOT / "app" / "main.py", tmp_path) as address:
        page.goto(f"{address}/lens?run=5e6f")
        tokens = page.locator(".stage .token")
        tokens.first.focus()
        page.keyboard.press("ArrowRight")
        assert page.evaluate(FOCUS) == "1"
        page.keyboard.press("ArrowDown")
        assert page.evaluate(FOCUS) == "3"
        assert page.locator(".told").inner_text().startswith("Image token 3 ·")
        assert tokens.nth(3).get_attribute("aria-label").startswith("Image token 3:")
        (elements,) = page.evaluate(ELEMENTS)
        assert set(elements) == {"DIV", "FIGURE", "IMG", "BUTTON"}, "a model's words made an element"
        page.keyboard.press("+")
        page.wait_for_url(re.compile(r"zoom=1\.5%40"))
        page.keyboard.press("Enter")
        page.get_by_text("Image token 3: what wrote it?").wait_for()
        page.wait_for_url(re.compile("token=3"))
        assert page.evaluate(FOCUS) == "3", "the focus stays where it was"
        page.keyboard.press("Escape")
        page.wait_for_function("() => !location.search.includes('zoom')")
        assert "token=3" in page.url

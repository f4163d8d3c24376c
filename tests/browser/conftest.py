"""The Chromium of the browser journeys, and a page in it that goes nowhere but to this machine."""

import re

import pytest

from tests.browser.serving import CHROMIUM, FLAGS

PATIENCE_MS = 30_000


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


@pytest.fixture
def page(browser):
    """A page that notes every request that leaves this machine."""
    sync_api = pytest.importorskip("playwright.sync_api")
    context = browser.new_context(viewport={"width": 1280, "height": 1400}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    sync_api.expect.set_options(timeout=PATIENCE_MS)
    abroad: list[str] = []
    page.on(
        "request", lambda r: None if re.match(r"(http|ws)://127\.0\.0\.1|data:|blob:", r.url) else abroad.append(r.url)
    )
    yield page
    context.close()
    assert not abroad, abroad

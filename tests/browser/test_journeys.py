"""A few journeys in a real browser: what AppTest cannot see (address bar, clicks on bars, downloads, timers)."""

import re
import tomllib
from pathlib import Path

import pytest

from mmn import jobs
from tests.browser.serving import CHROMIUM, FLAGS, ROOT, served
from tests.pages.filled import fill

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install -r requirements-dev.txt")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium: apt install chromium, or Google Chrome")

PATIENCE_MS = 30_000


@pytest.fixture(scope="module")
def cache_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cache")
    fill(path)
    return path


@pytest.fixture(scope="module")
def address(cache_path: Path):
    with served(ROOT / "tests" / "browser" / "faked_main.py", cache_path, FAKE_STEP_S="0.3") as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


@pytest.fixture
def page(browser):
    """A page that notes every request that leaves this machine."""
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


def chart(page):
    return page.locator("[data-testid=stVegaLiteChart] :is(canvas, svg.marks)").first


def test_layers_filter_lives_in_the_address_and_figures_download(page, address, tmp_path: Path):
    page.goto(f"{address}/?k=43&k=nonsense&method=bad")
    chart(page).wait_for()
    sync_api.expect(page).to_have_url(re.compile(r"\?k=43\+%281\.4\+%25%29$"))
    page.get_by_text("share", exact=True).click()
    sync_api.expect(page).to_have_url(re.compile(r"show=share"))
    page.reload()
    chart(page).wait_for()
    assert "show=share" in page.url
    assert "k=43" in page.url
    sync_api.expect(page.get_by_text("43 (1.4 %)").first).to_be_visible()
    page.get_by_role("button", name="Export").first.click()
    with page.expect_download() as download:
        page.get_by_role("button", name="PDF", exact=True).click()
    assert download.value.suggested_filename == "3f2a9c1b-layers-contribution-single.pdf"
    download.value.save_as(tmp_path / "figure.pdf")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


def test_click_on_a_bar_lists_its_units(page, address):
    page.goto(f"{address}/?k=200&control=false")
    chart(page).wait_for()
    page.wait_for_timeout(500)  # the chart fits itself to the column
    box = chart(page).bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.90, box["y"] + box["height"] * 0.75)
    sync_api.expect(page.get_by_text(re.compile(r"Layer 5: \d+ units"))).to_be_visible()


def test_job_moves_survives_a_reload_and_is_cancelled(page, address, cache_path: Path):
    page.goto(f"{address}/score")
    page.get_by_text("Advanced").click()
    limit = page.get_by_label("Only the first N pictures")
    limit.fill("400")
    limit.press("Enter")
    sync_api.expect(page.get_by_text("400 pictures")).to_be_visible()
    page.get_by_role("button", name="Start scoring").click()
    progress = page.get_by_text(re.compile(r"Scoring: [1-9]\d* of 400, 5\.0 pictures per second, about 1 min"))
    sync_api.expect(progress).to_be_visible()
    first = progress.inner_text()
    sync_api.expect(progress).not_to_have_text(first)
    page.reload()
    sync_api.expect(progress).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    sync_api.expect(page.get_by_text(re.compile("specimen on gallery: cancelled"))).to_be_visible()
    (job,) = jobs.list_jobs(cache_path / "jobs")
    assert jobs.look(job).status == "cancelled"
    page.get_by_text(re.compile("specimen on gallery: cancelled")).click()
    page.get_by_text("Layers of this run").click()
    chart(page).wait_for()
    sync_api.expect(page.get_by_role("heading", name="Layers")).to_be_visible()


def test_settings_are_found_from_any_working_directory():
    """Streamlit looks beside the entry script, not in the repository: without this link the app would listen to the
    whole network and send usage data (the journeys above would notice: no request leaves the machine).
    """
    settings = tomllib.loads((ROOT / "app" / ".streamlit" / "config.toml").read_text())
    assert settings["browser"]["gatherUsageStats"] is False
    assert settings["server"]["address"] == "localhost"

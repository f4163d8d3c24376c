"""A few journeys in a real browser: what AppTest cannot see (address bar, clicks on bars, downloads, timers)."""

import re
import tomllib
from pathlib import Path

import pytest

from mmn.runs import jobs
from tests.browser.serving import CHROMIUM, ROOT, served
from tests.pages.filled import fill, fill_whole

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install -r requirements-dev.txt")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium: apt install chromium, or Google Chrome")


@pytest.fixture(scope="module")
def cache_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cache")
    fill(path)
    fill_whole(path)
    return path


@pytest.fixture(scope="module")
def address(cache_path: Path):
    with served(ROOT / "tests" / "browser" / "faked_main.py", cache_path, FAKE_STEP_S="0.3") as found:
        yield found


def chart(page):
    return page.locator("[data-testid=stVegaLiteChart] :is(canvas, svg.marks)").first


def test_layers_filter_lives_in_the_address_and_figures_download(page, address, tmp_path: Path):
    page.goto(f"{address}/?run=3f2a&k=43&k=nonsense&method=bad")
    chart(page).wait_for()
    sync_api.expect(page).to_have_url(re.compile(r"k=43\+%281\.4\+%25%29(?!.*bad)"))
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
    assert download.value.suggested_filename == "3f2a9c1b-layers-contribution-43-single.pdf"
    download.value.save_as(tmp_path / "figure.pdf")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


def test_click_on_a_bar_lists_its_units(page, address):
    page.goto(f"{address}/?run=3f2a&k=200&control=false")
    chart(page).wait_for()
    page.wait_for_timeout(500)  # the chart fits itself to the column
    box = chart(page).bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.90, box["y"] + box["height"] * 0.75)
    sync_api.expect(page.get_by_text(re.compile(r"Layer 5: \d+ units"))).to_be_visible()


def test_from_a_layer_to_its_units_to_a_picture_and_its_other_noun(page, address):
    page.goto(f"{address}/?run=5e6f&k=20&control=false")
    chart(page).wait_for()
    page.wait_for_timeout(500)
    box = chart(page).bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.90, box["y"] + box["height"] * 0.70)
    sync_api.expect(page.get_by_text(re.compile(r"Layer 3: \d+ units"))).to_be_visible()
    units = page.get_by_test_id("stDataFrame").first
    units.scroll_into_view_if_needed()
    table = units.bounding_box()
    page.mouse.move(table["x"] + 20, table["y"] + 52)
    page.wait_for_timeout(300)
    with page.context.expect_page() as opened:
        page.mouse.click(table["x"] + 25, table["y"] + 54)
    neuron = opened.value
    sync_api.expect(neuron).to_have_url(re.compile(r"neuron=L3\.u\d+"))
    neuron.get_by_role("button", name=re.compile(", rank 1")).first.click()
    sync_api.expect(neuron.get_by_role("heading", name="Image")).to_be_visible()
    sync_api.expect(neuron).to_have_url(re.compile(r"/image\?.*image=\w{12}"))
    nouns = neuron.locator(".st-key-noun button")
    sync_api.expect(nouns).to_have_count(2)
    sync_api.expect(neuron.get_by_text("Ranked by")).to_be_visible()
    for number in (1, 0, 1):
        nouns.nth(number).click()
        sync_api.expect(nouns.nth(number)).to_have_attribute("aria-checked", "true")
    second = nouns.nth(1).inner_text()
    sync_api.expect(neuron).to_have_url(re.compile(f"noun={second.split()[0]}"))
    neuron.reload()
    sync_api.expect(nouns.nth(1)).to_have_attribute("aria-checked", "true")
    sync_api.expect(neuron.get_by_alt_text(re.compile("Where the top unit looks"))).to_be_visible()


def test_units_page_opens_from_the_table_of_a_picture_again_and_again(page, address):
    """A page's own parameters, kept from the last visit, must give way to the link's."""
    page.goto(f"{address}/image?run=5e6f")
    seen = []
    for row in (1, 3):
        sync_api.expect(page.get_by_text("Ranked by")).to_be_visible()
        page.wait_for_timeout(1500)  # the table draws itself on a canvas
        table = page.get_by_test_id("stDataFrame").first.bounding_box()
        page.mouse.click(table["x"] + 15, table["y"] + 36 + 30 * row + 15)
        link = page.get_by_text(re.compile(r"All about L\d"))
        sync_api.expect(link).to_be_visible()
        unit = link.inner_text().removeprefix("All about ")
        link.click()
        sync_api.expect(page.get_by_role("heading", name=re.compile(f"{unit}: layer"))).to_be_visible()
        seen.append(unit)
        page.get_by_role("link", name="Image", exact=True).click()
    assert len(set(seen)) == 2


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
    assert jobs.state_of(job).status == "cancelled"
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


def test_layers_filter_stays_in_the_address_from_page_to_page(page, address):
    page.goto(f"{address}/?run=5e6f&layers=1&layers=2")
    chart(page).wait_for()
    for name in ("Image", "Invariance", "Neuron", "Layers"):
        page.get_by_test_id("stSidebarNav").get_by_role("link", name=name, exact=True).click()
        sync_api.expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
        sync_api.expect(page).to_have_url(re.compile(r"layers=1&layers=2"))
    sync_api.expect(page.locator(".st-key-layers input[type=range]").first).to_have_value("1")

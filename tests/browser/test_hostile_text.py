"""Symptom: a data set whose captions are `![](http://…)` made the browser fetch that address, and links of nouns."""

from pathlib import Path

import pytest

from tests.browser.serving import CHROMIUM, ROOT, served
from tests.pages.hostile import HOST, HOSTILE, fill_hostile

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install -r requirements-dev.txt")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium: apt install chromium, or Google Chrome")

PAGES = sorted(path.stem for path in (ROOT / "pages").glob("*.py"))
ADDRESSES = {"layers": "", "specificity": "specificity?map=One+picture"}  # the others' are their names
UNSAID = (
    "layers",
    "sensitivity",
    "invariance",
    "neuron",
    "benchmark",
    "domains",
    "image_tokens",
    "modules",
    "projector",
)
SAID = {"figures": "~~s~~"}  # the rest of a run's label, which is the last part of a name and has no spaces
SAYS = "text => document.body.innerText.replaceAll('\\u2060', '').replace(/\\s+/g, ' ').includes(text)"
FOUND = """host => ({
    markup: [...document.querySelectorAll('[href], [src], [srcset], [style]')].filter(
        one => ['href', 'src', 'srcset', 'style'].some(name => (one.getAttribute(name) || '').includes(host))
    ).map(one => one.outerHTML.slice(0, 200)),
    drawn: document.querySelectorAll('.katex, [data-testid=stMarkdownContainer] :is(del, em, b, i)').length,
    icons: document.querySelectorAll('[aria-label^=bug_report]').length,
    emojis: document.body.innerText.split('💀').length - 1,
    ran: typeof window.hostile,
    wide: document.documentElement.scrollWidth - window.innerWidth,
})"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory):
    cache_path: Path = tmp_path_factory.mktemp("hostile")
    fill_hostile(cache_path)
    with served(ROOT / "app" / "main.py", cache_path) as found:
        yield found


def assert_only_text(page) -> None:
    found = page.evaluate(FOUND, HOST)
    assert found == {"markup": [], "drawn": 0, "icons": 0, "emojis": 0, "ran": "undefined", "wide": found["wide"]}
    assert found["wide"] <= 0, "a long text makes the page wider than the window"


def settle(page) -> None:
    """Until the page is drawn, with all that is folded away opened."""
    page.locator("[data-testid=stVegaLiteChart], [data-testid=stExpander], [data-testid=stAlert]").first.wait_for()
    page.wait_for_timeout(800)
    folded = page.locator("details:not([open]):not(.st-key-sql-tables *) > summary")  # columns are words of ours
    while folded.count():
        folded.first.click()
    page.wait_for_timeout(500)


def open_page(page, address: str, name: str) -> None:
    """The page with words of the run on it: Figures shows what was pinned, SQL answers what was asked."""
    if name == "figures":
        page.goto(f"{address}/?run=5e6f")
        page.get_by_role("button", name="Pin", exact=True).first.click()
        sync_api.expect(page.get_by_role("button", name="Pinned")).to_be_visible()
    where = ADDRESSES.get(name, name)
    page.goto(f"{address}/{where}{'&' if '?' in where else '?'}run=5e6f")
    if name == "sql":
        page.get_by_role("textbox", name="Statement").fill(f'SELECT "{HOSTILE}"')
        page.get_by_role("button", name="Answer").click()


@pytest.mark.parametrize("name", PAGES)
def test_hostile_text_is_shown_as_it_is_and_nothing_is_fetched(page, address, name):
    """The fixture `page` fails where a request left this machine."""
    open_page(page, address, name)
    settle(page)
    if name not in UNSAID:
        page.wait_for_function(SAYS, arg=SAID.get(name, HOSTILE))
    assert_only_text(page)
    for tile in page.locator("[class*=st-key-tile-] button:visible").all()[:2]:
        tile.hover()
        sync_api.expect(page.get_by_test_id("stTooltipContent").first).to_contain_text("hostile")
        assert_only_text(page)


def test_what_a_user_types_or_links_to_is_shown_as_it_is(page, address):
    page.goto(f"{address}/image?run=5e6f&image={HOSTILE.replace('&', '%26').replace('#', '%23')}")
    sync_api.expect(page.get_by_text("No picture of this run has an id that begins with")).to_be_visible()
    settle(page)
    page.wait_for_function(SAYS, arg=HOSTILE[:50])
    assert_only_text(page)
    page.goto(f"{address}/score")
    page.get_by_text("Folder or list", exact=True).first.click()
    box = page.get_by_role("textbox", name="Folder or list")
    box.fill(HOSTILE)
    box.press("Enter")
    sync_api.expect(page.get_by_text("is no folder or list of pictures")).to_be_visible()
    page.wait_for_function(SAYS, arg=HOSTILE)
    assert_only_text(page)


def test_the_check_finds_markup_where_there_is_some(page, address):
    """What the tests above look for is there as soon as one string is not escaped."""
    page.goto(f"{address}/score")
    page.get_by_test_id("stHeading").first.wait_for()
    page.evaluate("host => document.body.insertAdjacentHTML('beforeend', `<a href='http://${host}'>l</a>`)", HOST)
    with pytest.raises(AssertionError, match="hostile"):
        assert_only_text(page)

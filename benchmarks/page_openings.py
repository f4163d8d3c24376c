"""Do the pages open within a second on the gallery?

A click in the sidebar to the end of the script's run, with all that it put on the page drawn, of each page in turn:
in the first browser that asks a new server, in another one that has never seen Streamlit's files, and in a browser that
has been there before. Prints medians over servers.

    python benchmarks/page_openings.py [servers] [--cache CACHE] [--run RUN]

The bundled run of `specimen-smollm` (`--run`, by the id that `mmn runs` prints) tells whether 46,080 units are slower
than the specimen's 3,072. With a cache its runs are there besides the bundled ones, and pages open on the newest.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402

from tests.browser.serving import CHROMIUM, FLAGS, served  # noqa: E402

GOAL_S: Final = 1.0
PAGES: Final = (
    *("Image", "Neuron", "Invariance", "Specificity", "Sensitivity", "Degradation"),
    *(
        "Modules",
        "Circuits",
        "Image tokens",
        "Hallucination",
        "Patchscopes",
        "Domains",
        "Concept dictionaries",
        "Projector",
    ),
    "Layers",
)
VISITS: Final = ("new server", "new browser", "again")
IS_DONE: Final = """
    !document.querySelector("[data-testid=stStatusWidget]") && !document.querySelector("[data-testid=stSkeleton]")
    && document.querySelector("[data-testid=stApp]").getAttribute("data-test-script-state") !== "running"
"""


def main() -> None:
    """Prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="?", type=int, default=3)
    parser.add_argument("--cache", type=Path, metavar="CACHE", help="of which runs are copied for each server")
    parser.add_argument("--run", default="", metavar="RUN", help="the id of the run that the pages show")
    options = parser.parse_args()
    if options.cache and not (options.cache / "runs").is_dir():
        parser.error(f"{options.cache} has no runs: mmn score --cache {options.cache} writes one")
    found: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for number in range(options.servers):
            cache_path = Path(folder) / str(number)
            cache_path.mkdir()
            if options.cache:
                shutil.copytree(options.cache / "runs", cache_path / "runs")
            with served(ROOT / "app" / "main.py", cache_path) as address:
                first = f"{address}/?run={options.run}" if options.run else address
                for (visit, name), seconds in [*_visits(browser, first, "new server"), *_visits(browser, first)]:
                    found.setdefault((visit, name), []).append(seconds)
        browser.close()
    print(f"{'page':14}" + "".join(f"{visit:>14}" for visit in VISITS) + f"   goal {GOAL_S:.0f} s")
    for name in PAGES:
        print(f"{name:14}" + "".join(f"{statistics.median(found[visit, name]):14.2f}" for visit in VISITS))


def _visits(browser: Browser, address: str, first: str = "new browser") -> list[tuple[tuple[str, str], float]]:
    """Every page opened twice in a browser context of its own, after the first page is full."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(address)
    page.locator("[data-testid=stVegaLiteChart] :is(canvas, svg.marks)").first.wait_for(timeout=60_000)
    page.wait_for_timeout(1500)
    timed = [((visit, name), _seconds_to_open(page, name)) for visit in (first, "again") for name in PAGES]
    context.close()
    return timed


def _seconds_to_open(page: Page, name: str) -> float:
    start = time.perf_counter()
    page.click(f'[data-testid=stSidebarNav] >> text="{name}"')
    page.wait_for_selector(f'h1:has-text("{name}")')
    page.wait_for_function(IS_DONE)
    seconds = time.perf_counter() - start
    page.wait_for_timeout(600)
    return seconds


if __name__ == "__main__":
    main()

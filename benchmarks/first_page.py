"""How much later than Streamlit's own empty page is our first page full?

Paired and alternating: a fresh server and a fresh browser context for each measurement, an empty Streamlit app against
ours with a filled cache; from the navigation to the last mark drawn. Prints the medians, their difference, and warm
loads of servers that have been asked before. Claim: the difference of cold starts is below 2 s.

    python benchmarks/first_page.py [repeats]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Browser, sync_playwright  # noqa: E402

from tests.browser.serving import CHROMIUM, FLAGS, served  # noqa: E402
from tests.pages.filled import fill  # noqa: E402

EMPTY_APP = 'import streamlit as st\nst.title("Empty")\n'
CHART = "[data-testid=stVegaLiteChart] :is(canvas, svg.marks)"


def main(repeats: int) -> None:
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        empty = Path(folder) / "empty" / "main.py"
        empty.parent.mkdir()
        empty.write_text(EMPTY_APP)
        (empty.parent / ".streamlit").symlink_to(ROOT / ".streamlit")
        cache_path = Path(folder) / "cache"
        fill(cache_path, n_images=500, top_k=300)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        _measure(browser, ROOT / "app" / "main.py", CHART, cache_path)  # fills the database once
        for _ in range(repeats):
            for name, entry, mark in (("empty", empty, "h1"), ("ours", ROOT / "app" / "main.py", CHART)):
                cold, warm = _measure(browser, entry, mark, cache_path)
                times.setdefault(f"{name} cold", []).append(cold)
                times.setdefault(f"{name} warm", []).append(warm)
        browser.close()
    for name, seconds in times.items():
        print(f"{name:11} median {statistics.median(seconds):.2f} s  ({', '.join(f'{s:.2f}' for s in seconds)})")
    for state in ("cold", "warm"):
        gaps = [ours - own for ours, own in zip(times[f"ours {state}"], times[f"empty {state}"], strict=True)]
        print(f"first page full after Streamlit's empty page, {state}: median {statistics.median(gaps):.2f} s")


def _measure(browser: Browser, entry: Path, mark: str, cache_path: Path) -> tuple[float, float]:
    """Seconds to the first page of a new server, and of the same server asked again."""
    with served(entry, cache_path) as address:
        return _seconds_to(browser, address, mark), _seconds_to(browser, address, mark)


def _seconds_to(browser: Browser, address: str, mark: str) -> float:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    start = time.perf_counter()
    page.goto(address)
    page.locator(mark).first.wait_for(timeout=60_000)
    seconds = time.perf_counter() - start
    context.close()
    return seconds


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)

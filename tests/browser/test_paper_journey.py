"""From five uploaded pictures to a zip for a paper, in a real browser, with the bundled model: nothing is made up."""

import csv
import io
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from mmn.cli import DONE, main
from mmn.figures.presets import PRESETS
from mmn.specimen import GALLERY_PATH
from tests.browser.serving import CHROMIUM, ROOT, served

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install -r requirements-dev.txt")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium: apt install chromium, or Google Chrome"),
    pytest.mark.timeout(400),
]
PICTURES = [str(GALLERY_PATH / f"{number:04d}.webp") for number in range(5)]
MEASURED_MS = 240_000  # of a job beside other tests
_BAR = re.compile(
    r'"decoder layer \(from 0\): (\d+); units of a picture\'s top k, mean: ([\d.]+); k_label: (\d+)[^;"]*"'
)
CHART = "[data-testid=stVegaLiteChart] :is(canvas, svg.marks)"


def go_to(page, name: str) -> None:
    page.get_by_test_id("stSidebarNav").get_by_role("link", name=name, exact=True).click()
    sync_api.expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()


def choose_run(page, key: str, words: str) -> None:
    page.locator(f".st-key-{key} input").click()
    page.get_by_role("option", name=re.compile(words)).click()


def score(page, address: str) -> None:
    """Five uploaded pictures, few units of each noun, and no maps but the first ten."""
    page.goto(f"{address}/score")
    page.get_by_text("Upload", exact=True).first.click()
    page.locator("input[type=file]").set_input_files(PICTURES)
    kept = page.get_by_role("spinbutton", name="Units kept per noun")
    kept.fill("43")
    kept.press("Enter")
    sync_api.expect(page.get_by_text("5 pictures", exact=True)).to_be_visible()
    choose_run(page, "run", "smollm")  # the link below wins over it
    page.get_by_role("button", name="Start scoring").click()
    page.get_by_text(re.compile("specimen on upload-.*: complete")).click(timeout=MEASURED_MS)
    sync_api.expect(page.get_by_text("Proved on two pictures")).to_be_visible()
    page.get_by_text("Layers of this run").click()
    sync_api.expect(page.locator(".st-key-run input")).to_have_value(re.compile("upload-"))


def pin_filtered_layers(page) -> None:
    """One noun, without the first two layers."""
    page.locator(CHART).first.wait_for()
    page.locator(".st-key-concept input").fill("truck")  # a long list draws only what is seen of it
    page.get_by_role("option", name="truck").click()
    page.keyboard.press("Escape")
    lowest = page.locator(".st-key-layers input[type=range]").first
    lowest.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    sync_api.expect(page).to_have_url(re.compile(r"concept=truck.*layers=2&layers=7"))
    drawn = page.locator(CHART).first
    sync_api.expect(drawn).to_contain_text(re.compile("^2 ?3 ?4 ?5 ?6 ?7 ?decoder layer"))
    sync_api.expect(page.get_by_text(re.compile("concepts: truck")).first).to_be_visible()
    page.get_by_role("button", name="Pin", exact=True).first.click()
    sync_api.expect(page.get_by_role("button", name="Pinned")).to_be_visible()


def look_at_the_map(page) -> None:
    go_to(page, "Image")
    sync_api.expect(page.get_by_alt_text(re.compile("Where the top unit looks"))).to_be_visible()


def pin_degradation(page) -> None:
    go_to(page, "Degradation")
    first = page.get_by_role("spinbutton", name="Pictures, the first")
    first.fill("1")
    first.press("Enter")
    page.get_by_role("button", name="Measure", exact=True).click()
    page.locator(CHART).first.wait_for(timeout=MEASURED_MS)
    page.get_by_role("button", name="Pin", exact=True).first.click()
    sync_api.expect(page.get_by_role("button", name="Pinned")).to_be_visible()


def compare(page) -> None:
    """The bundled run beside it: the same five pictures are in both."""
    choose_run(page, "compare", "specimen gallery")
    go_to(page, "Layers")
    sync_api.expect(page.get_by_text(re.compile("A is run .*they differ in pictures upload-"))).to_be_visible()
    assert page.locator(CHART).count() >= 3, "A, B and their difference"


def download_zip(page, path: Path) -> Path:
    go_to(page, "Figures")
    page.get_by_role("button", name="Make the zip").click()
    with page.expect_download(timeout=MEASURED_MS) as download:
        page.get_by_role("button", name=re.compile("Save the zip")).click(timeout=MEASURED_MS)
    download.value.save_as(path)
    return path


@pytest.fixture(scope="module")
def cache_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("paper")


@pytest.fixture(scope="module")
def unpacked(browser, cache_path: Path) -> Path:
    """The zip at the end of the journey, unpacked."""
    page = browser.new_context(viewport={"width": 1280, "height": 1400}, accept_downloads=True).new_page()
    page.set_default_timeout(60_000)
    sync_api.expect.set_options(timeout=60_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    with served(ROOT / "app" / "main.py", cache_path) as address:
        score(page, address)
        pin_filtered_layers(page)
        look_at_the_map(page)
        pin_degradation(page)
        compare(page)
        path = download_zip(page, cache_path / "figures.zip")
    assert not errors, errors
    with zipfile.ZipFile(path) as archive:
        archive.extractall(cache_path / "unpacked")
    return cache_path / "unpacked"


def test_the_zip_holds_both_figures_and_their_grid(unpacked: Path) -> None:
    endings = ("svg", "pdf", "png", "csv", "csv.recipe.json", "txt")
    each = {f"{name}.{ending}" for name in ("a-layers", "b-degradation") for ending in endings}
    assert {path.name for path in unpacked.iterdir()} == each | {"grid.svg", "grid.pdf", "captions.txt"}
    captions = (unpacked / "captions.txt").read_text()
    assert "upload-" in captions
    assert str(unpacked.parent) not in captions, "a folder of this machine"


@pytest.mark.parametrize("name", ["grid", "a-layers", "b-degradation"])
def test_a_pdf_has_its_fonts_within_and_its_venue_s_width(unpacked: Path, name: str) -> None:
    pdf = unpacked / f"{name}.pdf"
    fonts = _told("pdffonts", pdf).splitlines()[2:]
    assert fonts
    assert all(re.search(r"\byes (?:yes|no) +(?:yes|no)\b", line) for line in fonts), fonts
    venue = next(iter(PRESETS.values()))
    wanted = venue.double_in if name == "grid" else venue.single_in
    (width,) = re.findall(r"Page size: +([\d.]+)", _told("pdfinfo", pdf))
    assert float(width) == pytest.approx(wanted * 72, abs=1)
    assert "truck" in _told("pdftotext", pdf, "-") or name == "b-degradation"


def test_its_rows_are_those_of_the_chart(unpacked: Path) -> None:
    """A bar for each layer from 2 on and each k; the curve's rows are of the nouns that were measured."""
    rows = list(csv.DictReader(io.StringIO((unpacked / "a-layers.csv").read_text())))
    assert {int(row["layer"]) for row in rows} == set(range(2, 8))
    assert {row["method"] for row in rows} >= {"contribution", "random"}
    own = [row for row in rows if row["method"] == "contribution"]
    drawn = {(int(layer), int(k), value) for layer, value, k in _BAR.findall((unpacked / "a-layers.svg").read_text())}
    assert {(int(row["layer"]), int(row["k"]), f"{float(row['mean_units']):.6g}") for row in own} == drawn


@pytest.mark.parametrize("name", ["a-layers.pdf", "b-degradation.svg", "a-layers.csv", "grid.svg"])
def test_a_recipe_makes_the_same_file_again(unpacked: Path, cache_path: Path, tmp_path: Path, name: str) -> None:
    """By the command, in a process that knows the cache alone."""
    again = tmp_path / name
    assert main(["figure", "--recipe", str(unpacked / name), "--out", str(again), "--cache", str(cache_path)]) == DONE
    assert again.read_bytes() == (unpacked / name).read_bytes()


def _told(program: str, *words: object) -> str:
    done = subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=True)
    return done.stdout

"""Every page opens, on an empty and on a filled cache; read-only pages without torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from app import overview
from app.overview import QUESTIONS
from tests.pages.conftest import ROOT
from tests.pages.filled import fill_whole

PAGES = sorted(path.stem for path in (ROOT / "pages").glob("*.py"))


def assert_fine(at) -> None:
    assert not at.exception, at.exception
    assert not at.error, [e.value for e in at.error]
    assert not at.warning, [e.value for e in at.warning]
    assert len(at.title) == 1


@pytest.mark.parametrize("page", PAGES)
def test_page_opens_on_an_empty_cache(page, empty_cache, open_app):
    """And begins with its question."""
    at = open_app(page)
    assert_fine(at)
    question = QUESTIONS[at.title[0].value]
    assert at.main.markdown[0].value == f"**{question}**"
    assert question.endswith("?")


@pytest.mark.parametrize("page", PAGES)
def test_page_opens_on_a_filled_cache(page, filled_cache, open_app):
    at = open_app(page)
    assert_fine(at)
    assert at.sidebar.selectbox[0].value == "specimen gallery 3f2a9c1b", "the newest run"


@pytest.mark.parametrize("page", PAGES)
def test_page_opens_where_nothing_is_missing(page, whole_cache, open_app):
    """And begins with the score that all others do."""
    at = open_app(page)
    assert_fine(at)
    assert at.title[0].value in {one.title for one in overview.PAGES if one.name == page}
    for box in at.selectbox:
        assert box.key not in ("ranking", "edit-method", "new-ablate-method") or box.value == "contribution-folded"
    for box in at.multiselect:
        is_asked = box.key == "method" and page in ("layers", "degradation")
        assert not is_asked or box.value == ["contribution-folded"]


def test_no_page_loads_torch_into_the_app(tmp_path):
    """The Score page, too: the model is the job's business. On a run where nothing is missing, so that all is drawn."""
    fill_whole(tmp_path)
    code = f"""
import os, sys
os.environ["MMN_CACHE"] = {str(tmp_path)!r}
from streamlit.testing.v1 import AppTest
at = AppTest.from_file("app/main.py", default_timeout=60).run()
for page in {PAGES}:
    at.switch_page(f"../pages/{{page}}.py").run()
    assert not at.exception and not at.error, (page, at.exception, at.error)
    print(page, {{"torch", "transformers"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split("\n")[:-1] == [f"{page} set()" for page in PAGES]


def test_app_starts_from_any_folder_without_an_installed_package(tmp_path: Path):
    """AppTest, unlike a server, does not find the settings beside the app: the folder's own say that it is not open."""
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit" / "config.toml").write_text('server.address = "localhost"')
    code = f"""
import os, sys
sys.path = [p for p in sys.path if p]
os.environ["MMN_CACHE"] = {str(tmp_path)!r}
from streamlit.testing.v1 import AppTest
at = AppTest.from_file({str(ROOT / "app" / "main.py")!r}, default_timeout=60).run()
assert not at.exception, at.exception
print(at.title[0].value)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "Layers"

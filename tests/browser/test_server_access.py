"""Symptom: whoever reached the Score page could list any folder of the machine, and start jobs.

A server that others reach shows one page that says what to do, until a login is configured or MMN_TRUSTED_NETWORK=1.
"""

import re
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from tests.browser import oidc
from tests.browser.serving import CHROMIUM, ROOT, served
from tests.browser.socket_client import drawn
from tests.pages.filled import fill_whole

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install -r requirements-dev.txt")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium: apt install chromium, or Google Chrome")

MAIN = ROOT / "app" / "main.py"
REFUSED, LOGIN = "Not open to the network", "Please log in"
OF_THE_RUN = "5e6f0000"


@contextmanager
def filled_app(cache_path: Path, **how: str):
    fill_whole(cache_path)
    with served(MAIN, cache_path, **how) as address:
        yield address


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory):
    with filled_app(tmp_path_factory.mktemp("here")) as address:
        yield address


@pytest.fixture(scope="module")
def provider():
    with oidc.provided() as found:
        yield found


@pytest.fixture(scope="module")
def guarded(provider, tmp_path_factory: pytest.TempPathFactory):
    """An app with a login, at every address, for one domain."""
    cache_path = tmp_path_factory.mktemp("guarded")
    oidc.configure(provider, cache_path)
    with filled_app(cache_path, listen="0.0.0.0", MMN_USERS="@example.test") as address:  # noqa: S104
        yield address


def test_on_this_machine_nothing_changes(here):
    said = drawn(here)
    assert OF_THE_RUN in said
    assert REFUSED not in said


@pytest.mark.parametrize(
    "how",
    [
        {"origin": None},
        {"X_Forwarded_For": "203.0.113.7"},
        {"Forwarded": "for=203.0.113.7"},
        {"Host": "rebound.test:8501", "origin": "http://rebound.test:8501"},
        {"Host": "app.example.test", "origin": "https://app.example.test"},
    ],
    ids=["no origin", "proxy", "proxy, new header", "rebound name", "public name"],
)
def test_a_visitor_who_does_not_come_from_this_machine_sees_and_opens_nothing(here, how):
    said = drawn(here, **how)
    assert REFUSED in said
    assert OF_THE_RUN not in said


def test_a_server_that_others_reach_refuses_and_does_not_open_the_results(tmp_path):
    with filled_app(tmp_path, listen="0.0.0.0") as address:  # noqa: S104
        said = drawn(address)
    assert REFUSED in said
    assert "MMN_TRUSTED_NETWORK=1" in said
    assert "docs/server.md" in said
    assert not (tmp_path / "mmn.duckdb").exists()


@needs_chromium
def test_a_trusted_network_is_let_in_and_reads_only_what_is_configured(page, tmp_path):
    allowed, outside, cache_path = (tmp_path / name for name in ("allowed", "outside", "cache"))
    for folder in (allowed, outside, cache_path):
        folder.mkdir()
    Image.new("RGB", (64, 48)).save(outside / "secret.png")
    Image.new("RGB", (64, 48), "red").save(allowed / "shown.png")
    fill_whole(cache_path)
    environment = {"MMN_TRUSTED_NETWORK": "1", "MMN_ROOTS": str(allowed)}
    with served(MAIN, cache_path, listen="0.0.0.0", **environment) as address:  # noqa: S104
        assert OF_THE_RUN in drawn(address)
        assert OF_THE_RUN in drawn(address, Host="app.example.test", origin="https://app.example.test")
        page.goto(f"{address}/score")
        page.get_by_text("Folder or list", exact=True).first.click()
        box = page.get_by_role("textbox", name="Folder or list")
        for folder, told in ((outside, "is outside the folders"), (allowed, "1 picture")):
            box.fill(str(folder))
            box.press("Enter")
            sync_api.expect(page.get_by_text(told).first).to_be_visible()
        page.goto(f"{address}/image?run=5e6f")  # its pictures lie beside the cache, which is no root
        sync_api.expect(page.get_by_text("is outside the folders").first).to_be_visible()


@pytest.mark.parametrize("cookie", ["", "_streamlit_user=forged; _streamlit_xsrf=forged"])
def test_without_a_login_nothing_is_shown(guarded, cookie):
    said = drawn(guarded, **({"Cookie": cookie} if cookie else {}))
    assert LOGIN in said
    assert OF_THE_RUN not in said


def test_a_login_is_asked_for_on_this_machine_too(provider, tmp_path):
    oidc.configure(provider, tmp_path)
    with filled_app(tmp_path) as address:
        assert LOGIN in drawn(address)


def test_secrets_that_cannot_be_read_let_nobody_in(tmp_path):
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit" / "secrets.toml").write_text("[auth\nclient_id = ")
    with filled_app(tmp_path) as address:
        said = drawn(address)
    assert "The login cannot be set up" in said
    assert OF_THE_RUN not in said


@needs_chromium
def test_who_logs_in_sees_the_results_and_can_log_out(page, guarded, provider):
    provider.claims |= {"email": "ada@example.test"}
    page.goto(f"{guarded}/image?run=5e6f")
    page.get_by_role("button", name="Log in").click()
    page.locator("[data-testid=stVegaLiteChart]").first.wait_for()
    sync_api.expect(page.get_by_text("Logged in as ada@")).to_be_visible()
    page.goto(f"{guarded}/score")
    sync_api.expect(page.get_by_role("heading", name="Score")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    sync_api.expect(page.get_by_text(LOGIN)).to_be_visible()
    assert page.get_by_text(re.compile(OF_THE_RUN)).count() == 0


@needs_chromium
def test_an_account_that_is_not_named_is_kept_out(page, guarded, provider):
    provider.claims |= {"email": "eve@elsewhere.test"}
    page.goto(guarded)
    page.get_by_role("button", name="Log in").click()
    sync_api.expect(page.get_by_text("is not among the users of this server")).to_be_visible()
    assert page.get_by_text(re.compile(OF_THE_RUN)).count() == 0

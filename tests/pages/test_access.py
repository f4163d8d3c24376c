"""Which address is this machine's, who is wanted, and what a confined Score page does."""

from pathlib import Path

import pytest
from PIL import Image

from app import access
from mmn.runs import jobs
from mmn.safety import roots
from tests.pages.filled import fill


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"])
def test_loopback_addresses(address):
    assert access.is_loopback(address)


@pytest.mark.parametrize(
    "address",
    [None, "", "0.0.0.0", "::", "192.0.2.1", "unix:///tmp/x", "no such name", "a" * 300],  # noqa: S104
)
def test_any_other_address_is_reached_by_others(address):
    """None is Streamlit's own default: all of them."""
    assert not access.is_loopback(address)


@pytest.mark.parametrize(
    ("url", "is_own"),
    [
        ("http://localhost:8501", True),
        ("http://app.localhost", True),
        ("//127.0.0.1:8501", True),
        ("http://[::1]:8501", True),
        ("http://localhost.evil.test", False),
        ("http://127.0.0.1.evil.test", False),
        ("http://user@evil.test", False),
        ("http://localhost@evil.test", False),
        ("http://[::1", False),
        ("null", False),
        ("", False),
    ],
)
def test_names_of_this_machine(url, is_own):
    assert access._is_own_name(url) == is_own


@pytest.mark.parametrize(
    ("users", "user", "is_wanted"),
    [
        ("", {"email": "a@b.test"}, True),
        ("a@b.test, c@d.test", {"email": "C@d.test"}, True),
        ("@b.test", {"email": "a@b.test"}, True),
        ("@b.test", {"email": "a@evilb.test"}, False),
        ("@b.test", {"email": "a@b.test", "email_verified": False}, False),
        ("@b.test", {"sub": "1"}, False),
        ("a@b.test", {"email": "x@b.test"}, False),
    ],
)
def test_named_users_and_domains(monkeypatch, users, user, is_wanted):
    monkeypatch.setenv(access.USERS, users)
    assert access._is_wanted(user) == is_wanted


@pytest.fixture
def confined(empty_cache: Path, tmp_path: Path, monkeypatch) -> Path:
    """A folder; the app may read it alone."""
    Image.new("RGB", (64, 48)).save(empty_cache / "beside.png")
    (empty_cache / "allowed").mkdir()
    Image.new("RGB", (64, 48)).save(empty_cache / "allowed" / "a.png")
    monkeypatch.setenv(access.ROOTS, str(empty_cache / "allowed"))
    monkeypatch.setenv(roots.CONFINED_TO, "")
    return empty_cache / "allowed"


def named(open_app, folder: Path, model: str = "specimen"):
    at = open_app("score")
    at.selectbox("score-model").set_value(model)
    at.segmented_control("score-source").set_value("Folder or list").run()
    return at.text_input("score-folder").set_value(str(folder)).run()


def test_a_confined_app_lists_no_other_folder_and_starts_no_job_on_it(confined, open_app):
    at = named(open_app, confined.parent)
    assert "outside the folders" in at.error[0].value
    assert not [button for button in at.button if button.label == "Start scoring"]
    assert str(confined) in " ".join(one.value.replace("\\", "") for one in at.caption)
    assert not named(open_app, confined).error


def test_a_confined_app_takes_no_other_model(confined, open_app):
    fill(confined.parent, model=str(confined.parent))  # a run of it makes it one of the options
    at = named(open_app, confined, str(confined.parent))
    assert "outside the folders" in at.error[0].value
    with pytest.raises(roots.OutsideRootsError):
        jobs.start(["true"], confined.parent / "jobs", str(confined.parent), "gallery")

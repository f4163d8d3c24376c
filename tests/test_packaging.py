"""Whoever installs the wheel has the dashboard, and dependencies with which the program was tried."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mmn.cli import main
from mmn.cli.app import entry
from mmn.models.quantised import FORMATS
from tests.browser.serving import free_port, wait_for_health

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel puts into `site-packages`."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")  # noqa: S202 - our own wheel
    return folder / "site"


def environment(installed: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def test_the_wheel_holds_library_and_dashboard(installed: Path) -> None:
    dashboard = installed / "mmn" / "dashboard"
    assert files(dashboard / "app") - {".streamlit/config.toml"} == files(ROOT / "app") - {".streamlit/config.toml"}
    assert files(dashboard / "pages") == files(ROOT / "pages")
    config = (dashboard / "app" / ".streamlit" / "config.toml").read_bytes()
    assert config == (ROOT / ".streamlit" / "config.toml").read_bytes()
    assert files(installed / "mmn") >= files(ROOT / "mmn")
    assert {path.name for path in installed.iterdir()} == {"mmn", next(installed.glob("*.dist-info")).name}


def test_a_source_archive_holds_what_the_wheel_is_made_of(tmp_path: Path) -> None:
    """Its configuration is a link in the repository; without it the server would listen on every network."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2]: opened.getmember(name) for name in opened.getnames()}
    assert names["app/.streamlit/config.toml"].size == (ROOT / ".streamlit" / "config.toml").stat().st_size
    assert {f"{folder}/{one}" for folder in ("app", "pages", "mmn") for one in files(ROOT / folder)} <= set(names)


def test_mmn_app_serves_the_dashboard_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    """From a folder with modules of the same names, which must not be taken for ours."""
    (tmp_path / "app.py").write_text("raise RuntimeError('not this one')")
    port = free_port()
    words = ["app", "--cache", "found", "--server.headless", "true", "--server.port", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-m", "mmn", *words],
        cwd=tmp_path,
        env=environment(installed),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for_health(f"http://127.0.0.1:{port}/_stcore/health", server)
    finally:
        server.terminate()
        told = server.communicate(timeout=20)[0]
    assert f"http://localhost:{port}" in told, "the wheel's config.toml: this machine only"


def test_the_first_page_of_the_wheel_opens(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / ".streamlit", tmp_path / ".streamlit")  # which `mmn app` finds beside its own main.py
    (tmp_path / "app.py").write_text("raise RuntimeError('not this one')")
    program = (
        "from streamlit.testing.v1 import AppTest\nfrom mmn.cli.app import entry\n"
        "at = AppTest.from_file(entry(), default_timeout=60).run()\n"
        "assert not at.exception and not at.error, (at.exception, at.error)\n"
        "print(entry(), at.title[0].value)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(installed) | {"MMN_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [str(installed / "mmn" / "dashboard" / "app" / "main.py"), "Layers"]


def test_from_a_clone_mmn_app_takes_the_clone_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started = []
    monkeypatch.setattr(os, "execve", lambda *arguments: started.append(arguments))
    main(["app", "--cache", str(tmp_path), "--server.port", "8600"])
    ((_, command, environ),) = started
    assert command[1:] == ["-m", "streamlit", "run", str(ROOT / "app" / "main.py"), "--server.port", "8600"]
    assert environ["MMN_CACHE"] == str(tmp_path)
    assert entry() == ROOT / "app" / "main.py"


def requirements(lines: list[str]) -> dict[str, Requirement]:
    found = [Requirement(line.partition("#")[0]) for line in lines if line and not line.startswith("#")]
    return {one.name: one for one in found}


def test_every_pin_is_within_its_bound_and_every_bound_has_a_pin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = requirements(project["dependencies"])
    pins = requirements((ROOT / "requirements.txt").read_text().splitlines())
    assert list(bounds) == list(pins)
    for name, pin in pins.items():
        (exact,), (least,) = pin.specifier, bounds[name].specifier
        assert exact.operator == "=="
        assert least.operator == ">=", f"{name}: an environment may have its own, so no upper bound"
        assert bounds[name].specifier.contains(exact.version), f"{name} {exact.version} is below {least}"


def test_the_table_of_tried_versions_begins_with_the_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rows = re.findall(r"^\| `([\w-]+)` \| ([\d.]+) \|", (ROOT / "docs" / "install.md").read_text(), re.MULTILINE)
    assert [f"{name}>={oldest}" for name, oldest in rows] == project["dependencies"]


def test_a_commit_is_checked_as_in_ci() -> None:
    hooks = re.findall(r"entry: ([^,]+),", (ROOT / ".pre-commit-config.yaml").read_text())
    commands = [line.partition(" >")[0] for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    assert hooks == [command for command in commands if command.split(" ")[0] in ("ruff", "mypy")]


def test_what_is_optional_for_models_is_pinned_and_as_the_tests_have_it() -> None:
    """`peft` and the like, in the file that README names, at the versions that `requirements-dev.txt` tests."""
    read = {
        name: requirements([line for line in (ROOT / name).read_text().splitlines() if not line.startswith("-r")])
        for name in ("requirements-models.txt", "requirements-dev.txt")
    }
    models, dev = read.values()
    named_in_messages = {"torchvision", "timm", "num2words", "sentencepiece", "peft", "accelerate"}
    assert named_in_messages | {package for one in FORMATS.values() for package in one.packages} <= set(models)
    assert all(re.fullmatch(r"==[\d.]+", str(pin.specifier)) for pin in models.values())
    assert {name: str(dev[name].specifier) for name in set(models) & set(dev)} == {
        name: str(models[name].specifier) for name in set(models) & set(dev)
    }
    assert "pip install -r requirements-models.txt" in (ROOT / "README.md").read_text()

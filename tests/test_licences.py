"""Whoever installs this program gets its dependencies with it: each is listed, under a licence that lets them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0",
    "CNRI-Python", "ISC", "LGPL-3.0-or-later", "MIT", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Zlib",
}  # fmt: skip
OLD_WORDS = {  # what older metadata says, in words of its own
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def named(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def runtime_dependencies() -> dict[str, Distribution]:
    """All that `requirements.txt` installs here, by name: itself, and what that needs without extras."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    todo = [Requirement(line) for line in lines if line and not line.startswith("#")]
    found: dict[str, Distribution] = {}
    while todo:
        name = named(todo.pop().name)
        if name not in found:
            found[name] = distribution(name)
            todo += needed(found[name])
    return found


def needed(of: Distribution) -> Iterator[Requirement]:
    for text in of.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def licences(of: Distribution) -> set[str]:
    """The licences that a distribution declares, by their SPDX identifiers."""
    told = str(of.metadata.json.get("license_expression", ""))
    if not told:
        classes = [
            text.split("::")[-1].strip() for text in of.metadata.get_all("Classifier") or () if "License" in text
        ]
        told = " AND ".join(classes) or str(of.metadata.json.get("license", "none is declared"))
    parts = [part.strip(" ()\n") if part not in OLD_WORDS else part for part in re.split(r" AND | OR ", told)]
    return {OLD_WORDS.get(part, part) for part in parts}


def listed() -> dict[str, set[str]]:
    """The table of `docs/trust.md`: by package, its licences."""
    text = (ROOT / "docs" / "trust.md").read_text().partition("## Licences")[2]
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|$", text, re.MULTILINE)
    return {name: {part.strip() for part in told.split(",")} for name, told in rows}


def test_every_dependency_is_listed_under_its_licence() -> None:
    table = listed()
    for name, found in runtime_dependencies().items():
        if name.startswith(("nvidia-", "triton", "cuda-")):  # only with a CUDA build of torch, whose terms they have
            continue
        assert name in table, f"docs/trust.md does not list {name}: {', '.join(sorted(licences(found)))}"
        assert licences(found) == table[name], f"docs/trust.md lists {name} as {table[name]}"


def test_every_listed_licence_is_allowed_and_every_row_is_of_a_dependency() -> None:
    table = listed()
    assert len(table) > 50
    assert {name for name, told in table.items() if told - ALLOWED} == set()
    assert set(table) - set(runtime_dependencies()) == set()


def test_a_dependency_that_is_not_installed_is_noticed() -> None:
    with pytest.raises(PackageNotFoundError):
        distribution("no-such-package-as-this")


@pytest.mark.parametrize(
    ("told", "found"), [("GPL-3.0-only", {"GPL-3.0-only"}), ("MIT AND Proprietary", {"MIT", "Proprietary"})]
)
def test_a_licence_that_is_not_allowed_is_found(told: str, found: set[str]) -> None:
    assert licences(SimpleNamespace(metadata=SimpleNamespace(json={"license_expression": told}))) == found  # type: ignore[arg-type]
    assert found - ALLOWED

"""The docs are a site whose links lead somewhere; the commands, flags and files that they and the README show exist.

The tutorial's pictures are what its commands make.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from mmn.cli import DONE, build_parser, main
from mmn.errors import UsageError
from mmn.specimen import RUN_PATH
from mmn.store import Store
from mmn.studies.equations import EQUATIONS
from mmn.studies.registry import STUDIES
from mmn.studies.site import DOCS, build

MADE = re.compile(r"^python -m mmn (figure (\S+) .*--out (docs/tutorial/\S+\.svg).*)$", re.MULTILINE)
COMMANDS = MADE.findall((DOCS / "tutorial.md").read_text(encoding="utf-8"))
ROOT = DOCS.parent
PAGES = {
    path.name: path.read_text(encoding="utf-8").replace("\\\n", "")
    for path in (ROOT / "README.md", *sorted(DOCS.glob("*.md")))
}
SHOWN = re.compile(r"^(?: {4})?(?:python -m )?mmn (.+)$", re.MULTILINE)  # a command on a line of its own
CODE = re.compile(r"`([^`\n]+)`")
FOREIGN = {"--index-url", "--check", "--server", "--graph_file_dir", "--shipped", "--only"}  # of pip, ruff and others


class Page(HTMLParser):
    """The addresses and the ids of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - its base's name
        given = dict(attrs)
        self.addresses += [value for name in ("href", "src") if (value := given.get(name))]
        self.ids |= {value for value in (given.get("id"),) if value}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the shipped run."""
    path = tmp_path_factory.mktemp("cache")
    with Store.open(path) as store:
        store.load_new_shards([RUN_PATH])
    return path


def dead(site: dict[str, Page], folder: Path) -> Iterator[str]:
    for name, page in site.items():
        for address in page.addresses:
            file, _, anchor = unquote(address).partition("#")
            where = file or name
            is_there = (folder / where).is_file() and (not anchor or anchor in site[where].ids)
            if "://" not in address and not is_there:
                yield f"{name}: {address}"


def test_every_link_of_the_site_leads_somewhere(tmp_path: Path) -> None:
    out = tmp_path / "site"
    site = {path.name: Page(path) for path in build(out)}
    assert {f"study-{study.name}.html" for study in STUDIES} | {"tutorial.html", "methods.html"} <= set(site)
    assert not list(dead(site, out))
    site["index.html"].addresses.append("methods.html#no-such-heading")
    assert list(dead(site, out)) == ["index.html: methods.html#no-such-heading"]


def unknown_commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    for name, page in PAGES.items():
        for command in SHOWN.findall(page):
            try:
                options, others = parser.parse_known_args(shlex.split(command, comments=True))
            except UsageError as error:
                yield f"{name}: mmn {command}: {error}"
            else:
                if others and options.command != "app":  # which hands them on to Streamlit
                    yield f"{name}: mmn {command}: {others}"


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {flag for one in action.choices.values() for flag in flags_of(one)}
    return found


def test_every_command_and_flag_that_is_shown_is_the_program_s() -> None:
    parser = build_parser()
    assert len([command for page in PAGES.values() for command in SHOWN.findall(page)]) > 80
    assert not list(unknown_commands(parser))
    known = flags_of(parser) | FOREIGN
    shown = {
        (name, flag) for name, page in PAGES.items() for flag in re.findall(r"`(?:[^`\n]* )?(--[a-z][\w-]+)", page)
    }
    assert not {(name, flag) for name, flag in shown if flag not in known}


def test_every_file_that_is_named_is_there() -> None:
    named = {
        (name, code)
        for name, page in PAGES.items()
        for code in CODE.findall(page)
        if re.fullmatch(r"(?:app|benchmarks|docs|mmn|pages|tests)/[\w./-]+", code)
    }
    assert len(named) > 30
    assert not {(name, code) for name, code in named if not (ROOT / code).exists()}


def test_every_study_links_its_equations_to_lines_of_source(tmp_path: Path) -> None:
    out = tmp_path / "site"
    build(out)
    assert set(EQUATIONS) == {study.name for study in STUDIES}
    page = (out / "study-editing.html").read_text(encoding="utf-8")
    address, line = re.findall(r'href="(source-mmn.studies.editing.objective.html)#(L\d+)"', page)[0]
    assert f'id="{line}"' in (out / address).read_text(encoding="utf-8")
    (found,) = re.findall(rf'id="{line}">.*', (out / address).read_text(encoding="utf-8"))
    assert "def p2_loss" in found


def test_a_folder_of_something_else_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="holds something else"):
        build(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def drawn(path: Path) -> str:
    """A figure without its recipe, which names versions."""
    return re.sub(r"<metadata.*?</metadata>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize(("command", "name", "path"), COMMANDS, ids=[name for _, name, _ in COMMANDS])
def test_the_tutorial_s_pictures_are_what_its_commands_make(
    command: str, name: str, path: str, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "made.svg"
    assert main([*shlex.split(command.replace(path, str(out))), "--cache", str(folder)]) == DONE
    assert drawn(out) == drawn(DOCS.parent / path)


def test_every_picture_of_the_tutorial_has_its_command() -> None:
    shown = re.findall(r"\]\((tutorial/\S+)\)", (DOCS / "tutorial.md").read_text(encoding="utf-8"))
    assert [f"docs/{one}" for one in shown] == [path for *_, path in COMMANDS]
    assert len(shown) >= 4

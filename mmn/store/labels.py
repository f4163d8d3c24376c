"""What people call a run: a name, a note and tags, in a small file for each run that has any.

    <cache>/labels/<run id>.json        {"name": "…", "note": "…", "tags": ["…"]}

A run's own folder may be read-only (the bundled one), lie elsewhere or be a copy, and the database is rebuilt from such
folders when it is lost: so neither holds them, and a label is neither part of a run's identity nor of any number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from mmn.errors import BrokenFileError, SetAside, UsageError
from mmn.printable import quoted
from mmn.safety.atomic_files import explain_unwritable, write_whole
from mmn.safety.inside import inside, is_run_id
from mmn.safety.regular_files import read_json_object

MOST_NAME: Final = 60  # letters
MOST_NOTE: Final = 4000
MOST_TAG: Final = 30
MOST_TAGS: Final = 20
_REMEDY: Final = "remove that file; the run is only named by it"


@dataclass(frozen=True)
class Label:
    """A run's name, note and tags; any of them may be empty."""

    name: str = ""
    note: str = ""
    tags: tuple[str, ...] = ()


def cleaned(name: str, note: str, tags: Sequence[str]) -> Label:
    """The label that a person means: spaces tidied, a tag once.

    Raises:
        UsageError: something is too long, or has letters that cannot be shown.
    """
    shown = " ".join(name.split())
    told = tuple(dict.fromkeys(" ".join(tag.split()) for tag in tags if tag.strip()))
    _require("a name", shown, MOST_NAME)
    _require("a note", note.replace("\n", " ").replace("\t", " "), MOST_NOTE)
    for tag in told:
        _require("a tag", tag, MOST_TAG)
        if "," in tag:
            raise UsageError(f"a tag has no comma, as {quoted(tag)} has: give several tags")
    if len(told) > MOST_TAGS:
        raise UsageError(f"a run has at most {MOST_TAGS} tags, not {len(told)}")
    return Label(shown, note.strip(), told)


def _require(what: str, text: str, most: int) -> None:
    if len(text) > most:
        raise UsageError(f"{what} has at most {most:,} letters, not {len(text):,}")
    if not text.isprintable():
        raise UsageError(f"{what} has letters that cannot be shown: {quoted(text)}")


def read_labels(cache_path: Path) -> tuple[dict[str, Label], list[SetAside]]:
    """The labels of a cache by run id, and what is no readable one."""
    folder = cache_path / "labels"
    found: dict[str, Label] = {}
    broken: list[SetAside] = []
    for path in sorted(folder.glob("[!.]*.json")) if folder.is_dir() else ():
        try:
            found[path.stem] = _read(path)
        except BrokenFileError as error:
            broken.append(error.told)
    return found, broken


def read_label(cache_path: Path, run_id: str) -> Label:
    """The label of one run; the empty one where there is none, or none that can be read (`read_labels` says why)."""
    path = cache_path / "labels" / f"{run_id}.json"
    try:
        return _read(path) if path.exists() else Label()
    except BrokenFileError:
        return Label()


def _read(path: Path) -> Label:
    if not is_run_id(path.stem):
        raise BrokenFileError(path, f"{quoted(path.stem)} is no id of a run", _REMEDY)
    values = read_json_object(path, _REMEDY)
    name, note, tags = (values.get(key) for key in ("name", "note", "tags"))
    is_fit = isinstance(name, str) and isinstance(note, str) and isinstance(tags, list)
    if not is_fit or not all(isinstance(tag, str) for tag in tags or ()):
        raise BrokenFileError(path, "it is not a name, a note and a list of tags", _REMEDY)
    try:
        return cleaned(name or "", note or "", tags or ())
    except UsageError as error:
        raise BrokenFileError(path, str(error), _REMEDY) from error


def write_label(cache_path: Path, run_id: str, label: Label) -> None:
    """Keeps a label in place of the one before; an empty one leaves no file.

    Raises:
        CacheError: nothing can be written there.
    """
    folder = cache_path / "labels"
    path = inside(folder, f"{run_id}.json")
    with explain_unwritable(path):
        if label == Label():
            path.unlink(missing_ok=True)
            return
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(asdict(label), ensure_ascii=False, indent=1).encode())

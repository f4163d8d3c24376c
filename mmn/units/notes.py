"""Notes that people write on units of a model: `<cache>/unit-notes/<fingerprint>/L14.u201.txt`, one file each.

They are the model's, not a run's: every run of the same weights shows them. A unit of an expert has its flat number.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mmn.core import Neuron
from mmn.errors import UsageError
from mmn.safety.atomic_files import explain_unwritable, write_whole
from mmn.safety.inside import inside
from mmn.safety.regular_files import read_regular

FOLDER: Final = "unit-notes"
MOST_LETTERS: Final = 2000
_SUFFIX: Final = ".txt"
_REMEDY: Final = "remove it"


def note_on(cache_path: Path, fingerprint: str, unit: Neuron) -> str:
    """What was noted on a unit; "" where nothing was.

    Raises:
        CacheError: the note's file is none of ours.
    """
    path = _path(cache_path, fingerprint, unit)
    if not path.exists():
        return ""
    text = read_regular(path, 4 * MOST_LETTERS + 4, _REMEDY).decode(errors="replace")
    return text.rstrip("\n")[:MOST_LETTERS]


def write_note(cache_path: Path, fingerprint: str, unit: Neuron, text: str) -> None:
    """Notes something on a unit, in the place of what was noted before; an empty text removes that.

    Raises:
        UsageError: too long.
        CacheError: the cache cannot be written.
    """
    said = text.strip().replace("\r\n", "\n").encode(errors="replace").decode()
    if len(said) > MOST_LETTERS:
        raise UsageError(f"a note has up to {MOST_LETTERS:,} letters, this one {len(said):,}: shorten it")
    path = _path(cache_path, fingerprint, unit)
    with explain_unwritable(path):
        if not said:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, f"{said}\n".encode())


def notes(cache_path: Path, fingerprint: str) -> dict[Neuron, str]:
    """All notes on units of a model, by unit; what is none of ours is passed over."""
    folder = inside(cache_path / FOLDER, fingerprint)
    found: dict[Neuron, str] = {}
    for path in folder.glob(f"*{_SUFFIX}") if folder.is_dir() else ():
        try:
            unit = Neuron.parse(path.name.removesuffix(_SUFFIX))
        except UsageError:
            continue
        if text := note_on(cache_path, fingerprint, unit):
            found[unit] = text
    return dict(sorted(found.items()))


def _path(cache_path: Path, fingerprint: str, unit: Neuron) -> Path:
    return inside(inside(cache_path / FOLDER, fingerprint), f"{unit}{_SUFFIX}")

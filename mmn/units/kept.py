"""Sets of units that are kept in a cache, one file each: `<cache>/units/NAME.json`.

Files and not rows, so that a command reads them while the dashboard holds the database. Each is written whole or not at
all. A set is never changed behind a reader's back: studies name it with the digest of its units (`sets`).
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from mmn.core import ModelFacts, Neuron
from mmn.errors import BrokenFileError, UsageError
from mmn.printable import quoted
from mmn.safety.atomic_files import explain_unwritable, write_whole
from mmn.safety.inside import inside, is_name
from mmn.safety.regular_files import read_json_object
from mmn.units.set_files import read_set
from mmn.units.sets import MOST_UNITS, Shape, UnitSet, require_units

FOLDER: Final = "units"
_SUFFIX: Final = ".json"
_MOST_LETTERS: Final = 60  # of a name
_MOST_BYTES: Final = 64_000_000
_REMEDY: Final = "remove it, and save the set again"
_CHANGING = threading.Lock()  # a click adds a unit to what is there


@dataclass(frozen=True)
class Kept:
    """What a cache holds: sets by name, and what is no readable set."""

    sets: tuple[UnitSet, ...]
    broken: tuple[BrokenFileError, ...]


def kept_sets(cache_path: Path) -> Kept:
    """The sets of a cache, by name."""
    folder = cache_path / FOLDER
    sets: list[UnitSet] = []
    broken: list[BrokenFileError] = []
    for path in sorted(folder.glob(f"*{_SUFFIX}")) if folder.is_dir() else ():
        if path.name.startswith("."):
            continue
        try:
            sets.append(_read(path))
        except BrokenFileError as error:
            broken.append(error)
    return Kept(tuple(sets), tuple(broken))


def load_set(cache_path: Path, name: str) -> UnitSet:
    """One set.

    Raises:
        UsageError: there is none of that name; the message lists what there is.
        CacheError: its file is broken.
    """
    path = _path(cache_path, name)
    if not path.exists():
        there = ", ".join(one.name for one in kept_sets(cache_path).sets) or "none yet (mmn units save NAME)"
        raise UsageError(f"no set of units {quoted(name)} in {cache_path}; there are: {there}")
    return _read(path)


def save_set(cache_path: Path, chosen: UnitSet) -> None:
    """Keeps a set.

    Raises:
        UsageError: no name for one, or one that is taken by other units.
        CacheError: the cache cannot be written.
    """
    path = _path(cache_path, chosen.name)
    with _CHANGING:
        if path.exists() and _read(path).units != chosen.units:
            raise UsageError(f"there is a set {quoted(chosen.name)} of other units: choose another name, or delete it")
        _write(path, chosen)


def add_unit(cache_path: Path, name: str, unit: Neuron, run: str, facts: ModelFacts) -> UnitSet:
    """Adds a unit at the end of a set, which is made where there is none; one that is in it stays where it is.

    Raises:
        UsageError: no name for a set, a set of another model, a unit that the model does not have.
        CacheError: the cache cannot be written, or the set is broken.
    """
    path = _path(cache_path, name)
    require_units([unit], facts, "that set")
    new = UnitSet(name, (unit,), (), facts.name, facts.fingerprint, Shape.of(facts), {"run": run, "chosen": "by hand"})
    with _CHANGING:
        found = _read(path) if path.exists() else new
        if found.fingerprint != facts.fingerprint:
            raise UsageError(
                f"the set {quoted(name)} is of another model, {found.model or 'none'}: choose another name"
            )
        if unit not in found.units:
            scores = (*found.scores, None) if found.scores else ()
            found = replace(found, units=(*found.units, unit), scores=scores, origin=_extended(found.origin))
        _write(path, found)
    return found


def delete_set(cache_path: Path, name: str) -> None:
    """Removes a set.

    Raises:
        UsageError: there is none of that name.
        CacheError: the cache cannot be written.
    """
    path = _path(cache_path, name)
    if not path.exists():
        load_set(cache_path, name)  # says which there are
    with explain_unwritable(path):
        path.unlink()


def find_set(cache_path: Path, text: str, facts: ModelFacts) -> UnitSet:
    """The set that `--units FILE|NAME` means: a kept set of that name, else a file.

    Raises:
        UsageError: neither; a file that is no set of the model's units.
        CacheError: a kept set that is broken.
    """
    if is_name(text) and _path(cache_path, text).exists():
        return load_set(cache_path, text)
    if "/" in text or Path(text).suffix.lower() in (".csv", ".txt", ".parquet"):
        return read_set(Path(text).expanduser(), facts)
    return load_set(cache_path, text)


def _path(cache_path: Path, name: str) -> Path:
    if not is_name(name) or len(name) > _MOST_LETTERS or name.isdigit() or name.endswith("."):
        raise UsageError(
            f"{quoted(name)} is no name of a set: use letters, digits, _ . and -, up to {_MOST_LETTERS} of them, and "
            "not digits alone"
        )
    return inside(cache_path / FOLDER, f"{name}{_SUFFIX}")


def _extended(origin: Mapping[str, str]) -> dict[str, str]:
    return dict(origin) | {"chosen": "by hand" if set(origin) <= {"run", "chosen"} else "units added by hand"}


def _write(path: Path, chosen: UnitSet) -> None:
    values = {
        "name": chosen.name,
        "model": chosen.model,
        "fingerprint": chosen.fingerprint,
        "shape": None if chosen.shape is None else [chosen.shape.n_layers, chosen.shape.d_mlp, chosen.shape.d_experts],
        "origin": dict(chosen.origin),
        "saved_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "units": [[one.layer, one.unit] for one in chosen.units],
        "scores": list(chosen.scores),
    }
    with explain_unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _read(path: Path) -> UnitSet:
    values = read_json_object(path, _REMEDY, _MOST_BYTES)
    try:
        return _set_of(values, path.name.removesuffix(_SUFFIX))
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise BrokenFileError(path, f"it is no set of units as mmn writes it ({str(error)[:80]})", _REMEDY) from error


def _set_of(values: dict[str, Any], name: str) -> UnitSet:
    """What a file says, checked: it may be a stranger's."""
    texts = {key: values[key] for key in ("model", "fingerprint")} | values["origin"]
    if values["name"] != name or not all(isinstance(one, str) for one in (*texts, *texts.values())):
        raise ValueError("its name or texts are not what they may be")
    units = tuple(Neuron(_count(layer), _count(unit)) for layer, unit in values["units"])
    scores = tuple(None if one is None else _score(one) for one in values["scores"])
    if len(units) > MOST_UNITS:
        raise ValueError(f"more than {MOST_UNITS:,} units")
    shape = values["shape"]
    known = None if shape is None else Shape(_count(shape[0]), _count(shape[1]), tuple(map(_count, shape[2])))
    if known is not None and any(one.layer >= known.n_layers or one.unit >= known.d_mlp for one in units):
        raise ValueError("a unit outside its own model")
    return UnitSet(name, units, scores, texts["model"], texts["fingerprint"], known, values["origin"])


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 10**9:
        raise ValueError("a number that is no whole one from 0")
    return value


def _score(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a score that is no number")
    return float(value)

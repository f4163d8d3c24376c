r"""Matches names in annotation files with files, or with a run's pictures: the one place that compares names.

    a name ─► its parts: NFC, `\` as `/`, no `.` and `..`
      ─► paths with the same last part ─► the one that shares the longest end with the name
      ─► a path that several names reach is the one's that shares most; of equals it is nobody's

A path is reached by a name that it ends with (`001.png` for `a/001.png`), by one that ends with all of it within its
folder (`train/a/001.png` of another machine for `a/001.png`), or by two parts that both end with. `b/001.png` is not
`a/001.png`: its folder says otherwise. Of a web address, whose folders are none of this machine's, the last part is
enough.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar
from urllib.parse import unquote, urlsplit

from mmn.images.places import is_file

Target = TypeVar("Target")
Parts = tuple[str, ...]
_HAS_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_IS_ABSOLUTE: Final = re.compile(r"/|[a-z]:/", re.IGNORECASE)
_MOST_NAMED: Final = 3  # paths that a message lists


@dataclass(frozen=True)
class Unresolved:
    """A name that no path, or more than one, could be; `reason` says why, and what to do."""

    reason: str
    is_ambiguous: bool


@dataclass(frozen=True)
class _Known(Generic[Target]):
    """A path that names may mean: all its parts, the last `n_inside` of them within its folder, and what it is of."""

    path: Path
    parts: Parts
    n_inside: int
    target: Target


@dataclass(frozen=True, order=True)
class _Fit:
    """How well a path fits a name; `is_exact` where they are the same within the folder."""

    is_exact: bool
    n_common: int


class Resolver(Generic[Target]):
    """Finds which of some paths are meant by names; `targets` says what each path is of (several may be of one)."""

    def __init__(self, targets: Mapping[Path, Target], folder: Path) -> None:
        self._folder = folder
        n_folder = len(parts_of(str(folder)))
        self._by_last_part: dict[str, list[_Known[Target]]] = {}
        for path, target in targets.items():
            parts = parts_of(str(path))
            n_inside = len(parts) - n_folder if path.is_relative_to(folder) else len(parts)
            self._by_last_part.setdefault(parts[-1] if parts else "", []).append(_Known(path, parts, n_inside, target))

    def resolve(self, names: Iterable[str]) -> dict[str, Target | Unresolved]:
        """What each name means. Names that differ in spelling alone mean the same."""
        found: dict[str, Target | Unresolved] = {}
        claims: dict[Path, dict[Parts, tuple[_Fit, list[str]]]] = {}
        for name in dict.fromkeys(names):
            best = self._best(name)
            if isinstance(best, Unresolved):
                found[name] = best
            else:
                fit, known = best
                found[name] = known.target
                claims.setdefault(known.path, {}).setdefault(parts_of(name), (fit, []))[1].append(name)
        for claimed in claims.values():
            if len(claimed) > 1:
                found |= _refused(claimed)
        return found

    def _best(self, name: str) -> tuple[_Fit, _Known[Target]] | Unresolved:
        parts = parts_of(name)
        known = self._by_last_part.get(parts[-1], []) if parts else []
        fits = {one.path: _fit(parts, one, is_address=_is_address(name)) for one in known}
        reached = [one for one in known if fits[one.path] is not None]
        if not reached:
            return Unresolved(self._why_missing(name, known), is_ambiguous=False)
        best = max(fit for fit in fits.values() if fit is not None)
        chosen = [one for one in reached if fits[one.path] == best]
        if len({one.target for one in chosen}) > 1:
            paths = _listed([str(one.path) for one in chosen])
            return Unresolved(f"{name} could be {paths}: write more of its path", is_ambiguous=True)
        return best, chosen[0]

    def _why_missing(self, name: str, known: Sequence[_Known[Target]]) -> str:
        if not known:
            return f"{name} is not in {self._folder}: copy it there, or leave it out of the annotations"
        paths = _listed([str(one.path) for one in known])
        return f"{name} is not in {self._folder}, and {paths} is in another folder: give the folder that holds it"


def parts_of(name: str) -> Parts:
    """The parts of a path or web address, as they are compared."""
    text = unquote(urlsplit(name).path) if _is_address(name) else name
    parts: list[str] = []
    for part in unicodedata.normalize("NFC", text).replace("\\", "/").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return tuple(parts)


def resolve_beside(folder: Path, names: Iterable[str]) -> dict[str, Path | Unresolved]:
    """The file that each name of a list or a table in `folder` means.

    The name as it is written, if that is there; else in another spelling (Unicode, backslashes); else, of a path of
    another machine, the file in `folder` with the longest common end. A name that nothing fits keeps its own path,
    which does not open.
    """
    spelling = _Spelling()
    literal = {name: _literal(folder, name) for name in dict.fromkeys(names)}
    there = {name: path for name, path in literal.items() if os.path.lexists(path)}
    absent = [name for name in literal if name not in there]
    if not absent:
        return dict(literal)
    nearby = {path: path for name in absent for path in _candidates(folder, name, spelling)}
    claimed = Resolver(nearby | {path: path for path in there.values()}, folder).resolve([*absent, *there])
    return literal | {name: claimed[name] for name in absent if _is_better(claimed[name])}


def _is_better(meant: Path | Unresolved) -> bool:
    """A plain absence is told when the path is opened."""
    return isinstance(meant, Path) or meant.is_ambiguous


def _literal(folder: Path, name: str) -> Path:
    return Path(os.path.normpath(folder / os.path.expanduser(name)))  # noqa: PTH111 - Path raises for an unknown user


def _candidates(folder: Path, name: str, spelling: _Spelling) -> Iterator[Path]:
    """Files that a name which is not there may mean: it in another spelling, or the ends of a path below `folder`."""
    text = name.replace("\\", "/")
    if not _IS_ABSOLUTE.match(text):
        path = spelling.find(Path(os.path.normpath(folder / text)))
        if path is not None:
            yield path
        return
    if (same := spelling.find(Path(os.path.normpath(text)))) is not None:
        yield same
    parts = parts_of(text)
    for start in range(len(parts)):
        if (path := spelling.find(folder.joinpath(*parts[start:]))) is not None:
            yield path


class _Spelling:
    """Finds a file whose path is written in another Unicode form than its folders hold it."""

    def __init__(self) -> None:
        self._entries: dict[Path, dict[str, str]] = {}

    def find(self, path: Path) -> Path | None:
        """The path as the disk spells it; None where no such file is."""
        found = Path(path.anchor)
        for part in path.parts[1:] if path.anchor else path.parts:
            if not os.path.lexists(found / part):
                part = self._names(found).get(unicodedata.normalize("NFC", part), "")
            if not part:
                return None
            found /= part
        return found if is_file(found) else None

    def _names(self, folder: Path) -> dict[str, str]:
        if folder not in self._entries:
            try:
                names = sorted(os.listdir(folder))  # noqa: PTH208 - names, not paths
            except (OSError, ValueError):
                names = []
            self._entries[folder] = {unicodedata.normalize("NFC", name): name for name in names}
        return self._entries[folder]


def _is_address(name: str) -> bool:
    return bool(_HAS_SCHEME.match(name))


def _fit(name: Parts, known: _Known[Any], *, is_address: bool) -> _Fit | None:
    """None where the path is not reached by the name."""
    n_common = 0
    for ours, theirs in zip(reversed(name), reversed(known.parts), strict=False):
        if ours != theirs:
            break
        n_common += 1
    is_reached = n_common >= min(2, len(name), known.n_inside) or (is_address and n_common > 0)
    is_exact = n_common == len(name) == known.n_inside
    return _Fit(is_exact, n_common) if is_reached and n_common else None


def _refused(claimed: Mapping[Parts, tuple[_Fit, list[str]]]) -> dict[str, Unresolved]:
    """Of several names that reach one path, those that do not share most with it; of equals all."""
    best = max(fit for fit, _ in claimed.values())
    winners = [names for fit, names in claimed.values() if fit == best]
    refused = {}
    for fit, names in claimed.values():
        others = [name for _, theirs in claimed.values() for name in theirs if theirs is not names]
        for name in names:
            if fit < best:
                reason = f"{name} is not there: the only file of that name is that of {winners[0][0]}; copy it"
                refused[name] = Unresolved(reason, is_ambiguous=len(winners) > 1)
            elif len(winners) > 1:
                reason = f"{name} and {_listed(others)} could be one file: copy the other, or write more of the path"
                refused[name] = Unresolved(reason, is_ambiguous=True)
    return refused


def _listed(texts: Sequence[str]) -> str:
    more = f" or {len(texts) - _MOST_NAMED} others" if len(texts) > _MOST_NAMED else ""
    return " or ".join(texts[:_MOST_NAMED]) + more

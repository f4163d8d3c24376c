"""What makes a figure's file again: the figure, what was looked at, of which run, laid out how, by which program.

    file ─► recipe ─► the same cache, or one that differs ─► the same file, or what differs (`differences`)

A recipe is in every exported file, or beside it (`carriers`). It holds no row, only their number and a digest of each
column, so that a cache that has others can say which; and a digest of the file without its recipe. OURS.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Self

import pandas as pd

from mmn import __version__
from mmn.counts import counted
from mmn.errors import UsageError
from mmn.figures.presets import Layout
from mmn.printable import printable
from mmn.view import View

FORMAT: Final = 1  # of recipes
MOST_BYTES: Final = 200_000  # of a recipe's text
_RENDERERS: Final = ("altair", "vl-convert-python")
_UNFIT: Final = (ValueError, TypeError, KeyError, RecursionError, UsageError)
MOST_PANELS: Final = 52  # of a grid; its recipe is in the file
_MOST_NAMES: Final = 200  # columns of a figure's rows, values of a panel


@dataclass(frozen=True)
class Recipe:
    """How a file of a figure was made.

    Attributes:
        figure: its name.
        view: what was looked at, as `View.to_json` writes it; what was chosen of several is in it.
        run_id: of the run.
        fingerprint: of the run's model.
        form: of the file, a key of `export.FORMATS`.
        layout: of the file.
        kept: where the figure was one panel of several: a column, and the values that its rows have there.
        n_rows: how many rows were drawn.
        columns: a digest of each column of them.
        content: a digest of the file without its recipe.
        versions: of the program and of what renders.
    """

    figure: str
    view: Mapping[str, Any]
    run_id: str
    fingerprint: str
    form: str
    layout: Layout
    kept: tuple[str, tuple[Any, ...]] | None
    n_rows: int
    columns: Mapping[str, str]
    content: str
    versions: Mapping[str, str]

    def to_json(self) -> str:
        """One line of ASCII."""
        values = asdict(self) | {
            "kept": None if self.kept is None else [self.kept[0], [plain(one) for one in self.kept[1]]]
        }
        return json.dumps({"mmn_recipe": FORMAT, **values}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The recipe that `to_json` wrote.

        Raises:
            UsageError: it is none, or of a newer program; the message is one line.
        """
        try:
            return cls._of(_object(text, {*(one.name for one in fields(cls)), "mmn_recipe"}))
        except _UNFIT as error:
            raise UsageError(f"this is no recipe of mmn: {printable(str(error)[:200])}") from error

    @classmethod
    def _of(cls, given: dict[str, Any]) -> Self:
        _require_format(given["mmn_recipe"])
        texts = {name: _text(given[name], name) for name in ("figure", "run_id", "fingerprint", "form", "content")}
        if not re.fullmatch(r"[0-9a-f]{1,64}", texts["run_id"]):
            raise ValueError("run_id is no id of a run")
        view = View.from_json(json.dumps(given["view"]))
        return cls(
            **texts,
            view=json.loads(view.to_json()),
            layout=_layout(given["layout"]),
            kept=_kept(given["kept"]),
            n_rows=_count(given["n_rows"], "n_rows"),
            columns=_texts(given["columns"], "columns"),
            versions=_texts(given["versions"], "versions"),
        )


@dataclass(frozen=True)
class GridRecipe:
    """How a file of several figures beside and below each other was made.

    Attributes:
        panels: the recipe of each panel's rows, in order.
        form: of the file: svg, pdf or png.
        layout: of the whole; a panel has its columns' width.
        columns: panels side by side.
        content: a digest of the file without its recipe.
        versions: of the program and of what renders.
    """

    panels: tuple[Recipe, ...]
    form: str
    layout: Layout
    columns: int
    content: str
    versions: Mapping[str, str]

    def to_json(self) -> str:
        """One line of ASCII."""
        values = asdict(self) | {"panels": [json.loads(one.to_json()) for one in self.panels]}
        return json.dumps({"mmn_grid": FORMAT, **values}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The recipe that `to_json` wrote.

        Raises:
            UsageError: it is none, or of a newer program; the message is one line.
        """
        try:
            given = _object(text, {*(one.name for one in fields(cls)), "mmn_grid"})
            _require_format(given["mmn_grid"])
            if not isinstance(given["panels"], list) or not 0 < len(given["panels"]) <= MOST_PANELS:
                raise ValueError(f"panels are no 1 to {MOST_PANELS} recipes")
            return cls(
                tuple(Recipe.from_json(json.dumps(one)) for one in given["panels"]),
                _text(given["form"], "form"),
                _layout(given["layout"]),
                _count(given["columns"], "columns"),
                _text(given["content"], "content"),
                _texts(given["versions"], "versions"),
            )
        except _UNFIT as error:
            raise UsageError(f"this is no recipe of mmn: {printable(str(error)[:200])}") from error


def plain(value: Any) -> Any:
    """A value of a data frame as JSON has it."""
    return value.item() if hasattr(value, "item") else value


def digest(content: bytes) -> str:
    """Sixteen hexadecimal digits of a sha-256: enough to tell one file from another."""
    return hashlib.sha256(content).hexdigest()[:16]


def column_digests(data: pd.DataFrame) -> dict[str, str]:
    """A digest of each column of the rows."""
    return {str(name): digest(data[[name]].to_csv(index=False, lineterminator="\n").encode()) for name in data.columns}


def versions() -> dict[str, str]:
    """Of the program and of what renders its charts."""
    return {"mmn": __version__} | {name: _version(name) for name in _RENDERERS}


def differences(asked: Recipe, made: Recipe) -> list[str]:
    """What differs between the file that a recipe is of and the one that was made of it now; nothing: byte for byte."""
    told = [*of_rows(asked, made), *_of_versions(asked.versions, made.versions)]
    return told or _of_content(asked.content, made.content)


def of_rows(asked: Recipe, made: Recipe) -> list[str]:
    """What differs in what is drawn: the run's model, the number of rows, the values of columns."""
    told = []
    if asked.fingerprint != made.fingerprint:
        told.append(f"the run's model is another: {asked.fingerprint[:12]} there, {made.fingerprint[:12]} here")
    if asked.n_rows != made.n_rows:
        told.append(f"{counted(asked.n_rows, 'row')} there, {made.n_rows:,} here")
    names = dict.fromkeys((*asked.columns, *made.columns))
    if other := [name for name in names if asked.columns.get(name) != made.columns.get(name)]:
        told.append(f"columns of the rows with other values: {', '.join(other)}")
    return [printable(line) for line in told]


def grid_differences(asked: GridRecipe, made: GridRecipe) -> list[str]:
    """The same of a grid: of its panels, by their letters, then of the whole."""
    pairs = zip(asked.panels, made.panels, strict=True)
    told = [f"({letter(place)}) {line}" for place, (one, other) in enumerate(pairs) for line in of_rows(one, other)]
    told += _of_versions(asked.versions, made.versions)
    return told or _of_content(asked.content, made.content)


def letter(place: int) -> str:
    """Of a panel, from 0: a to z, then aa, ab, …"""
    first, last = divmod(place, 26)
    return (letter(first - 1) if first else "") + "abcdefghijklmnopqrstuvwxyz"[last]


def _of_versions(there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    pairs = [(name, there.get(name, "none"), here.get(name, "none")) for name in dict.fromkeys((*there, *here))]
    return [printable(f"{name} {one} there, {other} here") for name, one, other in pairs if one != other]


def _of_content(there: str, here: str) -> list[str]:
    other = "the same rows are drawn otherwise: other fonts are here (MMN_FONTS), or another build of the renderer"
    return [] if there == here else [other]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _object(text: str, names: set[str]) -> dict[str, Any]:
    if len(text) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} letters")
    given = json.loads(text)
    if not isinstance(given, dict) or set(given) != names:
        raise ValueError(f"it is not an object of {', '.join(sorted(names))}")
    return given


def _require_format(given: Any) -> None:
    if given != FORMAT:
        raise ValueError(f"it is of format {given!r}, this program reads {FORMAT}")


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or len(value) > 200:
        raise ValueError(f"{name} is no short text")
    return value


def _texts(value: Any, name: str) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > _MOST_NAMES:
        raise ValueError(f"{name} is no short object")
    return {_text(key, name): _text(one, name) for key, one in value.items()}


def _count(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} is no number")
    return value


def _layout(value: Any) -> Layout:
    if not isinstance(value, dict) or set(value) != {one.name for one in fields(Layout)}:
        raise ValueError("layout is no preset, width and ppi")
    if not isinstance(value["preset"], str) or not isinstance(value["width"], str | int | float):
        raise ValueError("layout is no preset, width and ppi")
    return Layout(**value)


def _kept(value: Any) -> tuple[str, tuple[Any, ...]] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], list) or len(value[1]) > _MOST_NAMES:
        raise ValueError("kept is no column with its values")
    if not all(isinstance(one, str | int | float | bool) for one in value[1]):
        raise ValueError("kept has values that are no text or number")
    return _text(value[0], "kept"), tuple(value[1])

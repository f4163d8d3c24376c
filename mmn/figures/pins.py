"""What was pinned: recipes of figures in an order, with captions of a person's own, in one file of the cache.

    cache/pins.json   every tab, window and command reads it anew; a change is read, made and written under a lock
    cache/pins.lock   that lock (flock)

Not in the database: that is held by one process, and made again of the runs when it is damaged; nothing makes pins
again. A pin holds no row: it is drawn of what the cache holds when somebody looks. OURS. Needs a POSIX system.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self

from mmn.errors import BrokenFileError, UsageError
from mmn.figures.figure import Drawn
from mmn.figures.recipes import MOST_BYTES, MOST_PANELS, Recipe, digest, plain
from mmn.figures.saving import pinned_view
from mmn.printable import printable
from mmn.safety.atomic_files import explain_unwritable, write_whole
from mmn.safety.regular_files import read_regular

FILE: Final = "pins.json"
MOST_PINS: Final = MOST_PANELS
MOST_LETTERS: Final = 5000  # of a caption
_FORMAT: Final = 1
_LOCK: Final = "pins.lock"
_MOST_FILE: Final = MOST_PINS * (MOST_BYTES + 8 * MOST_LETTERS)
_REMEDY: Final = f"update mmn, or move the file away: {FILE} is made anew with the next pin"


@dataclass(frozen=True)
class Pin:
    """A pinned figure: the recipe of its rows, and what is to stand below it, "" for the draft."""

    recipe: Recipe
    caption: str = ""

    @property
    def pin_id(self) -> str:
        """The same figure of the same view of a run is pinned once."""
        return identity(self.recipe.figure, self.recipe.view, self.recipe.run_id, self.recipe.kept)

    @classmethod
    def of(cls, given: Any) -> Self:
        """Of a value of JSON. Raises ValueError, or UsageError, where it is none."""
        if not isinstance(given, dict) or set(given) != {"recipe", "caption"}:
            raise ValueError("a pin is a recipe and a caption")
        if not isinstance(given["caption"], str) or len(given["caption"]) > MOST_LETTERS:
            raise ValueError(f"a caption is a text of at most {MOST_LETTERS:,} letters")
        return cls(Recipe.from_json(json.dumps(given["recipe"])), given["caption"])


def identity(figure: str, view: Mapping[str, Any], run_id: str, kept: tuple[str, tuple[Any, ...]] | None) -> str:
    """Sixteen hexadecimal digits that only the same figure of the same view has."""
    part = None if kept is None else [kept[0], [plain(one) for one in kept[1]]]
    return digest(json.dumps([figure, view, run_id, part], sort_keys=True).encode())


def identity_of(drawn: Drawn) -> str:
    """The same of a figure that is drawn."""
    view = json.loads(pinned_view(drawn).to_json())
    return identity(drawn.figure.name, view, drawn.asked.run_id, drawn.kept)


class Pins:
    """The pins of a cache folder, for all processes and threads."""

    def __init__(self, cache_path: Path) -> None:
        self._folder = cache_path

    @property
    def path(self) -> Path:
        return self._folder / FILE

    def read(self) -> tuple[Pin, ...]:
        """All pins in their order.

        Raises:
            BrokenFileError: the file is damaged, of a newer program, or none as mmn writes them.
        """
        if not self.path.exists() and not self.path.is_symlink():
            return ()
        data = read_regular(self.path, _MOST_FILE, _REMEDY)
        try:
            return _parsed(data)
        except (ValueError, RecursionError, UsageError) as error:
            raise BrokenFileError(self.path, printable(str(error)[:200]), _REMEDY) from error

    def find(self, pin_id: str) -> Pin | None:
        """The pin of an id; None where another window has removed it.

        Raises:
            BrokenFileError: as `read`.
        """
        return next((one for one in self.read() if one.pin_id == pin_id), None)

    def add(self, *pins: Pin, place: int | None = None) -> None:
        """Puts pins after all others, or from a place on; what is pinned already takes the new recipe where it is.

        Raises:
            UsageError: there are too many.
            CacheError: the file is damaged, or the folder cannot be written.
        """

        def changed(there: list[Pin]) -> list[Pin]:
            new = {one.pin_id: one for one in pins}
            kept = [new.pop(one.pin_id, one) for one in there]
            at = len(kept) if place is None else place
            return [*kept[:at], *new.values(), *kept[at:]]

        self._change(changed)

    def remove(self, pin_id: str) -> tuple[Pin, int] | None:
        """Takes a pin away; returns it and its place, for `add`; None where it was not there.

        Raises:
            CacheError: as `add`.
        """
        removed: list[tuple[Pin, int]] = []

        def changed(there: list[Pin]) -> list[Pin]:
            removed.extend((one, place) for place, one in enumerate(there) if one.pin_id == pin_id)
            return [one for one in there if one.pin_id != pin_id]

        self._change(changed)
        return removed[0] if removed else None

    def move(self, pin_id: str, by: int) -> None:
        """Moves a pin up (below 0) or down among the others; the first and last stay where that leads nowhere.

        Raises:
            CacheError: as `add`.
        """

        def changed(there: list[Pin]) -> list[Pin]:
            for place, one in enumerate(there):
                if one.pin_id == pin_id:
                    rest = there[:place] + there[place + 1 :]
                    return _inserted(rest, max(0, place + by), one)
            return there

        self._change(changed)

    def write_caption(self, pin_id: str, text: str) -> None:
        """Gives a pin a caption of a person's own; "" brings the draft back.

        Raises:
            UsageError: it is too long.
            CacheError: as `add`.
        """
        if len(text) > MOST_LETTERS:
            raise UsageError(f"a caption has at most {MOST_LETTERS:,} letters, this one {len(text):,}")
        self._change(lambda there: [replace(one, caption=text) if one.pin_id == pin_id else one for one in there])

    def _change(self, changed: Callable[[list[Pin]], list[Pin]]) -> None:
        with explain_unwritable(self.path), self._locked():
            pins = changed(list(self.read()))
            if len(pins) > MOST_PINS:
                raise UsageError(f"at most {MOST_PINS} figures can be pinned: remove some on the page Figures")
            write_whole(self.path, _written(pins))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


@lru_cache(maxsize=4)
def _parsed(data: bytes) -> tuple[Pin, ...]:
    """Pages ask for each of their figures whether it is pinned."""
    given = json.loads(data.decode())
    if not isinstance(given, dict) or set(given) != {"mmn_pins", "pins"} or not isinstance(given["pins"], list):
        raise ValueError("it holds no pins")
    if given["mmn_pins"] != _FORMAT or len(given["pins"]) > MOST_PINS:
        raise ValueError(f"it is of format {given['mmn_pins']!r} with {len(given['pins'])} pins")
    pins = [Pin.of(one) for one in given["pins"]]
    return tuple({one.pin_id: one for one in pins}.values())


def _written(pins: Sequence[Pin]) -> bytes:
    values = [{"recipe": json.loads(one.recipe.to_json()), "caption": one.caption} for one in pins]
    return json.dumps({"mmn_pins": _FORMAT, "pins": values}, indent=1, ensure_ascii=False).encode() + b"\n"


def _inserted(rest: list[Pin], place: int, one: Pin) -> list[Pin]:
    return [*rest[:place], one, *rest[place:]]

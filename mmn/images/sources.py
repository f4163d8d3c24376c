"""A source of pictures, as the user wrote it, turned into examples with their captions, and failures.

Steps: `places.py` names the places (files, in a fixed order, with the captions that came with them; for a saved
dataset the embedded pictures are first written out) · each place's header is read and its bytes are hashed · places
with the same bytes become one example. Pixels are decoded later, when a picture is scored.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from mmn.core import Example, Failure
from mmn.counts import counted
from mmn.errors import ImageError, SourceError, UsageError
from mmn.images.annotations import coco_places, list_places, sbu_places
from mmn.images.datasets import dataset_places
from mmn.images.folders import folder_places
from mmn.images.opening import Header, read_header
from mmn.images.places import Place, Places, is_file, one_place
from mmn.safety.roots import require_inside

Progress = Callable[[int, int], None]
GALLERY: Final = "gallery"
PICTURES_PATH: Final = Path("cache") / "pictures"
GALLERY_PATH: Final = Path(__file__).parent.parent / "specimen" / "gallery"


@dataclass(frozen=True)
class Listing:
    """The distinct pictures of a source and what could not be opened, both in the source's order.

    `note` says in a line why no picture has a reference, where the source looks as if it had some.
    """

    examples: tuple[Example, ...]
    failures: tuple[Failure, ...]
    note: str = ""


def list_source(
    spec: str, limit: int | None = None, work_path: Path = PICTURES_PATH, progress: Progress | None = None
) -> Listing:
    """The pictures of `spec`, one example for each distinct file content, in the order of their paths.

    Args:
        spec: `gallery`, `gallery:NOUN,NOUN` (its pictures whose captions say one of these), a folder,
            `coco:ANNOTATIONS.json:FOLDER`, `sbu:JSON:FOLDER`, `hf:FOLDER`, a `.txt` or `.csv` list, or one picture.
        limit: the number of distinct pictures after which to stop; later copies of those are still found.
        work_path: where the pictures embedded in a saved dataset are written, named by their hash.
        progress: called with (places done, places in all) while hashing.

    Returns:
        Every path absolute. A place that is missing or no picture is a failure of stage `open`.

    Raises:
        SourceError: the source as a whole cannot be listed.
        OutsideRootsError: it is outside the folders that this process may read.
        CacheError: `work_path` cannot be written.
        UsageError: `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {counted(limit, 'picture')} leaves none: give 1 or more")
    places = places_of(spec, work_path)
    gathered = _Gathered(limit)
    for done, place in enumerate(places.each, start=1):
        gathered.add(place)
        if progress is not None:
            progress(min(done, places.n_places), places.n_places)
        if gathered.is_full and places.is_written_out:
            break
    return gathered.listing(places.why_none)


def places_of(spec: str, work_path: Path) -> Places:
    """What a source names, before anything is opened; raises as `list_source`."""
    kind, _, rest = spec.partition(":")
    if kind == "coco" and rest:
        return coco_places(*_two_paths(kind, rest))
    if kind == "sbu" and rest:
        return sbu_places(*_two_paths(kind, rest))
    if kind == "hf" and rest:
        return dataset_places(absolute(rest), work_path)
    return _gallery_places(spec, rest) if is_gallery(spec) else _plain_places(absolute(spec), spec)


def is_gallery(spec: str) -> bool:
    """Whether a source is the bundled gallery, or its pictures of some nouns."""
    return spec.partition(":")[0] == GALLERY


def _gallery_places(spec: str, nouns: str) -> Places:
    """The gallery's pictures whose captions say one of some nouns, as `beach,desert`; all of them for none."""
    places = folder_places(GALLERY_PATH)
    wanted = {noun.strip().lower() for noun in nouns.split(",")} - {""}
    if spec != GALLERY and not wanted:
        raise SourceError(f"{spec!r} names no noun: give gallery for all its pictures, or some as gallery:beach,desert")
    said = {place: _words(place) for place in places.each if isinstance(place, Place)}
    if missing := sorted(wanted.difference(*said.values())):
        raise SourceError(f"no caption of the gallery says {missing[0]!r}: give other nouns, as gallery:beach,desert")
    kept = tuple(place for place, words in said.items() if wanted & words)
    return replace(places, each=kept, n_places=len(kept)) if wanted else places


def _words(place: Place) -> set[str]:
    return set(re.findall(r"\w+", " ".join(place.references).lower()))


def _plain_places(path: Path, spec: str) -> Places:
    require_inside(path)
    if not spec.strip() or not os.path.lexists(path):
        raise SourceError(
            f"{spec!r} is no folder or list of pictures: give gallery, a folder, a .txt or .csv list, "
            "coco:ANNOTATIONS.json:FOLDER, sbu:JSON:FOLDER or hf:FOLDER"
        )
    if os.path.isdir(path):  # noqa: PTH112 - no error for names too long
        return folder_places(path)
    if path.suffix.lower() in (".json", ".jsonl"):
        raise SourceError(f"{path} is an annotation file: write coco:{spec}:FOLDER or sbu:{spec}:FOLDER")
    return list_places(path) if path.suffix.lower() in (".txt", ".csv") else one_place(path)


def annotation_paths(kind: str, rest: str) -> tuple[Path, Path | None]:
    """`FILE:FOLDER`, or `FILE` alone."""
    if is_file(os.path.expanduser(rest)) or ":" not in rest:  # noqa: PTH111
        return absolute(rest), None
    return _two_paths(kind, rest)


def absolute_spec(spec: str) -> str:
    """The source with its paths in full, so that it means the same from everywhere."""
    kind, _, rest = spec.partition(":")
    if kind in ("coco", "sbu") and rest:
        return ":".join([kind, *(str(path) for path in annotation_paths(kind, rest) if path is not None)])
    if kind == "hf" and rest:
        return f"hf:{absolute(rest)}"
    return spec if is_gallery(spec) else str(absolute(spec))


def _two_paths(kind: str, rest: str) -> tuple[Path, Path]:
    """`FILE:FOLDER` split at the first colon that leaves an existing file on its left (either may hold colons)."""
    cuts = [index for index, char in enumerate(rest) if char == ":"]
    if not cuts or rest.endswith(":"):
        raise SourceError(f"'{kind}:{rest}' lacks a part: write {kind}:ANNOTATIONS.json:FOLDER")
    cut = next((cut for cut in cuts if is_file(rest[:cut])), cuts[0])
    return absolute(rest[:cut]), absolute(rest[cut + 1 :])


def absolute(path: str) -> Path:
    """The path in full, without `..`, links left as they are."""
    return Path(os.path.abspath(os.path.expanduser(path)))  # noqa: PTH100, PTH111 - resolve() follows links


class _Gathered:
    """Examples by identity, while a source is walked; insertion order is the source's."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._examples: dict[str, Example] = {}
        self._sizes: set[int] = set()  # of the files kept, in bytes: only a file of the same size can be a copy
        self._failures: list[Failure] = []

    @property
    def is_full(self) -> bool:
        return self._limit is not None and len(self._examples) >= self._limit

    def add(self, place: Place | Failure) -> None:
        """Beyond the limit only another path of a picture that is kept counts."""
        if self.is_full:
            if isinstance(place, Place) and _n_bytes(place.path) in self._sizes:
                self._add_copy(place)
        elif isinstance(place, Failure):
            self._failures.append(place)
        else:
            self._add_picture(place)

    def listing(self, why_none: str) -> Listing:
        examples = tuple(self._examples.values())
        is_without = bool(why_none) and not any(example.references for example in examples)
        return Listing(examples, tuple(self._failures), f"no references: {why_none}" if is_without else "")

    def _add_picture(self, place: Place) -> None:
        try:
            self._keep(place, _header(place.path))
        except ImageError as error:
            self._failures.append(Failure.of(_printable(place.path), "open", error))

    def _add_copy(self, place: Place) -> None:
        with contextlib.suppress(ImageError):  # a failure beyond the limit is none of the listing's
            header = _header(place.path)
            if header.image_id in self._examples:
                self._keep(place, header)

    def _keep(self, place: Place, header: Header) -> None:
        source = str(place.path)
        known = self._examples.get(header.image_id)
        self._sizes.add(header.n_bytes)
        self._examples[header.image_id] = (
            Example(header.image_id, source, (source,), header.width, header.height, place.references)
            if known is None
            else replace(
                known,
                sources=tuple(sorted({*known.sources, source})),
                references=tuple(dict.fromkeys(known.references + place.references)),
            )
        )


def _header(path: Path) -> Header:
    """`read_header`, for a path that a table can store."""
    name = _printable(path)
    if name != str(path):
        raise ImageError(f"{name} has a name that is not UTF-8: rename it")
    return read_header(path)


def _printable(path: Path) -> str:
    """The path with what UTF-8 cannot write spelled out, a backslash and its code."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode()


def _n_bytes(path: Path) -> int:
    """Its size; -1, which no file has, when there is none."""
    try:
        return os.path.getsize(path)  # noqa: PTH202
    except (OSError, ValueError):
        return -1

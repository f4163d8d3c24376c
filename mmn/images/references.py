"""The captions that a source has of pictures that are known already; any source, or its file alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmn.core import Failure
from mmn.errors import SourceError
from mmn.images.annotations import LIST_SUFFIXES, Named, coco_rows, list_rows, sbu_rows, why_none
from mmn.images.known import KnownPictures
from mmn.images.naming import Unresolved, resolve_beside
from mmn.images.places import Place
from mmn.images.sources import absolute, annotation_paths, places_of

_STAGE = "annotate"


@dataclass(frozen=True)
class References:
    """Captions by image_id, names that could be several pictures, and why there may be no captions."""

    references: Mapping[str, tuple[str, ...]]
    failures: tuple[Failure, ...] = ()
    why_none: str = ""


def references_of(spec: str, known: KnownPictures, work_path: Path) -> References:
    """The captions that a source has of `known` pictures; captions of other pictures are left out.

    Raises:
        SourceError: it cannot be read.
        CacheError: `work_path` cannot be written.
    """
    kind, _, rest = spec.partition(":")
    if kind in ("coco", "sbu") and rest:
        annotations, folder = annotation_paths(kind, rest)
        named = (coco_rows if kind == "coco" else sbu_rows)(annotations)
        return _by_name(spec, named, known.of_names_in([one.name for one in named], folder), str(annotations))
    path = absolute(spec)
    if path.is_file() and path.suffix.lower() in LIST_SUFFIXES[1:]:
        named = list_rows(path)
        return _by_name(spec, named, _meant_beside(path.parent, named, known), why_none(path, named))
    return _by_file(spec, known, work_path)


def _by_name(spec: str, named: Sequence[Named], meant: Mapping[str, str | Unresolved], why: str) -> References:
    references: dict[str, list[str]] = {}
    failures = {}
    for one in named:
        image_id = meant[one.name]
        if one.doubt or (isinstance(image_id, Unresolved) and image_id.is_ambiguous):
            reason = one.doubt or (image_id.reason if isinstance(image_id, Unresolved) else "")
            failures[one.name] = Failure(f"{spec}#{one.name}", _STAGE, SourceError.__name__, reason)
        elif isinstance(image_id, str) and one.references:
            references.setdefault(image_id, []).extend(one.references)
    if any(one.references for one in named):
        first = next((one.reason for one in meant.values() if isinstance(one, Unresolved)), "")
        why = f"its captions are of other pictures ({first})"
    elif why and "columns" not in why:
        why = f"{why} has none at all"
    return References(_distinct(references), tuple(failures.values()), why)


def _meant_beside(folder: Path, named: Sequence[Named], known: KnownPictures) -> dict[str, str | Unresolved]:
    """What names of a table mean: a file beside it that is a known picture, else a known picture of that name."""
    names = [one.name for one in named]
    files = resolve_beside(folder, names)
    ids = known.of_files({path for path in files.values() if isinstance(path, Path)})
    found = {name: ids[path] for name, path in files.items() if isinstance(path, Path) and path in ids}
    return {**known.of_names([name for name in names if name not in found]), **found}


def _by_file(spec: str, known: KnownPictures, work_path: Path) -> References:
    places = places_of(spec, work_path)
    found: dict[str, list[str]] = {}
    given = {place.path: place.references for place in places.each if isinstance(place, Place) and place.references}
    for path, image_id in known.of_files(given).items():
        found.setdefault(image_id, []).extend(given[path])
    return References(_distinct(found), (), places.why_none or "no captions lie beside its pictures")


def _distinct(references: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {image_id: tuple(dict.fromkeys(texts)) for image_id, texts in references.items()}

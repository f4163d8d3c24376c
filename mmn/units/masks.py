"""Object masks of a picture, by the lemma of what they show: the truth that receptive fields are compared with.

Two kinds of source, those in which the pictures themselves come, or given later (`mmn annotate --masks`):

    a folder in ImageFolder's form (`gallery` is one): rows of its metadata with `mask_file`, a picture whose pixel
        values are object numbers, and `objects`, which names them: [{"noun": "dog", "mask": 1}, …]
    COCO instances: polygons, run lengths (plain or packed), drawn by `outlines`; crowd regions, which outline no
        object, are left out

Masks are boolean, of the size at which the picture is displayed. Several objects of one noun are one mask. A noun has
the mask of its lemma, or else of the object that it means (`reading.synonyms`: "man" that of a person, "table" that of
a dining table); a word that the source itself names an object by means that one alone. A noun of a caption is a single
word: what is told by two ("hot dog", "traffic light") has a mask, and no noun that it is the mask of.

COCO outlines lie on the stored pixels: they are turned as EXIF turns the picture, and only then; where the file gives
the upright size instead, they are already upright. Where it gives no size, it is that of the run lengths, or of the
picture. An outline that cannot be drawn is left out alone, and named.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageOps

from mmn.core import Example
from mmn.errors import ImageError, SourceError, UsageError
from mmn.images.annotations import coco_images, doubtful_ids, plain_id, rows_of
from mmn.images.columns import masks_in, names_in
from mmn.images.folders import METADATA_NAMES
from mmn.images.known import KnownPictures
from mmn.images.naming import Unresolved, resolve_beside
from mmn.images.opening import stored_frame
from mmn.images.places import parse_json, read_text, require_folder, walk
from mmn.images.sources import GALLERY_PATH, absolute, annotation_paths, is_gallery
from mmn.reading.nouns import lemma_of
from mmn.reading.synonyms import NO_SYNONYMS, Synonyms
from mmn.safety.roots import is_inside, require_inside
from mmn.units.heat_maps import Mask
from mmn.units.outlines import draw_segmentation, size_of_runs

_MASK_FORMATS: Final = ("PNG", "BMP", "GIF", "TIFF")  # lossless, so that a pixel is its object's number
_EXIF_ORIENTATION: Final = 0x0112
_NO_CROWD: Final = ("", "0", "0.0", "false", "none")


@dataclass(frozen=True)
class Outlines:
    """The masks of one picture, {} where nothing is outlined, and what of its outlines could not be used."""

    masks: dict[str, Mask] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class MaskSource:
    """An opened source.

    `outlines` draws the masks of one picture; `known` are the pictures in which it outlines something. `version` is a
    hash of all that the masks of such a picture are drawn from. `problems` are those of no single picture. `objects`
    are the lemmas of all that it tells of, in whatever picture; `shown` those of one picture, crowds and what cannot be
    drawn included. `synonyms` say which of them a noun means.
    """

    spec: str
    outlines: Callable[[Example], Outlines]
    known: frozenset[str] = frozenset()
    version: Callable[[Example], str] = lambda _example: ""
    problems: tuple[str, ...] = ()
    objects: frozenset[str] = frozenset()
    shown: Callable[[Example], frozenset[str]] = lambda _example: frozenset()
    synonyms: Synonyms = NO_SYNONYMS

    def find(self, example: Example) -> dict[str, Mask]:
        """The masks of one picture, {} for a picture in which nothing is outlined."""
        return self.outlines(example).masks

    def object_of(self, noun: str) -> str:
        """The object that a noun is called for here; its lemma, where it is none of this source's."""
        lemma = lemma_of(noun)
        meant = lemma if lemma in self.objects else self.synonyms.meaning(lemma)
        return meant if meant in self.objects else lemma

    def masks_for(self, noun: str, masks: Mapping[str, Mask]) -> dict[str, Mask]:
        """Masks of a picture, that of the object which the noun is called for under the noun's own lemma."""
        name, lemma = self.object_of(noun), lemma_of(noun)
        return {lemma if one == name else one: mask for one, mask in masks.items()}

    def by_synonyms(self, nouns: Iterable[str]) -> list[tuple[str, str]]:
        """Those of some nouns' lemmas that only synonyms give an object, with it: what masks are held against for."""
        found = {lemma_of(noun): self.object_of(noun) for noun in nouns}
        return sorted((lemma, name) for lemma, name in found.items() if lemma != name)


def open_masks(spec: str, examples: Iterable[Example]) -> MaskSource:
    """The masks of `gallery`, a folder, `coco:INSTANCES.json:FOLDER` or `coco:INSTANCES.json`.

    Args:
        spec: as the pictures' source is written. A COCO file without a folder is of pictures of the run by name.
        examples: the pictures that masks are looked up for, all of a run: which of them a row is of depends on all.

    Raises:
        UsageError: a source of another kind, which has no masks.
        SourceError: it cannot be read, or holds no outlines.
    """
    known = KnownPictures(tuple(examples))
    kind, _, rest = spec.partition(":")
    if kind == "coco" and rest:
        return _CocoMasks.read(*annotation_paths(kind, rest)).source(spec, known)
    folder = GALLERY_PATH if is_gallery(spec) else absolute(spec)
    if folder.is_dir():
        return _FolderMasks.read(folder).source(spec, known)
    raise UsageError(
        f"{spec!r} has no object masks; give gallery, a folder with mask_file rows, coco:FILE or coco:FILE:FOLDER"
    )


def first_of(sources: Sequence[MaskSource]) -> MaskSource:
    """A source that asks each of `sources` in turn; the first that knows a picture has its masks."""

    def outlines(example: Example) -> Outlines:
        source = source_of(example, sources)
        return source.outlines(example) if source else Outlines()

    def version(example: Example) -> str:
        source = source_of(example, sources)
        return source.version(example) if source else ""

    def shown(example: Example) -> frozenset[str]:
        source = source_of(example, sources)
        return source.shown(example) if source else frozenset()

    known = frozenset[str]().union(*(source.known for source in sources))
    objects = frozenset[str]().union(*(source.objects for source in sources))
    problems = tuple(problem for source in sources for problem in source.problems)
    spec = ", ".join(source.spec for source in sources)
    synonyms = sources[0].synonyms if sources else NO_SYNONYMS
    return MaskSource(spec, outlines, known, version, problems, objects, shown, synonyms)


def source_of(example: Example, sources: Sequence[MaskSource]) -> MaskSource | None:
    """The first of `sources` that outlines something in the picture."""
    return next((source for source in sources if example.image_id in source.known), None)


@dataclass(frozen=True)
class _FolderMasks:
    """By picture path: its mask file, and the number of each object in it with its noun."""

    objects: Mapping[Path, tuple[Path, tuple[tuple[str, int], ...]]]

    @classmethod
    def read(cls, folder: Path) -> _FolderMasks:
        require_folder(folder)
        objects: dict[Path, tuple[Path, tuple[tuple[str, int], ...]]] = {}
        for inside, names in walk(folder):
            for name in names:
                if name.lower() in METADATA_NAMES:
                    objects |= dict(_mask_rows(inside / name))
        if not objects:
            raise SourceError(f"no metadata in {folder} names a mask_file: there are no object masks to compare with")
        return cls(objects)

    def source(self, spec: str, known: KnownPictures) -> MaskSource:
        rows = {image_id: self.objects[path] for path, image_id in known.of_files(self.objects).items()}

        def outlines(example: Example) -> Outlines:
            if example.image_id not in rows:
                return Outlines()
            path, objects = rows[example.image_id]
            try:
                numbers = _object_numbers(path, (example.width, example.height))
            except ImageError as error:
                return Outlines(problems=(str(error),))
            return Outlines(_united((noun, numbers == number) for noun, number in objects))

        def version(example: Example) -> str:
            if example.image_id not in rows:
                return ""
            path, objects = rows[example.image_id]
            return _digest(str(objects).encode() + (path.read_bytes() if is_inside(path) and path.is_file() else b""))

        def shown(example: Example) -> frozenset[str]:
            return _lemmas(noun for noun, _ in rows[example.image_id][1]) if example.image_id in rows else frozenset()

        objects = _lemmas(noun for _, each in self.objects.values() for noun, _ in each)
        return MaskSource(spec, outlines, frozenset(rows), version, (), objects, shown)


def _mask_rows(metadata: Path) -> Iterator[tuple[Path, tuple[Path, tuple[tuple[str, int], ...]]]]:
    for number, row in rows_of(metadata):
        masks, names = masks_in(row), names_in(row)
        if not masks:
            continue
        try:
            objects = tuple((str(one["noun"]), int(one["mask"])) for one in row["objects"])
            pictures = resolve_beside(metadata.parent, [*names[:1], masks[0]])
            picture, mask = pictures[names[0]], pictures[masks[0]]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise SourceError(
                f'{metadata}, line {number}, names a mask_file and needs "objects" like {{"noun": "dog", "mask": 1}}'
            ) from error
        if isinstance(picture, Path) and isinstance(mask, Path):
            yield picture, (mask, objects)


def _object_numbers(path: Path, size: tuple[int, int]) -> np.ndarray:
    """(height, width) object numbers, 0 for none."""
    require_inside(path)
    try:
        with Image.open(path, formats=_MASK_FORMATS) as image:
            if image.size != size:
                raise ImageError(f"mask {path} is {image.size} pixels, its picture {size}: they must be of one size")
            if image.mode not in ("P", "L", "1", "I;16"):
                raise ImageError(f"mask {path} is of mode {image.mode}: save it with a palette or in grey")
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"mask {path} cannot be read ({error}): give a PNG of object numbers") from error


@dataclass(frozen=True)
class _CocoMasks:
    """The pictures of an instances file; by picture id: what is outlined in it, and the categories of all that is
    annotated, crowds and boxes included; by category id: its noun.
    """

    path: Path
    folder: Path | None
    images: Sequence[tuple[str, Mapping[str, Any]]]
    outlined: Mapping[str, Sequence[Mapping[str, Any]]]
    annotated: Mapping[str, frozenset[str]]
    nouns: Mapping[str, str]
    doubts: Mapping[str, str]

    @classmethod
    def read(cls, path: Path, folder: Path | None) -> _CocoMasks:
        data = parse_json(read_text(path), str(path))
        outlined: dict[str, list[Mapping[str, Any]]] = {}
        rows = data.get("annotations") if isinstance(data, dict) else None
        annotated: dict[str, set[str]] = {}
        for row in rows if isinstance(rows, list) else ():
            if not isinstance(row, dict):
                continue
            image_key, category = plain_id(row.get("image_id")) or "", plain_id(row.get("category_id")) or ""
            annotated.setdefault(image_key, set()).add(category)
            if row.get("segmentation") and not _is_crowd(row):
                outlined.setdefault(image_key, []).append(row)
        if not outlined:
            raise SourceError(
                f"{path} outlines no objects (crowds and boxes do not): give COCO's instances, not captions or panoptic"
            )
        images = coco_images(path, data)
        categories = data.get("categories")
        nouns = {
            plain_id(one.get("id")) or "": str(one["name"])
            for one in (categories if isinstance(categories, list) else ())
            if isinstance(one, dict) and one.get("name")
        }
        kept = {key: frozenset(some) for key, some in annotated.items()}
        return cls(path, folder, images, outlined, kept, nouns, doubtful_ids(images))

    def source(self, spec: str, known: KnownPictures) -> MaskSource:
        meant = known.of_names_in([name for name, _ in self.images], self.folder)
        images: dict[str, list[Mapping[str, Any]]] = {}  # a file may list a picture twice, with outlines of each
        for name, image in self.images:
            image_id = meant[name]
            if isinstance(image_id, str) and self._rows_of([image]):
                images.setdefault(image_id, []).append(image)
        problems = [one.reason for one in meant.values() if isinstance(one, Unresolved) and one.is_ambiguous]

        def outlines(example: Example) -> Outlines:
            return self._outlines(example, images[example.image_id]) if example.image_id in images else Outlines()

        def version(example: Example) -> str:
            return self._version(images[example.image_id]) if example.image_id in images else ""

        def shown(example: Example) -> frozenset[str]:
            return self._shown(example, images[example.image_id]) if example.image_id in images else frozenset()

        told, objects = tuple(dict.fromkeys(problems)), _lemmas(self.nouns.values())
        return MaskSource(spec, outlines, frozenset(images), version, told, objects, shown)

    def _rows_of(self, images: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        keys = dict.fromkeys(plain_id(image.get("id")) or "" for image in images)
        return [row for key in keys for row in self.outlined.get(key, ())]

    def _shown(self, example: Example, images: Sequence[Mapping[str, Any]]) -> frozenset[str]:
        """The lemmas of what is annotated in a picture; none where it is another one by its id or its size."""
        keys = [plain_id(image.get("id")) or "" for image in images]
        if any(key in self.doubts for key in keys):
            return frozenset()
        try:
            stored = _stored_size(images[0], self._rows_of(images), example)
            _turner(Path(example.source), stored, (example.width, example.height))
        except (SourceError, ImageError):
            return frozenset()
        categories = {one for key in keys for one in self.annotated.get(key, ())}
        return _lemmas(self.nouns[one] for one in categories if one in self.nouns)

    def _outlines(self, example: Example, images: Sequence[Mapping[str, Any]]) -> Outlines:
        doubts = [self.doubts[key] for image in images if (key := plain_id(image.get("id")) or "") in self.doubts]
        if doubts:
            return Outlines(problems=(f"{self.path}: {doubts[0]}",))
        rows = self._rows_of(images)
        try:
            stored = _stored_size(images[0], rows, example)
            upright = _turner(Path(example.source), stored, (example.width, example.height))
        except (SourceError, ImageError) as error:
            return Outlines(problems=(str(error),))
        problems: list[str] = []
        masks = _united((noun, upright(mask)) for noun, mask in self._drawn(rows, stored, problems))
        return Outlines(masks, tuple(problems))

    def _drawn(
        self, rows: Sequence[Mapping[str, Any]], stored: tuple[int, int], problems: list[str]
    ) -> Iterator[tuple[str, Mask]]:
        """Noun and mask of each object that can be drawn; what cannot is added to `problems`."""
        for row in rows:
            where = f"{self.path}, annotation {row.get('id')},"
            noun = self.nouns.get(plain_id(row.get("category_id")) or "")
            if noun is None:
                problems.append(f"{where} has no category and is left out: export it again")
                continue
            mask, wrong = draw_segmentation(row["segmentation"], stored)
            problems += [f"{where} has an outline that is left out ({reason}): export it again" for reason in wrong]
            yield noun, mask

    def _version(self, images: Sequence[Mapping[str, Any]]) -> str:
        rows = self._rows_of(images)
        nouns = [self.nouns.get(plain_id(row.get("category_id")) or "") for row in rows]
        sizes = [(image.get("width"), image.get("height")) for image in images]
        return _digest(json.dumps([sizes, nouns, [row["segmentation"] for row in rows]], default=str).encode())


def _is_crowd(row: Mapping[str, Any]) -> bool:
    return str(row.get("iscrowd", "")).strip().lower() not in _NO_CROWD


def _stored_size(image: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], example: Example) -> tuple[int, int]:
    """(width, height) that the outlines are of: the file's word, the run lengths', or the picture's own."""
    try:
        width, height = int(image["width"]), int(image["height"])
    except (KeyError, TypeError, ValueError, OverflowError):
        width, height = 0, 0
    if width > 0 and height > 0:
        return width, height
    sizes = (size_of_runs(row["segmentation"]) for row in rows)
    return next((size for size in sizes if size is not None), None) or stored_frame(Path(example.source)).size


def _turner(path: Path, stored: tuple[int, int], displayed: tuple[int, int]) -> Callable[[Mask], Mask]:
    """What makes a mask of the annotation's size one of the displayed picture: EXIF's turn, or nothing."""
    require_inside(path)
    frame = stored_frame(path)
    if stored == frame.size and frame.upright == displayed:
        return functools.partial(_turn, orientation=frame.orientation)
    if stored == displayed:
        return lambda mask: mask
    raise SourceError(
        f"{path} is {displayed[0]} × {displayed[1]} pixels and was annotated at {stored[0]} × {stored[1]}: "
        "give the picture as annotated"
    )


def _turn(mask: Mask, orientation: int) -> Bool[np.ndarray, "upright_height upright_width"]:
    if orientation == 1:
        return mask
    image = Image.fromarray(mask)
    image.getexif()[_EXIF_ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image), bool)


def _united(objects: Iterator[tuple[str, Mask]]) -> dict[str, Mask]:
    """By lemma; what is nowhere to be seen is left out."""
    masks: dict[str, Mask] = {}
    for noun, mask in objects:
        if mask.any():
            lemma = lemma_of(noun)
            masks[lemma] = masks[lemma] | mask if lemma in masks else mask
    return masks


def _lemmas(nouns: Iterable[str]) -> frozenset[str]:
    return frozenset(map(lemma_of, nouns))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]

"""Object masks of a picture, by the lemma of what they show: the truth that fields are held against.

Two sources, those in which the pictures themselves come:

    a folder in ImageFolder's form (`gallery` is one): rows of `metadata.jsonl` with `mask_file`, a picture whose pixel
        values are object numbers, and `objects`, which names them: [{"noun": "dog", "mask": 1}, …]
    COCO instances: polygons, run lengths (plain or packed), drawn here; crowd regions, which outline no object, are
        left out

Masks are boolean, of the size at which the picture is displayed. Several objects of one noun are one mask. A category
of two words keeps both ("hot dog"): it is the mask of no noun of a caption, which are single words.

COCO outlines lie on the stored pixels: they are turned as EXIF turns the picture, and only then; where the file gives
the upright size instead, they are already upright.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageOps

from mmn.concepts import lemma_of
from mmn.core import Example
from mmn.errors import ImageError, SourceError, UsageError
from mmn.heat import Mask
from mmn.images.annotations import rows_of
from mmn.images.folders import METADATA_NAMES
from mmn.images.places import parse_json, read_text, require_folder, walk
from mmn.images.sources import GALLERY_PATH, _absolute, _two_paths
from mmn.roots import require_inside

_MASK_FORMATS: Final = ("PNG", "BMP", "GIF", "TIFF")  # lossless, so that a pixel is its object's number
_EXIF_ORIENTATION: Final = 0x0112
_PACKED_BITS, _PACKED_MORE, _PACKED_SIGN, _PACKED_ZERO = 0x1F, 0x20, 0x10, 48


@dataclass(frozen=True)
class MaskSource:
    """An opened source: `find` gives the masks of one picture, {} for a picture in which nothing is outlined."""

    spec: str
    find: Callable[[Example], dict[str, Mask]]


def load_masks(example: Example, spec: str) -> dict[str, Mask]:
    """Masks of one picture; for many, open the source once with `open_masks`."""
    return open_masks(spec).find(example)


def open_masks(spec: str) -> MaskSource:
    """The masks of `gallery`, a folder, or `coco:INSTANCES.json:FOLDER`, as the pictures' source is written.

    Raises:
        UsageError: a source of another kind, which has no masks.
        SourceError: it cannot be read, or holds no outlines.
    """
    kind, _, rest = spec.partition(":")
    if kind == "coco" and rest:
        annotations, _ = _two_paths(kind, rest)
        return MaskSource(spec, _CocoMasks.read(annotations).find)
    folder = GALLERY_PATH if spec == "gallery" else _absolute(spec)
    if folder.is_dir():
        return MaskSource(spec, _FolderMasks.read(folder).find)
    raise UsageError(f"{spec!r} has no object masks; give gallery, a folder with mask_file rows, or coco:FILE:FOLDER")


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

    def find(self, example: Example) -> dict[str, Mask]:
        for source in example.sources:
            if Path(source) in self.objects:
                path, objects = self.objects[Path(source)]
                numbers = _object_numbers(path, (example.width, example.height))
                return _united((noun, numbers == number) for noun, number in objects)
        return {}


def _mask_rows(metadata: Path) -> Iterator[tuple[Path, tuple[Path, tuple[tuple[str, int], ...]]]]:
    for number, row in rows_of(metadata):
        if not isinstance(row.get("mask_file"), str):
            continue
        try:
            objects = tuple((str(one["noun"]), int(one["mask"])) for one in row["objects"])
            picture = metadata.parent / row["file_name"]
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(
                f'{metadata}, line {number}, names a mask_file and needs "objects" like {{"noun": "dog", "mask": 1}}'
            ) from error
        yield _plain(picture), (_plain(metadata.parent / row["mask_file"]), objects)


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
    """By the last part of its name: the pictures of an instances file; by picture id: what is outlined in it."""

    path: Path
    images: Mapping[str, Sequence[Mapping[str, Any]]]
    outlines: Mapping[Any, Sequence[Mapping[str, Any]]]
    nouns: Mapping[Any, str]

    @classmethod
    def read(cls, path: Path) -> _CocoMasks:
        data = parse_json(read_text(path), str(path))
        rows = data.get("annotations", []) if isinstance(data, dict) else []
        outlines: dict[Any, list[Mapping[str, Any]]] = {}
        images: dict[str, list[Mapping[str, Any]]] = {}
        try:
            for row in rows:
                if row.get("segmentation") and not row.get("iscrowd"):
                    outlines.setdefault(row["image_id"], []).append(row)
            for image in data["images"] if outlines else ():
                images.setdefault(Path(image["file_name"]).name, []).append(image)
            nouns = {one["id"]: str(one["name"]) for one in data["categories"]} if outlines else {}
        except (KeyError, TypeError, AttributeError) as error:
            raise SourceError(f"{path} is not COCO's: {type(error).__name__} {error}") from error
        if not outlines:
            raise SourceError(f"{path} outlines no objects: give COCO's instances file, not captions or panoptic")
        return cls(path, images, outlines, nouns)

    def find(self, example: Example) -> dict[str, Mask]:
        image = self._image_of(example)
        if image is None:
            return {}
        stored = (int(image["width"]), int(image["height"]))
        upright = _turner(Path(example.source), stored, (example.width, example.height))
        return _united(
            (self._noun(row), upright(_drawn(row["segmentation"], stored, f"{self.path}, annotation {row.get('id')}")))
            for row in self.outlines.get(image["id"], ())
        )

    def _image_of(self, example: Example) -> Mapping[str, Any] | None:
        """Of several pictures with one last part, the one whose whole name ends the path."""
        for source in map(Path, example.sources):
            named = self.images.get(source.name, ())
            exact = [
                image
                for image in named
                if source.parts[-len(Path(image["file_name"]).parts) :] == Path(image["file_name"]).parts
            ]
            found = exact or named
            if len(found) > 1:
                raise SourceError(f"{self.path} has {len(found)} pictures that could be {source}: make names distinct")
            if found:
                return found[0]
        return None

    def _noun(self, row: Mapping[str, Any]) -> str:
        if row.get("category_id") not in self.nouns:
            raise SourceError(f"{self.path}, annotation {row.get('id')}, has no category: export it again")
        return self.nouns[row["category_id"]]


def _turner(path: Path, stored: tuple[int, int], displayed: tuple[int, int]) -> Callable[[Mask], Mask]:
    """What makes a mask of the annotation's size one of the displayed picture: EXIF's turn, or nothing."""
    require_inside(path)
    with Image.open(path) as picture:
        raw, orientation = picture.size, picture.getexif().get(_EXIF_ORIENTATION, 1)
    if stored == raw:
        turned = _turn(np.zeros(stored[::-1], bool), orientation)
        if turned.shape == displayed[::-1]:
            return lambda mask: _turn(mask, orientation)
    if stored == displayed:
        return lambda mask: mask
    raise SourceError(f"{path} is {displayed} pixels and was annotated at {stored}: give the picture as annotated")


def _turn(mask: Mask, orientation: int) -> Bool[np.ndarray, "upright_height upright_width"]:
    image = Image.fromarray(mask)
    image.getexif()[_EXIF_ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(image), bool)


def _drawn(segmentation: Any, size: tuple[int, int], where: str) -> Mask:
    """Polygons (their union) or run lengths, as a mask of `size` (width, height).

    Raises:
        SourceError: neither, or of another size; the message names `where`.
    """
    try:
        if isinstance(segmentation, dict):
            height, width = segmentation["size"]
            counts = segmentation["counts"]
            mask = decode_runs(unpack_counts(counts) if isinstance(counts, str) else counts, (width, height))
        else:
            mask = np.zeros(size[::-1], bool)
            for polygon in segmentation:
                mask |= draw_polygon(polygon, size)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise SourceError(f"{where}, has no readable segmentation ({error}): export it again") from error
    if mask.shape != size[::-1]:
        raise SourceError(f"{where}, is {mask.shape[::-1]} pixels and its picture {size}: export it again")
    return mask


def draw_polygon(polygon: Sequence[float | int], size: tuple[int, int]) -> Mask:
    """The pixels whose centres lie inside the outline x0, y0, x1, y1, …; COCO's pixel 0 is the span from 0 to 1.

    Even-odd: each edge flips all pixels to its right. (Pillow's own also fills half a pixel beyond the outline.)

    Raises:
        ValueError: fewer than three corners, or a coordinate that is no number.
    """
    points = np.asarray(polygon, float)
    if points.ndim != 1 or len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
        raise ValueError(f"a polygon of {len(points)} numbers")
    width, height = size
    mask = np.zeros((height, width), bool)
    corners = points.reshape(-1, 2)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        top, bottom = sorted((y0, y1))
        for row in range(max(0, math.ceil(top - 0.5)), min(height, math.ceil(bottom - 0.5))):
            x = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            mask[row, max(0, math.ceil(x - 0.5)) :] ^= True
    return mask


def decode_runs(counts: Sequence[int], size: tuple[int, int]) -> Mask:
    """Run lengths down the columns, first of background, then of the object, by turns.

    Raises:
        ValueError: they do not fill the picture.
    """
    width, height = size
    runs = np.asarray(counts, int)
    if runs.min(initial=0) < 0 or runs.sum() != width * height:
        raise ValueError(f"runs of {runs.sum()} pixels for a picture of {width} × {height}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def unpack_counts(text: str) -> list[int]:
    """Run lengths from COCO's packed form: five bits a character, low ones first; from the fourth on, differences
    to the run two before (`rleFrString` of pycocotools).
    """
    counts: list[int] = []
    at = 0
    while at < len(text):
        value, shift, has_more = 0, 0, True
        while has_more:
            bits = ord(text[at]) - _PACKED_ZERO
            value |= (bits & _PACKED_BITS) << shift
            shift, at, has_more = shift + 5, at + 1, bool(bits & _PACKED_MORE)
        if bits & _PACKED_SIGN:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts


def _united(objects: Iterator[tuple[str, Mask]]) -> dict[str, Mask]:
    """By lemma; what is nowhere to be seen is left out."""
    masks: dict[str, Mask] = {}
    for noun, mask in objects:
        if mask.any():
            lemma = lemma_of(noun)
            masks[lemma] = masks[lemma] | mask if lemma in masks else mask
    return masks


def _plain(path: Path) -> Path:
    """Without `..`, links left as they are: as `images` names pictures."""
    return Path(_absolute(str(path)))

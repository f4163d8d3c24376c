"""Files that list pictures: COCO and SBU annotations, tables of rows, plain lists."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from mmn.errors import SourceError
from mmn.images.places import Places, captions_in, is_file, parse_json, read_text, require_folder, sorted_places, walk

_SBU_NAME_KEYS: Final = ("file_name", "image", "image_path", "path", "image_url", "url")
_LIST_NAME_KEYS: Final = ("file_name", "path")
_HAS_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def coco_places(annotations: Path, folder: Path) -> Places:
    """The pictures of a COCO file, found in `folder`; captions annotations become references, others add nothing.

    Raises:
        SourceError: the file is not COCO's, or none of its pictures is in `folder`.
    """
    data = parse_json(read_text(annotations), str(annotations))
    images = data.get("images") if isinstance(data, dict) else None
    if not isinstance(images, list) or not images:
        raise SourceError(
            f"{annotations} lists no images: give a COCO file with 'images' (captions, instances, panoptic)"
        )
    captions: dict[Any, list[str]] = {}
    rows = data.get("annotations")
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and isinstance(row.get("image_id"), int | str):
            captions.setdefault(row["image_id"], []).extend(captions_in({"caption": row.get("caption")}))
    return _found(annotations, folder, (_coco_image(annotations, image, captions) for image in images))


def sbu_places(annotations: Path, folder: Path) -> Places:
    """The pictures of an SBU captions file, found in `folder` by the last part of their address.

    Two forms: a list of rows (`image`, `url` or `image_url`, with `caption` or `captions`), or the released
    `{"image_urls": [...], "captions": [...]}`.

    Raises:
        SourceError: the file has neither form, or none of its pictures is in `folder`.
    """
    data = parse_json(read_text(annotations), str(annotations))
    if isinstance(data, dict):
        data = _sbu_rows(annotations, data)
    if not isinstance(data, list) or not data:
        raise SourceError(f"{annotations} lists no pictures: give SBU's JSON with 'image_urls' and 'captions', or rows")
    return _found(annotations, folder, (_sbu_image(annotations, row) for row in data))


def list_places(path: Path) -> Places:
    """The pictures that a `.txt` (a path a line, `#` comments) or `.csv` list names, relative to the list's folder.

    Raises:
        SourceError: the list cannot be read, or names nothing.
    """
    references: dict[Path, list[str]] = {}
    for name, captions in _csv_rows(path) if path.suffix.lower() == ".csv" else _txt_rows(path):
        place = Path(os.path.normpath(path.parent / os.path.expanduser(name)))  # noqa: PTH111 - Path raises for an unknown user
        references.setdefault(place, []).extend(captions)
    if not references:
        raise SourceError(f"{path} names no picture: write one path a line")
    return sorted_places(references)


def rows_of(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(Line number from 1, row) of a `.csv` with a header or of a `.jsonl` of objects; a list in a csv cell is JSON.

    Raises:
        SourceError: the file cannot be read, or a line is no row.
    """
    text = read_text(path)
    if path.suffix.lower() == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
        try:
            for row in reader:
                yield reader.line_num, {(key or "").strip(): _cell(value) for key, value in row.items()}
        except csv.Error as error:
            raise SourceError(
                f"{path}, line {reader.line_num}, is not a table ({error}): save it as CSV again"
            ) from error
        return
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines() cuts at U+2028, which JSON allows
        if line.strip():
            row = parse_json(line, f"{path}, line {number},")
            if not isinstance(row, dict):
                raise SourceError(f'{path}, line {number}, is not an object: write {{"file_name": …}}')
            yield number, row


def _coco_image(annotations: Path, image: object, captions: Mapping[Any, list[str]]) -> tuple[str, list[str]]:
    name = image.get("file_name") if isinstance(image, dict) else None
    if not isinstance(image, dict) or not isinstance(name, str) or not name:
        raise SourceError(f"{annotations} has an image without a file_name ({str(image)[:60]}): export it again")
    identity = image.get("id")
    return name, captions.get(identity, []) if isinstance(identity, int | str) else []


def _sbu_rows(annotations: Path, data: Mapping[str, Any]) -> list[dict[str, Any]]:
    urls, captions = data.get("image_urls"), data.get("captions")
    if not isinstance(urls, list) or not isinstance(captions, list) or len(urls) != len(captions):
        raise SourceError(f"{annotations} needs 'image_urls' and 'captions', two lists of one length: export it again")
    return [{"url": url, "captions": caption} for url, caption in zip(urls, captions, strict=True)]


def _sbu_image(annotations: Path, row: object) -> tuple[str, tuple[str, ...]]:
    names = [row[key] for key in _SBU_NAME_KEYS if isinstance(row.get(key), str)] if isinstance(row, dict) else []
    if not isinstance(row, dict) or not names:
        raise SourceError(
            f"{annotations} has a row that names no picture ({str(row)[:60]}): each needs 'image' or 'url'"
        )
    name = names[0]
    return unquote(urlsplit(name).path) if _HAS_SCHEME.match(name) else name, captions_in(row)


def _found(annotations: Path, folder: Path, named: Iterable[tuple[str, Iterable[str]]]) -> Places:
    """Each name's file: `folder`/name where that exists, else the file of that base name anywhere in `folder`."""
    require_folder(folder)
    by_base_name: dict[str, Path] = {}
    for inside, names in walk(folder):
        for name in names:
            by_base_name.setdefault(name, inside / name)
    references: dict[Path, list[str]] = {}
    n_found = 0
    for name, captions in named:
        exact = Path(os.path.normpath(folder / name.lstrip("/")))
        base = Path(name).name
        path = exact if is_file(exact) else by_base_name.get(base, folder / base)
        n_found += base in by_base_name
        references.setdefault(path, []).extend(captions)
    if not n_found:
        raise SourceError(f"none of the {len(references)} pictures of {annotations} is in {folder}: give their folder")
    return sorted_places(references)


def _txt_rows(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    for line in read_text(path).split("\n"):
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip(), ()


def _csv_rows(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    for number, row in rows_of(path):
        names = [row[key].strip() for key in _LIST_NAME_KEYS if isinstance(row.get(key), str) and row[key].strip()]
        if not names:
            raise SourceError(f"{path}, line {number}, names no picture: give a column file_name or path")
        yield names[0], captions_in(row)


def _cell(value: object) -> object:
    """A csv cell; one that is a JSON list of texts is that list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return parse_json(value, "a cell")
        except SourceError:
            return value  # a caption may begin with a bracket
    return value

"""Annotation files that name pictures and their captions: COCO, SBU, tables of rows, plain lists.

Each is read into `Named` rows. Which file a name means is for `naming` to find.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from mmn.core import Failure
from mmn.counts import counted
from mmn.errors import ImageError, SourceError
from mmn.images.columns import captions_in, names_in, plain_key, unread
from mmn.images.known import files_in
from mmn.images.naming import Unresolved, resolve_beside
from mmn.images.places import Places, parse_json, read_text, sorted_places

LIST_SUFFIXES: Final = (".txt", ".csv", ".jsonl", ".parquet")
_LITERAL: Final = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(['\"\\])")
_LONGEST_CELL: Final = 1_000_000  # characters; a longer one is no list of captions


@dataclass(frozen=True)
class Named:
    """A picture as an annotation file names it, and the captions that the file has of it.

    `doubt` says why it cannot be known which captions those are; empty where it can.
    """

    name: str
    references: tuple[str, ...] = ()
    doubt: str = ""


def coco_places(annotations: Path, folder: Path) -> Places:
    """The pictures of a COCO file, found in `folder`; captions annotations become references, others add nothing.

    Raises:
        SourceError: the file is not COCO's, or none of its pictures is in `folder`.
    """
    return _found(annotations, folder, coco_rows(annotations))


def sbu_places(annotations: Path, folder: Path) -> Places:
    """The pictures of an SBU captions file, found in `folder` by the last parts of their address.

    Raises:
        SourceError: the file has neither form (`sbu_rows`), or none of its pictures is in `folder`.
    """
    return _found(annotations, folder, sbu_rows(annotations))


def list_places(path: Path) -> Places:
    """The pictures that a list names, relative to the list's folder (`list_rows`).

    Raises:
        SourceError: the list cannot be read, or names nothing.
    """
    named = list_rows(path)
    return beside(path.parent, named, "" if path.suffix.lower() == ".txt" else why_none(path, named))


def beside(folder: Path, named: Sequence[Named], why_none: str = "") -> Places:
    """Places of what a list or table in `folder` names."""
    meant = resolve_beside(folder, (one.name for one in named))
    references: dict[Path, list[str]] = {}
    failures = []
    for one in named:
        path = meant[one.name]
        if isinstance(path, Unresolved):
            failures.append(_failure(str(folder / one.name), path))
        else:
            references.setdefault(path, []).extend(one.references)
    return sorted_places(references, tuple(dict.fromkeys(failures)), why_none)


def coco_rows(annotations: Path) -> list[Named]:
    """The pictures of a COCO file (captions, instances, panoptic, or Karpathy's with `sentences`), each with captions.

    Raises:
        SourceError: the file is not COCO's.
    """
    data = parse_json(read_text(annotations), str(annotations))
    images = coco_images(annotations, data)
    doubts = doubtful_ids(images)
    captions: dict[str, list[str]] = {}
    rows = data.get("annotations")
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and (key := plain_id(row.get("image_id"))) is not None:
            captions.setdefault(key, []).extend(captions_in({"caption": row.get("caption")}))
    named = []
    for name, image in images:
        key = plain_id(image.get("id")) or ""
        named.append(Named(name, (*captions.get(key, ()), *captions_in(image)), doubts.get(key, "")))
    return named


def coco_images(annotations: Path, data: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Name and entry of each picture of a COCO file.

    Raises:
        SourceError: it lists none, or one has no name.
    """
    images = data.get("images") if isinstance(data, dict) else None
    if not isinstance(images, list) or not images:
        raise SourceError(
            f"{annotations} lists no images: give a COCO file with 'images' (captions, instances, panoptic)"
        )
    found: list[tuple[str, Mapping[str, Any]]] = []
    for image in images:
        names = names_in(image) if isinstance(image, dict) else ()
        if not isinstance(image, dict) or not names:
            raise SourceError(f"{annotations} has an image without a file_name ({str(image)[:60]}): export it again")
        found.append((names[0], image))
    return found


def doubtful_ids(images: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str]:
    """Ids that pictures of several names have, with what is wrong: an annotation could belong to any of them."""
    owners: dict[str, set[str]] = {}
    for name, image in images:
        if (key := plain_id(image.get("id"))) is not None:
            owners.setdefault(key, set()).add(name)
    return {
        key: f"{' and '.join(sorted(names)[:3])} have one id, {key}: give each its own, annotations could be of either"
        for key, names in owners.items()
        if len(names) > 1
    }


def plain_id(value: object) -> str | None:
    """A COCO id as it is compared: 17, 17.0, "17" and "000017" are one. None for what is no id."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    return str(int(text)) if text.isascii() and text.isdecimal() and len(text) < 40 else text


def sbu_rows(annotations: Path) -> list[Named]:
    """The pictures of an SBU captions file, in either of two forms.

    A list of rows (`image`, `url` or `image_url`, with `caption` or `captions`), or the released
    `{"image_urls": [...], "captions": [...]}`.

    Raises:
        SourceError: the file has neither form.
    """
    data = parse_json(read_text(annotations), str(annotations))
    if isinstance(data, dict):
        data = _released_rows(annotations, data)
    if not isinstance(data, list) or not data:
        raise SourceError(f"{annotations} lists no pictures: give SBU's JSON with 'image_urls' and 'captions', or rows")
    named = []
    for row in data:
        names = names_in(row) if isinstance(row, dict) else ()
        if not names:
            raise SourceError(
                f"{annotations} has a row that names no picture ({str(row)[:60]}): each needs 'image' or 'url'"
            )
        named += [Named(name, captions_in(row)) for name in names]
    return named


def list_rows(path: Path) -> list[Named]:
    """What a `.txt` (a path a line, `#` comments) or a table (`rows_of`) names, with the table's captions.

    Raises:
        SourceError: the list cannot be read, or names nothing.
    """
    if path.suffix.lower() == ".txt":
        lines = (line.strip() for line in read_text(path).split("\n"))
        named = [Named(line) for line in lines if line and not line.startswith("#")]
    else:
        named = [one for number, row in rows_of(path) for one in named_by(row, f"{path}, line {number},")]
    if not named:
        raise SourceError(f"{path} names no picture: write one path a line")
    return named


def named_by(row: Mapping[str, Any], where: str) -> list[Named]:
    """What a row of a table names.

    Raises:
        SourceError: nothing; the message names `where`.
    """
    names = names_in(row)
    if not names:
        columns = ", ".join(str(key) for key in row)[:120]
        raise SourceError(
            f"{where} names no picture: it has no file_name, *_file_name, image or path among its columns ({columns})"
        )
    captions = captions_in(row)
    return [Named(name, captions) for name in names]


def why_none(table: Path, named: Iterable[Named]) -> str:
    """Why none of the pictures that a table names may have a reference; with its columns, where none holds captions."""
    if any(one.references for one in named):
        return f"{table} has captions, but of pictures that are not used"
    first = next(rows_of(table), (0, {}))[1]
    return f"{table} has {unread(first)}"


def rows_of(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(Line number from 1, row) of a `.csv` with a header, a `.jsonl` of objects or a `.parquet`; keys as `plain_key`.

    A list in a csv cell is JSON, or as Python, pandas and numpy write it.

    Raises:
        SourceError: the file cannot be read, or a line is no row.
    """
    rows = {".csv": _csv_rows, ".parquet": _parquet_rows}.get(path.suffix.lower(), _json_rows)
    for number, row in rows(path):
        yield number, {plain_key(key): value for key, value in row.items()}


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    try:
        for row in reader:
            yield reader.line_num, {str(key or ""): _cell(value) for key, value in row.items()}
    except csv.Error as error:
        raise SourceError(f"{path}, line {reader.line_num}, is not a table ({error}): save it as CSV again") from error


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):  # splitlines() cuts at U+2028, JSON allows it
        if line.strip():
            row = parse_json(line, f"{path}, line {number},")
            if not isinstance(row, dict):
                raise SourceError(f'{path}, line {number}, is not an object: write {{"file_name": …}}')
            yield number, row


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        yield from enumerate(pq.read_table(path).to_pylist(), start=1)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SourceError(f"{path} is no readable Parquet file ({reason}): save it again") from error


def _released_rows(annotations: Path, data: Mapping[str, Any]) -> list[dict[str, Any]]:
    urls, captions = data.get("image_urls"), data.get("captions")
    if not isinstance(urls, list) or not isinstance(captions, list) or len(urls) != len(captions):
        raise SourceError(f"{annotations} needs 'image_urls' and 'captions', two lists of one length: export it again")
    return [{"url": url, "captions": caption} for url, caption in zip(urls, captions, strict=True)]


def _found(annotations: Path, folder: Path, named: Sequence[Named]) -> Places:
    """Each name's file in `folder`; a name that means none, or that could mean several, is a failure."""
    meant = files_in(folder).resolve(one.name for one in named)
    references: dict[Path, list[str]] = {}
    failures = {}
    for one in named:
        path = Unresolved(one.doubt, is_ambiguous=True) if one.doubt else meant[one.name]
        if isinstance(path, Unresolved):
            failures[one.name] = _failure(str(folder / one.name.lstrip("/")), path)
        else:
            references.setdefault(path, []).extend(one.references)
    if not references:
        reason = next(iter(failures.values())).message
        raise SourceError(
            f"{annotations} names {counted(len(failures), 'picture')}, and none is in {folder}: give their folder "
            f"({reason})"
        )
    has_any = any(one.references for one in named)
    missing = "has captions, but of pictures that are not used" if has_any else "has no captions of its pictures"
    remedy = "mmn annotate RUN --references SRC adds them from another file"
    return sorted_places(references, tuple(failures.values()), f"{annotations} {missing}; {remedy}")


def _failure(source: str, unresolved: Unresolved) -> Failure:
    return Failure(source.encode("utf-8", "backslashreplace").decode(), "open", ImageError.__name__, unresolved.reason)


def _cell(value: object) -> object:
    """A csv cell; one that is a list of texts or objects is that list."""
    if not isinstance(value, str) or not value.strip().startswith("[") or len(value) > _LONGEST_CELL:
        return value
    try:
        return parse_json(value, "a cell")
    except SourceError:
        return _python_list(value.strip()) or value  # a caption may begin with a bracket


def _python_list(text: str) -> list[str]:
    """The texts of `['a', "b"]`, or of numpy's `['a' 'b']`; none where it holds anything else."""
    if not text.endswith("]") or _LITERAL.sub("", text[1:-1]).strip(", \n\r\t"):
        return []
    return [_ESCAPED.sub(r"\1", literal[1:-1]) for literal in _LITERAL.findall(text)]

"""A folder of pictures, its sub-folders too, with Hugging Face ImageFolder's captions beside them.

A `metadata.jsonl`, `metadata.csv`, `metadata.parquet` or `captions.csv` in any folder describes pictures by names
relative to itself (`columns.names_in`). Masks that it names are no pictures of the folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mmn.counts import counted
from mmn.errors import SourceError
from mmn.images.annotations import Named, beside, named_by, rows_of, why_none
from mmn.images.columns import masks_in
from mmn.images.naming import Unresolved, resolve_beside
from mmn.images.opening import is_image
from mmn.images.places import Place, Places, require_folder, sorted_places, walk

METADATA_NAMES: Final = ("metadata.jsonl", "metadata.csv", "metadata.parquet", "captions.csv")
# What people keep beside pictures. Anything else that is no picture is reported: it may be one that broke.
_BESIDE_NAMES: Final = ("thumbs.db", "desktop.ini", "readme", "license", "licence", "checksums", "sha256sums")
_BESIDE_SUFFIXES: Final = (
    *(
        ".txt",
        ".json",
        ".jsonl",
        ".csv",
        ".tsv",
        ".md",
        ".rst",
        ".html",
        ".htm",
        ".xml",
        ".yaml",
        ".yml",
        ".toml",
        ".ini",
    ),
    *(".log", ".pdf", ".py", ".ipynb", ".sh", ".mat", ".npy", ".npz", ".h5", ".pkl", ".pt", ".safetensors", ".parquet"),
    *(".arrow", ".duckdb", ".db", ".zip", ".tar", ".gz", ".tgz", ".sha256", ".md5"),
)
_LOOKS_LIKE_METADATA: Final = ("metadata", "captions", "annotations")
_TABLES: Final = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".parquet")


def folder_places(folder: Path) -> Places:
    """Every picture in `folder` and below, and every file that its metadata names, by path.

    Raises:
        SourceError: no such folder, nothing in it, or metadata that cannot be read.
    """
    require_folder(folder)
    references: dict[Path, list[str]] = {}
    described: list[Places] = []
    masks: set[Path] = set()
    unread: list[Path] = []
    for inside, names in walk(folder):
        for name in names:
            if name.lower() in METADATA_NAMES:
                described.append(_described(inside / name))
                masks |= _masks(inside / name)
            elif _is_wanted(inside / name):
                references.setdefault(inside / name, [])
            elif name.lower().startswith(_LOOKS_LIKE_METADATA) and name.lower().endswith(_TABLES):
                unread.append(inside / name)
    references = {path: captions for path, captions in references.items() if path not in masks}
    each = [one for places in described for one in places.each]
    for place in each:
        if isinstance(place, Place):
            references.setdefault(place.path, []).extend(place.references)
    failures = [one for one in each if not isinstance(one, Place)]
    if not references and not failures:
        raise SourceError(f"{folder} holds no picture, nor do its sub-folders: give a folder with JPEG, PNG, WebP, …")
    return sorted_places(references, failures, _why_none(described, unread))


def _is_wanted(path: Path) -> bool:
    is_beside = path.suffix.lower() in _BESIDE_SUFFIXES or path.name.lower() in _BESIDE_NAMES
    return not is_beside or is_image(path)


def _described(metadata: Path) -> Places:
    """The pictures that a metadata file names, with their captions."""
    named: list[Named] = []
    for number, row in rows_of(metadata):
        named += named_by(row, f"{metadata}, line {number},")
    return beside(metadata.parent, named, why_none(metadata, named))


def _masks(metadata: Path) -> set[Path]:
    names = [name for _, row in rows_of(metadata) for name in masks_in(row)]
    meant = resolve_beside(metadata.parent, names).values()
    return {path for path in meant if not isinstance(path, Unresolved)}


def _why_none(described: list[Places], unread: list[Path]) -> str:
    """Why no picture may have a reference, although files look as if they gave some; of several the first one's why."""
    if described:
        more = f" (and {counted(len(described) - 1, 'other file')})" if len(described) > 1 else ""
        return described[0].why_none + more
    if unread:
        return f"{unread[0]} is not read; captions beside pictures are read from {', '.join(METADATA_NAMES)}"
    return ""

"""A folder of pictures, its sub-folders too, with Hugging Face ImageFolder's captions beside them.

A `metadata.jsonl`, `metadata.csv` or `captions.csv` in any folder describes pictures by `file_name` relative to itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mmn.errors import SourceError
from mmn.images.annotations import rows_of
from mmn.images.opening import is_image
from mmn.images.places import Places, captions_in, require_folder, sorted_places, walk

METADATA_NAMES: Final = ("metadata.jsonl", "metadata.csv", "captions.csv")
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


def folder_places(folder: Path) -> Places:
    """Every picture in `folder` and below, and every file that its metadata names, by path.

    Raises:
        SourceError: no such folder, nothing in it, or metadata that cannot be read.
    """
    require_folder(folder)
    references: dict[Path, list[str]] = {}
    for inside, names in walk(folder):
        for name in names:
            if name.lower() in METADATA_NAMES:
                for path, captions in _metadata(inside / name):
                    references.setdefault(path, []).extend(captions)
            elif _is_wanted(inside / name):
                references.setdefault(inside / name, [])
    if not references:
        raise SourceError(f"{folder} holds no picture, nor do its sub-folders: give a folder with JPEG, PNG, WebP, …")
    return sorted_places(references)


def _is_wanted(path: Path) -> bool:
    is_beside = path.suffix.lower() in _BESIDE_SUFFIXES or path.name.lower() in _BESIDE_NAMES
    return not is_beside or is_image(path)


def _metadata(path: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    for number, row in rows_of(path):
        name = row.get("file_name")
        if not isinstance(name, str) or not name.strip():
            raise SourceError(f"{path}, line {number}, has no file_name: name the picture that it describes")
        yield Path(os.path.normpath(path.parent / name.strip())), captions_in(row)

"""Matches the rows of an annotation file with the pictures of a run that is scored already.

A file that is named or found is a picture of the run where its path is, or its bytes are. Where an annotation file
comes without a folder, its names are compared with the paths of the run's pictures, as `naming` compares all names.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmn.core import Example
from mmn.errors import ImageError
from mmn.images.naming import Resolver, Unresolved
from mmn.images.opening import read_header
from mmn.images.places import require_folder, walk


@dataclass(frozen=True)
class KnownPictures:
    """The pictures of a run."""

    examples: tuple[Example, ...]

    def of_files(self, paths: Iterable[Path]) -> dict[Path, str]:
        """The image_id of each file that is a picture of the run."""
        found = {}
        for path in paths:
            image_id = self._by_path.get(path) or self._by_bytes(path)
            if image_id is not None:
                found[path] = image_id
        return found

    def of_names(self, names: Iterable[str]) -> dict[str, str | Unresolved]:
        """The image_id that each name means, or why none."""
        return self._resolver.resolve(names)

    def of_names_in(self, names: Sequence[str], folder: Path | None) -> dict[str, str | Unresolved]:
        """The image_id of the file that each name means in `folder`; without one, as `of_names`.

        Raises:
            SourceError: no such folder.
        """
        if folder is None:
            return self.of_names(names)
        meant = files_in(folder).resolve(names)
        ids = self.of_files({path for path in meant.values() if isinstance(path, Path)})
        missing = Unresolved("the picture is not in this run", is_ambiguous=False)
        return {name: path if isinstance(path, Unresolved) else ids.get(path, missing) for name, path in meant.items()}

    @functools.cached_property
    def _by_path(self) -> Mapping[Path, str]:
        return {Path(source): example.image_id for example in self.examples for source in example.sources}

    @functools.cached_property
    def _resolver(self) -> Resolver[str]:
        folders = {str(path.parent) for path in self._by_path}
        return Resolver(self._by_path, Path(os.path.commonpath(folders)) if folders else Path("/"))

    @functools.cached_property
    def _n_bytes(self) -> frozenset[int]:
        """Sizes of the run's files: only a file of one of these can be a copy."""
        return frozenset(_size(Path(example.source)) for example in self.examples)

    @functools.cached_property
    def _ids(self) -> frozenset[str]:
        return frozenset(example.image_id for example in self.examples)

    def _by_bytes(self, path: Path) -> str | None:
        if _size(path) not in self._n_bytes and -1 not in self._n_bytes:
            return None
        try:
            image_id = read_header(path).image_id
        except ImageError:
            return None
        return image_id if image_id in self._ids else None


def files_in(folder: Path) -> Resolver[Path]:
    """Finds the files of a folder and all below by name.

    Raises:
        SourceError: no such folder.
    """
    require_folder(folder)
    return Resolver({inside / name: inside / name for inside, names in walk(folder) for name in names}, folder)


def _size(path: Path) -> int:
    """In bytes; -1, which no file has, when there is none."""
    try:
        return os.path.getsize(path)  # noqa: PTH202
    except (OSError, ValueError):
        return -1

"""How much of the disk does a run take? Its shards, and the deltas of its edits; the database is all runs' together."""

from __future__ import annotations

import os
from pathlib import Path

from mmn.safety.inside import inside
from mmn.store.database import DATABASE
from mmn.store.reader import Reader

_EDITS = "SELECT DISTINCT edit_id FROM edit WHERE run_id = ? ORDER BY edit_id"


class DiskUse(Reader):
    """Bytes on disk, of what lies in the cache folder."""

    def of_run(self, run_id: str) -> int:
        """Bytes of a run's shards and deltas in this cache: 0 for one that was loaded from elsewhere.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            edits = [edit_id for (edit_id,) in cursor.execute(_EDITS, [run["run_id"]]).fetchall()]
        cache_path = self._database.cache_path
        deltas = (inside(cache_path / "edits", f"{edit_id}.safetensors") for edit_id in edits)
        return bytes_below(cache_path / "runs" / run["run_id"]) + sum(map(bytes_below, deltas))

    def of_database(self) -> int:
        """Bytes of the database, and of what waits to be written into it."""
        path = self._database.cache_path / DATABASE
        return bytes_below(path) + bytes_below(path.with_name(f"{DATABASE}.wal"))


def bytes_below(path: Path) -> int:
    """Bytes of a file, or of all files in a folder and its folders; links are not followed, what is gone counts 0."""
    if path.is_symlink():
        return 0
    if path.is_file():
        return path.stat().st_size
    found = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                found += (Path(folder) / name).lstat().st_size
            except FileNotFoundError:  # a job renames what it has written
                continue
    return found

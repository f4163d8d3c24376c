"""Loads a folder of shards that were written elsewhere: `mmn load DIR`, and the Runs page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmn.errors import BrokenFileError, CacheError, SetAside, SourceError
from mmn.runs.shards import find_runs, read_run_file
from mmn.store.store import Store


@dataclass(frozen=True)
class Loaded:
    """The runs of a folder, how many of their shards were new, and what was set aside."""

    run_ids: tuple[str, ...]
    n_shards: int
    set_aside: tuple[SetAside, ...]


def load_folder(store: Store, folder: Path, progress: Callable[[int, int], None] | None = None) -> Loaded:
    """Loads a run's folder, or one that holds several; a run that was deleted here before comes back.

    Raises:
        SourceError: there is no run in it.
        CacheError: none of them can be read.
    """
    run_paths = find_runs([folder])
    if not run_paths:
        raise SourceError(f"{folder} holds no run (no run.json in it or in its folders)")
    run_ids = sorted(filter(None, (_restored(store, run_path) for run_path in run_paths)))
    n_shards = store.load_new_shards([folder], progress)
    if not run_ids:
        raise CacheError(str(store.set_aside[0]))
    return Loaded(tuple(run_ids), n_shards, store.set_aside)


def _restored(store: Store, run_path: Path) -> str | None:
    """The id of a readable run, which may be loaded again from now on."""
    try:
        run_id = read_run_file(run_path).run.run_id
    except BrokenFileError:
        return None
    store.restore(run_id)
    return run_id

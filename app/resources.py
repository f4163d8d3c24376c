"""What all sessions share: the cache folder and its one `Store`. The only `st.cache_resource` of the app."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import streamlit as st

from app.places import ROOT, cache_path
from mmn.errors import SetAside
from mmn.runs.shards import read_run_file
from mmn.specimen import RUN_PATHS
from mmn.store import Store

__all__ = ["BUNDLED_RUNS", "ROOT", "bundled_ids", "cache_path", "look_for_results", "refresh", "run_id_of", "store"]
BUNDLED_RUNS: Final = RUN_PATHS


def store() -> Store:
    """The process's one open store.

    Raises:
        CacheLockedError: Another process holds the database.
        CacheError: It is newer than this program, damaged, or its folder cannot be written.
    """
    return _open(cache_path())


@cache
def run_id_of(folder: Path) -> str:
    """The id of a bundled run."""
    return read_run_file(folder).run.run_id


def bundled_ids() -> list[str]:
    """The runs that come along; another machine scored them."""
    return [run_id_of(path) for path in BUNDLED_RUNS if path.is_dir()]


def look_for_results() -> tuple[SetAside, ...]:
    """Loads shards that jobs or commands have written since the last look (at most every 3 s); returns what was set
    aside, and why.
    """
    return _load_new(cache_path())


def refresh() -> None:
    """Lets the next look happen at once: a job has just ended."""
    _load_new.clear()


@st.cache_resource(show_spinner="Opening the results", on_release=Store.close)
def _open(path: Path) -> Store:
    return Store.open(path)


@st.cache_resource(ttl=3, show_spinner="Loading new results")
def _load_new(path: Path) -> tuple[SetAside, ...]:
    opened = _open(path)
    opened.load_new_shards([opened.runs_path, *BUNDLED_RUNS])
    return opened.set_aside

"""What every answer of the store begins with: a cursor of its own, the run that is meant, and what is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from mmn.errors import UsageError
from mmn.names import ORIGINAL
from mmn.store import queries
from mmn.store.database import DATABASE, cursor


class Reader:
    """A connection to the database of a cache folder. Safe to share between threads; every answer is a copy."""

    def __init__(self, cache_path: Path, connection: duckdb.DuckDBPyConnection) -> None:
        """Use `Store.open`."""
        self.cache_path = cache_path
        self._connection = connection
        self._known: dict[tuple[str, str], Any] = {}  # of whole runs, asked many times for one page

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with cursor(self._connection, self.cache_path / DATABASE) as own:
            yield own

    @contextmanager
    def _of_run(self, run_id: str) -> Iterator[tuple[duckdb.DuckDBPyConnection, dict[str, Any]]]:
        with self._cursor() as own:
            yield own, dict(self._remember(("run", run_id), lambda: queries.find_run(own, run_id)))

    def _score_methods(self, own: duckdb.DuckDBPyConnection, run: dict[str, Any]) -> list[str]:
        return list(self._remember(("methods", run["run_id"]), lambda: queries.score_methods(own, run)))

    def _require_methods(self, own: duckdb.DuckDBPyConnection, run: dict[str, Any], *methods: str) -> list[str]:
        """Returns the methods with scores in the run; raises `UsageError`, which lists them, where one asked for is
        not among them.
        """
        there = self._score_methods(own, run)
        for method in methods:
            if method not in there:
                known = ", ".join(there) or "none"
                raise UsageError(f"run {run['run_id']} has no {method!r} scores; its methods are: {known}")
        return there

    def _remember(self, question: tuple[str, str], ask: Callable[[], Any]) -> Any:
        """The answer to a question, asked once until something is written (`_forget`)."""
        known = self._known  # an answer from before a write goes where nobody looks any more
        if question not in known:
            known[question] = ask()
        return known[question]

    def _forget(self) -> None:
        self._known = {}


def require_concept(own: duckdb.DuckDBPyConnection, run: dict[str, Any], image_id: str, noun: str) -> None:
    """Raises `UsageError` where the run has no such noun of such a picture; its message lists the nouns there are."""
    rows = own.execute(
        "SELECT noun FROM concept WHERE run_id = ? AND image_id = ? AND variant = ? ORDER BY position",
        [run["run_id"], image_id, ORIGINAL],
    ).fetchall()
    nouns = [said for (said,) in rows]
    if noun not in nouns:
        raise UsageError(
            f"run {run['run_id']} has no noun {noun!r} for picture {image_id[:12]}; it has {', '.join(nouns) or 'none'}"
        )


def require_k(run: dict[str, Any], k: int) -> None:
    """Raises `UsageError` for a k beyond what the run stored, where a ranking would be cut short."""
    stored = min(run["settings"]["top_k"], run["n_layers"] * run["d_mlp"])
    if not 1 <= k <= stored:
        raise UsageError(f"k = {k} is not in 1 … {stored}, the units per noun that this run stored (its --top-k)")

"""What all queries share: the open database, the run that is meant, and checks of what is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb
import pandas as pd

from mmn.errors import UsageError
from mmn.names import ORIGINAL
from mmn.store import queries
from mmn.store.cells import in_order
from mmn.store.database import DATABASE, open_cursor

MOST_RECENT: Final = {"figure": 60, "rows": 12}  # answers that pages are drawn of: a few pages of a few sessions


class Database:
    """The open database of a cache folder, which `Store` and all queries share; safe between threads."""

    def __init__(self, cache_path: Path, connection: duckdb.DuckDBPyConnection) -> None:
        self.cache_path = cache_path
        self.connection = connection
        self._answers: dict[tuple[str, str], Any] = {}  # about whole runs, asked many times for one page
        self._recent: dict[str, dict[Hashable, Any]] = {}  # of each kind; the last ones asked for come last
        self._changing_recent = threading.Lock()

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor for one use."""
        with open_cursor(self.connection, self.cache_path / DATABASE) as cursor:
            yield cursor

    def remember(self, question: tuple[str, str], ask: Callable[[], Any]) -> Any:
        """The answer to a question, asked once until something is written (`forget`)."""
        answers = self._answers  # an answer from before a write lands in the dictionary that `forget` dropped
        if question not in answers:
            answers[question] = ask()
        return answers[question]

    def recent(self, kind: str, question: Hashable, ask: Callable[[], Any]) -> Any:
        """As `remember`, of the `MOST_RECENT` questions of a kind that were asked last: those of which there is no end.

        Whoever asks again is given the same value, and must not change it.
        """
        answers = self._recent.setdefault(kind, {})
        answer = answers[question] if question in answers else ask()
        with self._changing_recent:
            answers.pop(question, None)
            answers[question] = answer
            while len(answers) > MOST_RECENT[kind]:
                del answers[next(iter(answers))]
        return answer

    def forget(self) -> None:
        """Drops every remembered answer: the tables have changed."""
        self._answers, self._recent = {}, {}


class Reader:
    """Questions asked of a database; each study has a class of its own (`Store.ask`). Every answer is a copy."""

    def __init__(self, database: Database) -> None:
        """Use `Store.open` and `Store.ask`."""
        self._database = database

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._database.cursor() as cursor:
            yield cursor

    @contextmanager
    def _of_run(self, run_id: str) -> Iterator[tuple[duckdb.DuckDBPyConnection, dict[str, Any]]]:
        with self._cursor() as cursor:
            run = self._database.remember(("run", run_id), lambda: queries.find_run(cursor, run_id))
            yield cursor, dict(run)

    def _asked_once(self, question: Hashable, ask: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """Rows that several figures of a page are made of, asked once; a copy of them."""
        rows: pd.DataFrame = self._database.recent("rows", question, ask)
        return rows.copy(deep=False)  # what is written to is copied then

    def _methods(self, question: str, run_id: str) -> list[str]:
        """The methods that a question of one column about a run answers, in the order of `names.METHODS`."""
        with self._of_run(run_id) as (cursor, run):
            return in_order(method for (method,) in cursor.execute(question, {"run_id": run["run_id"]}).fetchall())

    def _score_methods(self, cursor: duckdb.DuckDBPyConnection, run: dict[str, Any]) -> list[str]:
        question = ("methods", run["run_id"])
        return list(self._database.remember(question, lambda: queries.score_methods(cursor, run)))

    def _require_methods(self, cursor: duckdb.DuckDBPyConnection, run: dict[str, Any], *methods: str) -> list[str]:
        """Returns the methods with scores in the run; raises `UsageError`, which lists them, where one asked for is
        not among them.
        """
        there = self._score_methods(cursor, run)
        for method in methods:
            if method not in there:
                known = ", ".join(there) or "none"
                raise UsageError(f"run {run['run_id']} has no {method!r} scores; its methods are: {known}")
        return there


def require_concept(cursor: duckdb.DuckDBPyConnection, run: dict[str, Any], image_id: str, noun: str) -> None:
    """Raises `UsageError` where the run has no such noun of such a picture; its message lists the nouns there are."""
    rows = cursor.execute(
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

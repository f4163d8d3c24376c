"""`Store`: the one owner of `mmn.duckdb`. It loads and removes runs, and says what runs there are.

Questions about what a run found are asked through it: `store.ask(PictureQueries).picture(run_id, image_id)`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import duckdb
import pandas as pd

from mmn.errors import SetAside, UsageError
from mmn.names import ORIGINAL
from mmn.no_nouns import require_nouns
from mmn.printable import quoted
from mmn.runs.shards import remove
from mmn.safety.inside import inside, is_name
from mmn.store import forgetting, loading, queries
from mmn.store.database import DATABASE, connect
from mmn.store.labels import Label, read_label, read_labels, write_label
from mmn.store.migrations import migrate
from mmn.store.reader import Database, Reader

Q = TypeVar("Q", bound=Reader)


class Store(Reader):
    """The database of a cache folder. Safe to share between threads; every answer is a copy."""

    def __init__(self, cache_path: Path, connection: duckdb.DuckDBPyConnection) -> None:
        """Use `Store.open`."""
        super().__init__(Database(cache_path, connection))
        self._refused = loading.Refused()
        self._set_aside: tuple[SetAside, ...] = ()
        self._writing = threading.Lock()  # two sessions that load the same shard at once would both add it

    @classmethod
    def open(cls, cache_path: Path) -> Self:
        """Returns the store of a cache folder, made if it is not there and brought to the newest version.

        Raises:
            CacheLockedError: another process holds the database.
            CacheNewerError: a newer version of this program, or of DuckDB, wrote it.
            CacheError: it is damaged, or the folder cannot be made or written.
        """
        database_path = cache_path / DATABASE
        store = cls(cache_path, connect(database_path))
        try:
            with store._cursor() as cursor:
                migrate(cursor)
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Gives the database free for other processes."""
        self._database.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def cache_path(self) -> Path:
        """The cache folder."""
        return self._database.cache_path

    def ask(self, questions: type[Q]) -> Q:
        """Returns the queries of a study on this database: `store.ask(SensitivityQueries).summary(run_id, …)`."""
        return questions(self._database)

    def recent(self, question: Hashable, ask: Callable[[], Any]) -> Any:
        """A figure of what the tables hold, made again once they have changed or it is long ago (`Database.recent`)."""
        return self._database.recent("figure", question, ask)

    def edit_path(self, edit_id: str) -> Path:
        """Returns where the file of an edit lies: what `--delta` loads. It may have been removed by hand.

        Raises:
            UsageError: that is no id of an edit.
        """
        if not (is_name(edit_id) and edit_id.isalnum()):
            raise UsageError(f"{quoted(edit_id)} is not the id of an edit")
        return inside(self.cache_path / "edits", f"{edit_id}.safetensors")

    @property
    def runs_path(self) -> Path:
        """The folder where scorings of this cache write their shards."""
        return self.cache_path / "runs"

    @contextmanager
    def _changing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._writing, self._cursor() as cursor:
            try:
                yield cursor
            finally:
                self._database.forget()

    def load_new_shards(self, runs_paths: Iterable[Path], progress: Callable[[int, int], None] | None = None) -> int:
        """Loads the shards that are not in yet, and how their runs ended; returns how many shards were loaded.

        What is broken is set aside (`set_aside`), and all else is loaded.

        Args:
            runs_paths: folders that are a run or hold runs; of a run found twice, the first folder counts.
            progress: is told (shards done, shards to do) after each.
        """
        tell = progress or (lambda _done, _total: None)
        with self._writing, self._cursor() as cursor:
            before, n_loaded = queries.run_rows(cursor), -1
            try:
                n_loaded, broken = loading.load(cursor, list(runs_paths), self.runs_path, tell, self._refused)
            finally:
                if n_loaded or queries.run_rows(cursor) != before:  # an app looks every few seconds, mostly in vain
                    self._database.forget()
        self._set_aside = (*broken, *read_labels(self.cache_path)[1])
        return n_loaded

    @property
    def set_aside(self) -> tuple[SetAside, ...]:
        """What the last `load_new_shards` did not load: each with its `path`, the `reason` and a `remedy`."""
        return self._set_aside

    def delete_run(self, run_id: str) -> None:
        """Removes a run, with its folder and the deltas of its edits in the cache (copies that were exported stay); it
        does not come back unless it is scored again or restored.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._changing() as cursor:
            found = queries.find_run(cursor, run_id)["run_id"]
            give_space_back = remove(self.runs_path, found)
            deltas = [self.edit_path(edit_id) for edit_id in forgetting.edits_of_this_run_only(cursor, found)]
            forgetting.forget_run(cursor, found)
        write_label(self.cache_path, found, Label())
        for path in deltas:
            path.unlink(missing_ok=True)
        give_space_back()

    def delete_edit(self, run_id: str, edit_id: str) -> None:
        """Removes an edit: its rows, its shards, and its delta in the cache (copies that were exported stay).

        Raises:
            RunNotFoundError: no such run.
            UsageError: that is no id of an edit.
        """
        delta_path = self.edit_path(edit_id)
        with self._changing() as cursor:
            run = queries.find_run(cursor, run_id)["run_id"]
            run_path = inside(self.runs_path, run)
            removed = [remove(run_path, name) for name in forgetting.shards_of_edit(edit_id)]
            forgetting.forget_edit(cursor, run, edit_id)
        delta_path.unlink(missing_ok=True)
        for give_space_back in removed:
            give_space_back()

    def restore(self, run_id: str) -> None:
        """Lets a deleted run be loaded again (`mmn load DIR`)."""
        with self._changing() as cursor:
            forgetting.restore(cursor, run_id)

    def runs(self) -> pd.DataFrame:
        """Returns one row per run, newest first: the columns of `run`, n_images, n_failed, n_concepts, n_scores, and
        what people call it: name, note, tags.
        """
        with self._cursor() as cursor:
            runs = queries.runs(cursor)
        labels, _ = read_labels(self.cache_path)
        told = [labels.get(run_id, Label()) for run_id in runs["run_id"]]
        names, notes, tags = ([getattr(one, part) for one in told] for part in ("name", "note", "tags"))
        return runs.assign(name=names, note=notes, tags=[list(one) for one in tags])

    def run(self, run_id: str) -> dict[str, Any]:
        """Returns the row of a run; `settings`, `versions` and `proof` as dicts, times in UTC; name, note and tags.

        Args:
            run_id: the id, a beginning of it that no other run has, or `latest`.

        Raises:
            RunNotFoundError: none such; the message lists what there is.
        """
        with self._cursor() as cursor:
            row = queries.find_run(cursor, run_id)
        label = read_label(self.cache_path, row["run_id"])
        return row | {"name": label.name, "note": label.note, "tags": list(label.tags)}

    def set_label(self, run_id: str, label: Label) -> None:
        """Gives a run a name, a note and tags, in place of those before.

        Raises:
            RunNotFoundError: no such run.
            CacheError: nothing can be written there.
        """
        with self._of_run(run_id) as (_, run):
            write_label(self.cache_path, run["run_id"], label)
            self._database.forget()

    def table(self, run_id: str, name: str) -> pd.DataFrame:
        """Returns all rows of a public table that belong to a run, in a stable order.

        Raises:
            RunNotFoundError: no such run.
            UsageError: no such table; the message lists them.
        """
        with self._of_run(run_id) as (cursor, run):
            return queries.table(cursor, run, name)

    def has_rows(self, run_id: str, name: str, kind: str = "") -> bool:
        """Whether a public table has rows of a run, with `kind` of that kind.

        Raises:
            RunNotFoundError: no such run.
            UsageError: no such table.
        """
        with self._of_run(run_id) as (cursor, run):
            return queries.has_rows(cursor, run, name, kind)

    def concepts(self, run_id: str, variant: str = ORIGINAL) -> pd.DataFrame:
        """Returns one row per lemma said in the captions of a variant, most frequent first.

        Columns: lemma, n_images, n_mentions, mean_prob, and in how many images each flag holds: n_first,
        n_multi_token, n_shared_token, n_in_reference (of n_with_reference).

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            return queries.concepts(cursor, run, variant)

    def score_methods(self, run_id: str) -> list[str]:
        """Returns the methods with scores in a run, in the order of `names.METHODS`.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            return self._score_methods(cursor, run)

    def summary(self, run_id: str) -> dict[str, Any]:
        """Returns n_images, n_failed, n_concepts, n_scores and max_residual of a run.

        max_residual is the largest |residual| / max(|logit|, 1) of any concept (METHODS: exactness), None without.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run):
            question = ("summary", run["run_id"])
            return dict(self._database.remember(question, lambda: queries.summary(cursor, run)))

    def require_nouns(self, run_id: str) -> None:
        """Raises `UsageError` where no caption of a run holds a noun, `RunNotFoundError` where there is no such run."""
        run_id, counts = self.run(run_id)["run_id"], self.summary(run_id)
        require_nouns(run_id, counts["n_images"], counts["n_concepts"])

    def shared_pictures(self, run_id: str, other: str) -> tuple[int, int, int]:
        """Returns how many pictures a run has, how many another, and how many of them are the same by fingerprint.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (cursor, run), self._of_run(other) as (_, second):
            return queries.shared_pictures(cursor, run, second)

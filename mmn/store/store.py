"""`Store`: the one owner of `mmn.duckdb`, and all that the rest of the program may ask of it.

Questions about a picture, a unit or a pair of rankings are in `pictures`, `neurons` and `rankings`, its parents.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import pandas as pd

from mmn.errors import SetAside
from mmn.names import ORIGINAL
from mmn.runs.shards import remove
from mmn.safety.inside import inside
from mmn.store import forgetting, loading, queries
from mmn.store.database import DATABASE, connect
from mmn.store.migrations import migrate
from mmn.store.neurons import NeuronReader
from mmn.store.pictures import PictureReader
from mmn.store.rankings import RankingReader
from mmn.studies.degradation.queries import EffectReader
from mmn.studies.editing.queries import EditReader
from mmn.studies.invariance.cross_image_queries import CrossImageReader
from mmn.studies.invariance.queries import InvarianceReader
from mmn.studies.lens.queries import LensReader
from mmn.studies.sensitivity.queries import SensitivityReader
from mmn.studies.specificity.queries import SpecificityReader


class Store(
    PictureReader,
    NeuronReader,
    RankingReader,
    LensReader,
    InvarianceReader,
    CrossImageReader,
    SpecificityReader,
    SensitivityReader,
    EffectReader,
    EditReader,
):
    """The database of a cache folder. Safe to share between threads; every answer is a copy."""

    def __init__(self, cache_path: Path, connection: duckdb.DuckDBPyConnection) -> None:
        """Use `Store.open`."""
        super().__init__(cache_path, connection)
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
            with store._cursor() as own:
                migrate(own)
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Gives the database free for other processes."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def runs_path(self) -> Path:
        """The folder where scorings of this cache write their shards."""
        return self.cache_path / "runs"

    @contextmanager
    def _changing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._writing, self._cursor() as own:
            try:
                yield own
            finally:
                self._forget()

    def load_new_shards(self, runs_paths: Iterable[Path], progress: Callable[[int, int], None] | None = None) -> int:
        """Loads the shards that are not in yet, and how their runs ended; returns how many shards were loaded.

        What is broken is set aside (`set_aside`), and all else is loaded.

        Args:
            runs_paths: folders that are a run or hold runs; of a run found twice, the first folder counts.
            progress: is told (shards done, shards to do) after each.
        """
        tell = progress or (lambda _done, _total: None)
        with self._changing() as own:
            n_loaded, broken = loading.load(own, list(runs_paths), self.runs_path, tell, self._refused)
        self._set_aside = tuple(broken)
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
        with self._changing() as own:
            found = queries.find_run(own, run_id)["run_id"]
            give_space_back = remove(self.runs_path, found)
            deltas = [self.edit_path(edit_id) for edit_id in forgetting.edits_of_this_run_only(own, found)]
            forgetting.forget_run(own, found)
        for path in deltas:
            path.unlink(missing_ok=True)
        give_space_back()

    def delete_edit(self, run_id: str, edit_id: str) -> None:
        """Removes an edit: its rows, its shard, and its delta in the cache (copies that were exported stay).

        Raises:
            RunNotFoundError: no such run.
            UsageError: that is no id of an edit.
        """
        delta_path = self.edit_path(edit_id)
        with self._changing() as own:
            run = queries.find_run(own, run_id)["run_id"]
            give_space_back = remove(inside(self.runs_path, run), f"edit-{edit_id}")
            forgetting.forget_edit(own, run, edit_id)
        delta_path.unlink(missing_ok=True)
        give_space_back()

    def restore(self, run_id: str) -> None:
        """Lets a deleted run be loaded again (`mmn load DIR`)."""
        with self._changing() as own:
            forgetting.restore(own, run_id)

    def runs(self) -> pd.DataFrame:
        """Returns one row per run, newest first: the columns of `run`, n_images, n_failed, n_concepts, n_scores."""
        with self._cursor() as own:
            return queries.runs(own)

    def run(self, run_id: str) -> dict[str, Any]:
        """Returns the row of a run; `settings` and `versions` as dicts, times in UTC.

        Args:
            run_id: the id, a beginning of it that no other run has, or `latest`.

        Raises:
            RunNotFoundError: none such; the message lists what there is.
        """
        with self._cursor() as own:
            return queries.find_run(own, run_id)

    def table(self, run_id: str, name: str) -> pd.DataFrame:
        """Returns all rows of a public table that belong to a run, in a stable order.

        Raises:
            RunNotFoundError: no such run.
            UsageError: no such table; the message lists them.
        """
        with self._of_run(run_id) as (own, run):
            return queries.table(own, run, name)

    def concepts(self, run_id: str, variant: str = ORIGINAL) -> pd.DataFrame:
        """Returns one row per lemma said in the captions of a variant, most frequent first.

        Columns: lemma, n_images, n_mentions, mean_prob, and in how many images each flag holds: n_first,
        n_multi_token, n_shared_token, n_in_reference (of n_with_reference).

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (own, run):
            return queries.concepts(own, run, variant)

    def score_methods(self, run_id: str) -> list[str]:
        """Returns the methods with scores in a run, in the order of `names.METHODS`.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (own, run):
            return self._score_methods(own, run)

    def summary(self, run_id: str) -> dict[str, Any]:
        """Returns n_images, n_failed, n_concepts, n_scores and max_residual of a run.

        max_residual is the largest |residual| / max(|logit|, 1) of any concept (METHODS: exactness), None without.

        Raises:
            RunNotFoundError: no such run.
        """
        with self._of_run(run_id) as (own, run):
            return queries.summary(own, run)

    def layer_distribution(
        self,
        run_id: str,
        methods: Sequence[str],
        ks: Sequence[int],
        lemmas: Sequence[str] = (),
        layers: tuple[int, int] | None = None,
        variant: str = ORIGINAL,
        interpretable: bool | None = None,
    ) -> pd.DataFrame:
        """Returns how many units of each layer are among the top k: of at least one image, and of an image on average.

        An image's ranking is by each unit's maximum over the nouns of its caption; with `lemmas`, the rankings of
        those nouns are used instead, together (METHODS: image-level ranking).

        Args:
            run_id: of one run.
            methods: scores to count by.
            ks: units per image; at most what the run stored, beyond which the ranking would be wrong.
            lemmas: nouns of the caption to count for, all if empty.
            layers: first and last layer to show; shares stay shares of all layers.
            variant: of the captions.
            interpretable: only those of the top k that are decoded and interpretable (P1's filter), or with False
                decoded and not; None for all.

        Returns:
            method, k, layer, n_units, share, mean_units, n_images: one row for each, in the order given, layers
            without units too. `n_units` are distinct units; `share` is of all those of that method and k, so it adds up
            to 1 over all layers. `mean_units` is how many of a picture's top k lie in the layer, the mean over
            `n_images` pictures (with `lemmas`, first over the chosen nouns of a picture): it adds up to k over all
            layers, to less with `interpretable`, and does not saturate as distinct units do in many pictures.

        Raises:
            RunNotFoundError: no such run.
            UsageError: nothing is stored for a method, lemma or variant; a k or layer out of range; no decoded units.
        """
        with self._of_run(run_id) as (own, run):
            return queries.layer_distribution(own, run, methods, ks, lemmas, layers, variant, interpretable)

    def layer_counts_per_image(
        self, run_id: str, method: str, k: int, lemmas: Sequence[str] = (), variant: str = ORIGINAL
    ) -> pd.DataFrame:
        """Returns how many of each image's top k lie in each layer: image_id, layer, n_units (layers without: no row).

        Raises:
            RunNotFoundError: no such run.
            UsageError: as `layer_distribution`.
        """
        with self._of_run(run_id) as (own, run):
            return queries.layer_counts_per_image(own, run, method, k, lemmas, variant)

    def unit_rows(
        self,
        run_id: str,
        method: str,
        k: int,
        layer: int | None = None,
        lemmas: Sequence[str] = (),
        variant: str = ORIGINAL,
    ) -> pd.DataFrame:
        """Returns the units behind a bar of `layer_distribution`, best rank first, at most 500.

        Columns: layer, unit, n_images (with the unit in their top k), n_concepts (lemmas whose own top k has it),
        mean_score and max_score over those images, best_rank.

        Raises:
            RunNotFoundError: no such run.
            UsageError: as `layer_distribution`.
        """
        with self._of_run(run_id) as (own, run):
            return queries.unit_rows(own, run, method, k, layer, lemmas, variant)

"""How do shards become rows? One transaction each: the rows, their image-level ranks, and the mark that they are in.

A run is known by its id wherever its folder lies. A run that was deleted leaves its id in `deleted_run`, so that a
folder that ships with the program does not bring it back; a new scoring in `<cache>/runs` does.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from mmn.core import Outcome, Run
from mmn.errors import CacheError
from mmn.names import RUNNING
from mmn.shards import find_runs, finished_shards, read_run, read_shard
from mmn.store.database import transaction
from mmn.store.given import apply_references, of_latest_masks
from mmn.store.migrations import INTERNAL_TABLES, PUBLIC_TABLES
from mmn.tables import ADDED_KEYS

_TOLD_AGAIN: Final = {"image": ("image_id",)} | ADDED_KEYS  # a row's key, where later shards may repeat it
_OF_A_MODEL: Final = ("neuron",)  # tables without a run_id
ROWS_AT_ONCE: Final = 1_000_000  # that one transaction adds, or more where a single shard has more

# A unit's image-level score is its maximum over the nouns of the caption (METHODS: image-level ranking); ties go to
# the lower layer, then the lower unit. Ranks beyond the stored top k would be wrong, so they are not kept.
_RANK_IMAGES = """
    WITH best AS (
        SELECT image_id, variant, method, layer, unit, max(score) AS score
        FROM shard_score SEMI JOIN
            (SELECT image_id, variant, noun FROM shard_concept WHERE target_at IS NULL) USING (image_id, variant, noun)
        WHERE rank >= 1
        GROUP BY image_id, variant, method, layer, unit
    )
    INSERT INTO image_rank BY NAME
    SELECT $run_id AS run_id, *,
        row_number() OVER (PARTITION BY image_id, variant, method ORDER BY score DESC, layer, unit) AS rank
    FROM best
    QUALIFY rank <= $top_k
    ORDER BY image_id, variant, method, rank
"""


def load(
    own: duckdb.DuckDBPyConnection, runs_paths: list[Path], home: Path, progress: Callable[[int, int], None]
) -> int:
    """Loads all new shards of the runs in `runs_paths`; returns how many there were.

    Raises:
        CacheError: the first run or shard that is broken; all others are loaded before.
    """
    chosen, broken = _runs_to_load(own, runs_paths, home)
    to_do: list[tuple[Run, Path]] = []
    for run_path, (run, outcome) in chosen.items():
        new = _new_shards(own, run_path, run)
        _save_run(own, run, outcome)
        to_do += [(run, shard_path) for shard_path in new]
    waiting = deque(to_do)
    while waiting:
        for _ in _load_some(own, waiting, broken):
            progress(len(to_do) - len(waiting), len(to_do))
    if broken:
        raise broken[0]
    return len(to_do)


def _runs_to_load(
    own: duckdb.DuckDBPyConnection, runs_paths: list[Path], home: Path
) -> tuple[dict[Path, tuple[Run, Outcome | None]], list[CacheError]]:
    """Returns the folders to load from, one per run id (the first one found), and what is wrong with others.

    A deleted run is left out, but a folder in `home`, where new scorings write, is newer than any deletion.
    """
    deleted = {run_id for (run_id,) in own.execute("SELECT run_id FROM deleted_run").fetchall()}
    chosen: dict[str, Path] = {}
    found: dict[Path, tuple[Run, Outcome | None]] = {}
    broken: list[CacheError] = []
    for run_path in find_runs(runs_paths):
        try:
            found[run_path] = read_run(run_path)
        except CacheError as error:
            broken.append(error)
            continue
        run_id = found[run_path][0].run_id
        if run_id in deleted and run_path.absolute().parent == home.absolute():
            restore(own, run_id)
            deleted.remove(run_id)
        if run_id not in deleted:
            chosen.setdefault(run_id, run_path)
    return {run_path: found[run_path] for run_path in chosen.values()}, broken


def _new_shards(own: duckdb.DuckDBPyConnection, run_path: Path, run: Run) -> list[Path]:
    """Returns the finished shards of a run that are not in the database, by name."""
    rows = own.execute("SELECT name FROM shard WHERE run_id = ?", [run.run_id]).fetchall()
    return [run_path / name for name in sorted(finished_shards(run_path) - {name for (name,) in rows})]


def _save_run(own: duckdb.DuckDBPyConnection, run: Run, outcome: Outcome | None) -> None:
    """Inserts the row of a run, or brings its end up to date."""
    status = outcome.status if outcome else RUNNING
    finished_at = _utc(outcome.finished_at) if outcome else None
    seconds = outcome.seconds if outcome else None
    values = {
        "run_id": run.run_id,
        "status": status,
        "created_at": _utc(run.created_at),
        "finished_at": finished_at,
        "model": run.model.name,
        "model_fingerprint": run.model.fingerprint,
        "family": run.model.family,
        "n_layers": run.model.n_layers,
        "d_mlp": run.model.d_mlp,
        "images": run.images,
        "prompt": run.prompt,
        "settings": json.dumps(asdict(run.settings), ensure_ascii=False),
        "versions": json.dumps(run.versions, ensure_ascii=False),
        "device": run.settings.device,
        "dtype": run.settings.dtype,
        "seconds": seconds,
        "seed": run.settings.seed,
    }
    names = ", ".join(values)
    slots = ", ".join(f"${name}" for name in values)
    own.execute(
        f"INSERT INTO run ({names}) VALUES ({slots}) ON CONFLICT DO UPDATE SET "  # noqa: S608 - names are our own
        "status = excluded.status, finished_at = excluded.finished_at, seconds = excluded.seconds",
        values,
    )


def _load_some(
    own: duckdb.DuckDBPyConnection, waiting: deque[tuple[Run, Path]], broken: list[CacheError]
) -> Iterator[None]:
    """Loads the next shards in one transaction, until they make up `ROWS_AT_ONCE`; yields after each.

    A commit waits for the disk, and a run may have many small shards. A broken one is noted; nothing of it is loaded.
    """
    n_rows = 0
    with transaction(own):
        while waiting and n_rows < ROWS_AT_ONCE:
            run, shard_path = waiting.popleft()
            try:
                tables = read_shard(shard_path)
            except CacheError as error:
                broken.append(error)
            else:
                _insert(own, run, shard_path.name, tables)
                n_rows += sum(map(len, tables.values()))
            yield


def _insert(own: duckdb.DuckDBPyConnection, run: Run, name: str, tables: dict[str, pa.Table]) -> None:
    """Adds the rows of one shard, the image-level ranks of its scores, and the mark that it is in."""
    own.execute("INSERT INTO shard VALUES (?, ?, now() AT TIME ZONE 'UTC')", [run.run_id, name])
    tables = of_latest_masks(own, run.run_id, tables)
    for table, rows in tables.items():
        own.register(f"shard_{table}", rows)
        own.execute(_insertion(table), {} if table in _OF_A_MODEL else {"run_id": run.run_id})
    if "score" in tables:
        own.execute(_RANK_IMAGES, {"run_id": run.run_id, "top_k": run.settings.top_k})
    apply_references(own, run.run_id, tables)


def _insertion(table: str) -> str:
    """The statement that adds the rows of a shard; where a later shard may tell the same again, the first one counts.

    Units belong to a model and not to a run: one that any run of the model has decoded is there already.
    """
    rows = f"SELECT * FROM shard_{table}"  # noqa: S608 - names are our own
    there = f"FROM {table}"
    if table not in _OF_A_MODEL:
        rows = f"SELECT $run_id AS run_id, * FROM shard_{table}"  # noqa: S608 - names are our own
        there += " WHERE run_id = $run_id"
    if keys := _TOLD_AGAIN.get(table, ()):
        same = " AND ".join(f"told.{key} IS NOT DISTINCT FROM shard_{table}.{key}" for key in keys)
        rows += f" ANTI JOIN (SELECT {', '.join(keys)} {there}) AS told ON {same}"
    return f"INSERT INTO {table} BY NAME {rows}"


def forget_run(own: duckdb.DuckDBPyConnection, run_id: str) -> None:
    """Removes every row of a run, and marks it as deleted; decoded units of its model stay."""
    with transaction(own):
        for table, columns in (PUBLIC_TABLES | INTERNAL_TABLES).items():
            if "run_id" in columns:
                own.execute(f"DELETE FROM {table} WHERE run_id = ?", [run_id])  # noqa: S608 - names are our own
        own.execute("INSERT INTO deleted_run VALUES (?, now() AT TIME ZONE 'UTC')", [run_id])


def forget_edit(own: duckdb.DuckDBPyConnection, run_id: str, edit_id: str) -> None:
    """Removes every row of an edit, its failures and the mark that its shard is in."""
    with transaction(own):
        for table in ("edit", "edited_caption"):
            own.execute(f"DELETE FROM {table} WHERE run_id = ? AND edit_id = ?", [run_id, edit_id])  # noqa: S608
        own.execute("DELETE FROM failure WHERE run_id = ? AND stage = ?", [run_id, f"edit {edit_id}"])
        own.execute("DELETE FROM shard WHERE run_id = ? AND name = ?", [run_id, f"edit-{edit_id}"])


def restore(own: duckdb.DuckDBPyConnection, run_id: str) -> None:
    """Takes the mark of deletion away."""
    own.execute("DELETE FROM deleted_run WHERE run_id = ?", [run_id])


def _utc(text: str) -> datetime:
    """Returns an ISO 8601 time as the database keeps it: UTC, without saying so."""
    moment = datetime.fromisoformat(text)
    assert moment.tzinfo is not None, f"a time without a zone: {text!r}"
    return moment.astimezone(UTC).replace(tzinfo=None)

"""Loads shards, each in one transaction: its rows, their image-level ranks, and the mark that it is loaded.

A run is known by its id wherever its folder lies. A run that was deleted leaves its id in `deleted_run`, so that a
folder that ships with the program does not bring it back; a new scoring in `<cache>/runs` does.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import duckdb

from mmn.core import Outcome, Run
from mmn.errors import BrokenFileError, SetAside, Unfit
from mmn.names import RUNNING
from mmn.runs.shard_files import Shard
from mmn.runs.shards import (
    RUN_FILE,
    RunFile,
    broken_entries,
    check_place,
    find_runs,
    finished_shards,
    read_checked,
    read_outcome,
    read_run_file,
)
from mmn.store.forgetting import restore
from mmn.store.given import apply_references, fill_words, of_latest_masks
from mmn.store.known import Known, check_same, known_of
from mmn.store.transactions import transaction
from mmn.studies.tables import ADDED_KEYS

_REPEATABLE_KEYS: Final = {"image": ("image_id",)} | ADDED_KEYS  # a row's key, where later shards may repeat it
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


@dataclass
class Refused:
    """What was set aside at earlier looks, so that it is read again only when something about it has changed."""

    known: dict[Path, tuple[object, SetAside]] = field(default_factory=dict)

    def again(self, path: Path, look: object) -> SetAside | None:
        """Why `path` was set aside before, if it looked just so then."""
        before, told = self.known.get(path, (None, None))
        return told if before == look else None


@dataclass
class _Loading:
    """One look at some folders: `broken` fills with what is set aside."""

    cursor: duckdb.DuckDBPyConnection
    refused: Refused
    broken: list[SetAside] = field(default_factory=list)
    known: dict[str, Known] = field(default_factory=dict)


@dataclass(frozen=True)
class _Waiting:
    """A shard that is to be loaded into its run, and what it looks like from outside."""

    run_file: RunFile
    path: Path
    look: object


def load(
    cursor: duckdb.DuckDBPyConnection,
    runs_paths: list[Path],
    home: Path,
    progress: Callable[[int, int], None],
    refused: Refused,
) -> tuple[int, list[SetAside]]:
    """Loads all new shards of the runs in `runs_paths`; returns how many there were, and what was set aside and why.

    What is set aside leaves no row behind. It is looked at again when it, or what is loaded of its run, has changed.
    """
    looking = _Loading(cursor, refused)
    waiting: deque[_Waiting] = deque()
    for run_path, run_file in _runs_to_load(looking, runs_paths, home).items():
        new = _new_shards(looking, run_path, run_file)
        _save_run(cursor, run_file.run, _outcome(looking, run_path))
        waiting += new
    n_to_do, n_broken = len(waiting), len(looking.broken)
    while waiting:
        for _ in _load_some(looking, waiting):
            progress(n_to_do - len(waiting), n_to_do)
    return n_to_do - (len(looking.broken) - n_broken), looking.broken


def _runs_to_load(looking: _Loading, runs_paths: list[Path], home: Path) -> dict[Path, RunFile]:
    """Returns the folders to load from, one per run id (the first one found).

    A deleted run is left out, but a folder in `home`, where new scorings write, is newer than any deletion.
    """
    cursor = looking.cursor
    deleted = {run_id for (run_id,) in cursor.execute("SELECT run_id FROM deleted_run").fetchall()}
    chosen: dict[str, tuple[Path, RunFile]] = {}
    for run_path in find_runs(runs_paths):
        try:
            run_file = _checked_run(cursor, run_path, is_named=run_path in runs_paths)
        except BrokenFileError as error:
            looking.broken.append(error.told)
            continue
        run_id = run_file.run.run_id
        if run_id in deleted and run_path.absolute().parent == home.absolute():
            restore(cursor, run_id)
            deleted.remove(run_id)
        if run_id not in deleted:
            chosen.setdefault(run_id, (run_path, run_file))
    return dict(chosen.values())


def _checked_run(cursor: duckdb.DuckDBPyConnection, run_path: Path, *, is_named: bool) -> RunFile:
    """What `run.json` says, if it may; a folder that the user or the program named itself may have any name."""
    run_file = read_run_file(run_path)
    if not is_named:
        check_place(run_path, run_file.run)
    try:
        check_same(cursor, run_file.run)
    except Unfit as error:
        raise BrokenFileError(
            run_path / RUN_FILE, str(error), f"mmn delete {run_file.run.run_id}, then load"
        ) from error
    return run_file


def _outcome(looking: _Loading, run_path: Path) -> Outcome | None:
    try:
        return read_outcome(run_path)
    except BrokenFileError as error:
        looking.broken.append(error.told)
        return None


def _new_shards(looking: _Loading, run_path: Path, run_file: RunFile) -> list[_Waiting]:
    """Returns the finished shards of a run that are not in the database, by name; those that tell of pictures first.

    Notes what is set aside again, unread, because nothing has changed.
    """
    run_id = run_file.run.run_id
    rows = looking.cursor.execute("SELECT name FROM shard WHERE run_id = ?", [run_id]).fetchall()
    loaded = {name for (name,) in rows}
    looking.broken += broken_entries(run_path)
    found = []
    for path in (run_path / name for name in sorted(finished_shards(run_path) - loaded)):
        look = (len(loaded), run_file, _outside(path))
        before = looking.refused.again(path, look)
        if before is not None:
            looking.broken.append(before)
        else:
            found.append(_Waiting(run_file, path, look))
    return sorted(found, key=lambda one: (not (one.path / "image.parquet").exists(), one.path.name))


def _outside(shard_path: Path) -> tuple[tuple[str, int, int], ...]:
    """The names, sizes and times of a shard's files."""
    with os.scandir(shard_path) as entries:
        stats = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    return tuple(sorted((name, found.st_size, found.st_mtime_ns) for name, found in stats))


def _save_run(cursor: duckdb.DuckDBPyConnection, run: Run, outcome: Outcome | None) -> None:
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
        "versions": json.dumps(_versions(run), ensure_ascii=False),
        "device": run.settings.device,
        "dtype": run.settings.dtype,
        "seconds": seconds,
        "seed": run.settings.seed,
        "proof": json.dumps(run.proof) if run.proof else None,
        "d_experts": list(run.model.d_experts) or None,
    }
    names = ", ".join(values)
    slots = ", ".join(f"${name}" for name in values)
    cursor.execute(
        f"INSERT INTO run ({names}) VALUES ({slots}) ON CONFLICT DO UPDATE SET "  # noqa: S608 - names are our own
        "status = excluded.status, finished_at = excluded.finished_at, seconds = excluded.seconds",
        values,
    )


def _versions(run: Run) -> dict[str, str]:
    """What was used in which version; of a model from the hub the commit."""
    return run.versions | ({"model": run.model.revision} if run.model.revision else {})


def _load_some(looking: _Loading, waiting: deque[_Waiting]) -> Iterator[None]:
    """Loads the next shards in one transaction, until they make up `ROWS_AT_ONCE`; yields after each.

    A commit waits for the disk, and a run may have many small shards. A broken one is noted; nothing of it is loaded.
    """
    n_rows = 0
    with transaction(looking.cursor):
        while waiting and n_rows < ROWS_AT_ONCE:
            one = waiting.popleft()
            try:
                shard = _checked_shard(looking, one)
            except BrokenFileError as error:
                looking.broken.append(error.told)
                looking.refused.known[one.path] = (one.look, error.told)
            else:
                _insert(looking.cursor, one.run_file.run, one.path.name, shard)
                n_rows += sum(map(len, shard.tables.values()))
            yield


def _checked_shard(looking: _Loading, one: _Waiting) -> Shard:
    """A shard that may be loaded, by itself and beside what is loaded of its run.

    Two questions may have one answer, the same failures for instance: what another shard told is not told again.
    """
    run = one.run_file.run
    if run.run_id not in looking.known:
        looking.known[run.run_id] = known_of(looking.cursor, run.run_id)
    shard = read_checked(one.path, one.run_file)
    try:
        looking.known[run.run_id].check(run, shard)
    except Unfit as error:
        raise BrokenFileError(one.path, str(error), "remove that folder") from error
    is_told = shard.digest in looking.known[run.run_id].shards
    looking.known[run.run_id].add(one.path.name, shard)
    return replace(shard, tables={}) if is_told else shard


def _insert(cursor: duckdb.DuckDBPyConnection, run: Run, name: str, shard: Shard) -> None:
    """Adds the rows of one shard, the image-level ranks of its scores, and the mark that it is in."""
    cursor.execute("INSERT INTO shard VALUES (?, ?, now() AT TIME ZONE 'UTC', ?)", [run.run_id, name, shard.digest])
    tables = of_latest_masks(cursor, run.run_id, shard.tables)
    for table, rows in tables.items():
        cursor.register(f"shard_{table}", rows)
        cursor.execute(_insertion(table), {} if table in _OF_A_MODEL else {"run_id": run.run_id})
    if "score" in shard.tables:
        cursor.execute(_RANK_IMAGES, {"run_id": run.run_id, "top_k": run.settings.top_k})
    fill_words(cursor, tables)
    apply_references(cursor, run.run_id, tables)


def _insertion(table: str) -> str:
    """The statement that adds the rows of a shard; where a later shard may tell the same again, the first one counts.

    Units belong to a model and not to a run: one that any run of the model has decoded is there already.
    """
    rows = f"SELECT * FROM shard_{table}"  # noqa: S608 - names are our own
    there = f"FROM {table}"
    if table not in _OF_A_MODEL:
        rows = f"SELECT $run_id AS run_id, * FROM shard_{table}"  # noqa: S608 - names are our own
        there += " WHERE run_id = $run_id"
    if keys := _REPEATABLE_KEYS.get(table, ()):
        same = " AND ".join(f"told.{key} IS NOT DISTINCT FROM shard_{table}.{key}" for key in keys)
        rows += f" ANTI JOIN (SELECT {', '.join(keys)} {there}) AS told ON {same}"
    return f"INSERT INTO {table} BY NAME {rows}"


def _utc(text: str) -> datetime:
    """Returns an ISO 8601 time as the database keeps it: UTC, without saying so."""
    moment = datetime.fromisoformat(text)
    assert moment.tzinfo is not None, f"a time without a zone: {text!r}"
    return moment.astimezone(UTC).replace(tzinfo=None)

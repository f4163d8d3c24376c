"""What was measured, from a run's shards: a command needs it while the app holds the database.

Grouped by tag a measurement is of several runs of the same weights, each with its own shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import pandas as pd

from mmn.errors import CacheError
from mmn.runs import shards
from mmn.studies.domains.measured import Measured, of_rows
from mmn.studies.domains.words import EVERY, TAG

_TABLES: Final = ("domain_rate", "modality_score")
_PREFIX: Final = "domains-half-"


def measured_in(run_path: Path, names: Iterable[str], others: Iterable[Path] = ()) -> Measured:
    """The measurement in some shards of a run; with what was measured by tag in other runs.

    Args:
        run_path: the run's folder.
        names: of the shards of one measurement.
        others: folders of other runs of the same weights.
    """
    rates, scores = _read(run_path, names)
    return of_rows(
        pd.concat([rates, *(found for found in map(_by_tag, others) if found is not None)], ignore_index=True), scores
    )


def runs_of(runs_paths: Iterable[Path], fingerprint: str, but: str) -> Iterator[Path]:
    """The other runs of the same weights."""
    for path in shards.find_runs(list(runs_paths)):
        try:
            run, _ = shards.read_run(path)
        except CacheError:
            continue  # set aside elsewhere, with the reason
        if run.model.fingerprint == fingerprint and run.run_id != but:
            yield path


def _by_tag(run_path: Path) -> pd.DataFrame | None:
    """The rates that a run was measured for by tag, of the measurement of most pictures."""
    names = [name for name in shards.finished_shards(run_path) if name.startswith(_PREFIX)]
    if not names:
        return None
    rates, _ = _read(run_path, names)
    rates = rates[rates["grouped_by"] == TAG]
    every = rates[(rates["domain"] == EVERY) & (rates["layer"] == 0)].groupby("measured")["n_images"].sum()
    return None if every.empty else rates[rates["measured"] == every.idxmax()]


def _read(run_path: Path, names: Iterable[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    parts = [shards.read_shard(run_path / name, _TABLES) for name in names]
    rates, scores = ([part[name].to_pandas() for part in parts] for name in _TABLES)
    return pd.concat(rates, ignore_index=True), pd.concat(scores, ignore_index=True)

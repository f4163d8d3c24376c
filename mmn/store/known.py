"""What the database knows of a run, and a new shard must agree with.

A shard by itself may be faultless and still be none of the run's: one of another run, or one copied under another name.
Its pictures must be told of by a shard of the run; a caption of a picture is told once; no two shards say the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import duckdb
import pyarrow as pa

from mmn.core import Run
from mmn.counts import counted
from mmn.errors import Unfit
from mmn.models.geometry import serialise
from mmn.printable import quoted
from mmn.runs.checks import distinct, pictures
from mmn.runs.shard_files import Shard
from mmn.safety.inside import is_name

_TOLD_ONCE: Final = ("caption", "concept")  # every score has its concept in the same shard (`checks`)
_CAPTION: Final = ["image_id", "variant"]


@dataclass
class Known:
    """What is loaded of a run: its pictures, whose captions are told, and which shards there are, by their digests."""

    pictures: set[str]
    told: dict[str, set[tuple[Any, ...]]]
    shards: dict[str, str]

    def check(self, run: Run, shard: Shard) -> None:
        """Raises `Unfit` where a shard cannot be one more of the run."""
        if not shard.is_bound and shard.digest in self.shards and any(map(len, shard.tables.values())):
            raise Unfit(f"it is a copy of the shard {quoted(self.shards[shard.digest])}")
        told = pictures({name: table for name, table in shard.tables.items() if name == "image"})
        strange = pictures(shard.tables) - told - self.pictures
        if strange:
            raise Unfit(f"it tells of {counted(len(strange), 'picture')} that no loaded shard of the run holds")
        for name, captions in _captions(shard.tables).items():
            if again := captions & self.told[name]:
                raise Unfit(f"it tells again of {counted(len(again), 'caption')} that another shard tells of")
        _check_edits(run, shard.tables)
        _check_grids(shard.tables)

    def add(self, name: str, shard: Shard) -> None:
        """Takes a shard in that was checked."""
        self.pictures |= pictures(shard.tables)
        for table, captions in _captions(shard.tables).items():
            self.told[table] |= captions
        self.shards.setdefault(shard.digest, name)


def known_of(cursor: duckdb.DuckDBPyConnection, run_id: str) -> Known:
    """Returns what the database knows of a run."""
    seen = cursor.execute("SELECT image_id FROM image WHERE run_id = ?", [run_id]).fetchall()
    told = {}
    for name in _TOLD_ONCE:
        rows = cursor.execute(f"SELECT DISTINCT image_id, variant FROM {name} WHERE run_id = ?", [run_id])  # noqa: S608 - names are our own
        told[name] = set(rows.fetchall())
    shards = cursor.execute(
        "SELECT digest, name FROM shard WHERE run_id = ? AND digest IS NOT NULL", [run_id]
    ).fetchall()
    return Known({image_id for (image_id,) in seen}, told, dict(shards))


def check_same(cursor: duckdb.DuckDBPyConnection, run: Run) -> None:
    """Raises `Unfit` where a run's id is known, and stands for other inputs than those of `run`."""
    row = cursor.execute(
        "SELECT model_fingerprint, n_layers, d_mlp, prompt, settings FROM run WHERE run_id = ?", [run.run_id]
    ).fetchone()
    if row is None:
        return
    *loaded, settings = row
    if loaded != [run.model.fingerprint, run.model.n_layers, run.model.d_mlp, run.prompt]:
        raise Unfit("it names another model or prompt than when the run was loaded first")
    now = json.loads(json.dumps(asdict(run.settings)))
    if any(now.get(name) != value for name, value in json.loads(settings).items()):
        raise Unfit("its settings are not those of when the run was loaded first")


def _captions(tables: Mapping[str, pa.Table]) -> dict[str, set[tuple[Any, ...]]]:
    return {name: distinct(tables[name], _CAPTION) for name in _TOLD_ONCE if name in tables}


def _check_edits(run: Run, tables: Mapping[str, pa.Table]) -> None:
    """An edit's id becomes the name of a file, and its cells of JSON become units."""
    for name in {"edit", "edited_caption", "edited_text"} & set(tables):
        for (edit_id,) in distinct(tables[name], ["edit_id"]):
            if not (is_name(edit_id) and edit_id.isalnum()):
                raise Unfit(f"{name}.edit_id {quoted(edit_id)} is no id of an edit")
    for row in tables["edit"].select(["units", "settings"]).to_pylist() if "edit" in tables else ():
        if not all(_is_unit(unit, run) for unit in _list(row["units"])):
            raise Unfit(f"edit.units {quoted(row['units'])} is not a list of units of the model")
        if not isinstance(json.loads(row["settings"]), dict):
            raise Unfit(f"edit.settings {quoted(row['settings'])} is not an object")


def _list(text: str) -> list[Any]:
    value = json.loads(text)
    return value if isinstance(value, list) else [None]


def _is_unit(unit: Any, run: Run) -> bool:
    is_pair = isinstance(unit, list) and [type(number) for number in unit] == [int, int]
    return is_pair and 0 <= unit[0] < run.model.n_layers and 0 <= unit[1] < run.model.d_mlp


def _check_grids(tables: Mapping[str, pa.Table]) -> None:
    for (text,) in distinct(tables["grid"], ["grid"]) if "grid" in tables else ():
        try:
            serialise.from_json(text)
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            raise Unfit(f"grid.grid {quoted(text)} is no grid of image tokens") from error

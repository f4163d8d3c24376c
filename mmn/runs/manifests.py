"""Reads the JSON files of a run, and checks what they say.

    run.json        a `core.Run`: every input that can change a number; and the digest of all that
    outcome.json    a `core.Outcome`: how and when it ended; and its digest
    manifest.json   in each shard: the run and the name that the shard belongs to, and the sha-256 of each of its files

Types come from the dataclasses' own annotations; `LIMITS` bounds the numbers. A digest is no signature: it tells
damage, mixing-up and copies, not who wrote a run. Older runs have no digest; their shards may lack a manifest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from mmn.core import Outcome, Run
from mmn.counts import counted
from mmn.errors import BrokenFileError, Unfit
from mmn.names import RUN_STATES, RUNNING, definition
from mmn.printable import quoted
from mmn.safety.inside import is_run_id
from mmn.safety.regular_files import read_json_object

RUN_FILE: Final = "run.json"
OUTCOME_FILE: Final = "outcome.json"
MANIFEST_FILE: Final = "manifest.json"
DIGEST: Final = "digest"
YEARS: Final = (1970, 2261)  # what every library that we show times with can tell
_INT32: Final = 2**31 - 1
LIMITS: Final[dict[str, tuple[float, float]]] = {
    "n_layers": (1, 1000),
    "d_mlp": (1, 10_000_000),
    "an item of d_experts": (0, 10_000_000),
    "an item of widths": (0, 10_000_000),
    "an item of effect_layers": (0, 999),
    "top_k": (1, _INT32),
    "bottom_k": (0, _INT32),
    "max_new_tokens": (1, _INT32),
    "batch_size": (1, _INT32),
    "seed": (-(2**63), 2**63 - 1),
    "seconds": (0, 1e12),
}
_ANY: Final = (-(2.0**63), 2.0**63)
_MOVE_AWAY: Final = "move the run's folder away, or put an undamaged copy of the file there"
_REMOVE: Final = "remove it: the same command writes it again"
_REDO: Final = "delete that folder and give the same command again: only it is redone"


@dataclass(frozen=True)
class RunFile:
    """What `run.json` says: the run, and whether it has a digest, and so each of its shards a manifest."""

    run: Run
    is_bound: bool


@dataclass(frozen=True)
class Manifest:
    """What binds a shard: its run, its name, and the sha-256 of each of its Parquet files by table."""

    run_id: str
    shard: str
    files: dict[str, str]


def read_run_file(run_path: Path) -> RunFile:
    """Returns what a folder's `run.json` says.

    Raises:
        BrokenFileError: it is not there, damaged, or says what no run can be.
    """
    path = run_path / RUN_FILE
    values = read_json_object(path, _MOVE_AWAY)
    try:
        is_bound = _unsealed(values)
        run = _value(Run, values, "the run")
        _check_run(run)
    except Unfit as error:
        raise BrokenFileError(path, str(error), f"update mmn, or {_MOVE_AWAY}") from error
    return RunFile(run, is_bound)


def run_bytes(run: Run) -> bytes:
    """The `run.json` of a new run."""
    return _sealed(asdict(run))


def outcome_bytes(outcome: Outcome) -> bytes:
    """The `outcome.json` of a run that has ended."""
    return _sealed(asdict(outcome))


def read_outcome(run_path: Path) -> Outcome | None:
    """Returns how a run ended, None while it has not.

    Raises:
        BrokenFileError: `outcome.json` is damaged, or says what cannot be.
    """
    path = run_path / OUTCOME_FILE
    if not (path.exists() or path.is_symlink()):
        return None
    values = read_json_object(path, _REMOVE)
    try:
        _unsealed(values)
        outcome = _value(Outcome, values, "the outcome")
        if outcome.status not in set(RUN_STATES) - {RUNNING}:
            raise Unfit(f"status {quoted(outcome.status)} is no end of a run")
        _check_time(outcome.finished_at, "finished_at")
    except Unfit as error:
        raise BrokenFileError(path, str(error), _REMOVE) from error
    return outcome


def read_manifest(shard_path: Path) -> Manifest | None:
    """Returns what binds a shard, None where it has no manifest.

    Raises:
        BrokenFileError: it is damaged.
    """
    path = shard_path / MANIFEST_FILE
    if not (path.exists() or path.is_symlink()):
        return None
    values = read_json_object(path, _REDO)
    try:
        return _value(Manifest, values, "the manifest")
    except Unfit as error:
        raise BrokenFileError(path, str(error), _REDO) from error


def digest(data: bytes) -> str:
    """The sha-256 of a file's bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def to_json(values: Mapping[str, Any]) -> bytes:
    """The bytes of a file of one JSON object."""
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()


def _sealed(values: dict[str, Any]) -> bytes:
    return to_json(values | {DIGEST: _digest_of(values)})


def _unsealed(values: dict[str, Any]) -> bool:
    """Takes the digest out of a file's values; returns whether there was one. Raises `Unfit` where it is not theirs."""
    told = values.pop(DIGEST, None)
    if told is not None and told != _digest_of(values):
        raise Unfit(f"its {DIGEST} is not that of what it says: it was changed or damaged")
    return told is not None


def _digest_of(values: dict[str, Any]) -> str:
    return digest(json.dumps(values, sort_keys=True).encode())


def _check_run(run: Run) -> None:
    """Raises `Unfit` for what has the right types and still is no run."""
    if not is_run_id(run.run_id):
        raise Unfit(f"run_id {quoted(run.run_id)} is not 16 hexadecimal digits")
    _check_time(run.created_at, "created_at")
    methods = run.settings.methods
    if not methods or len(set(methods)) != len(methods):
        raise Unfit("methods is empty, or names one twice")
    for method in methods:
        try:
            definition(method)
        except KeyError:
            raise Unfit(f"{quoted(method)} is no method that this version of mmn knows") from None
    chosen = run.settings.effect_layers
    if chosen and (len(chosen) != 2 or not chosen[0] <= chosen[1] < run.model.n_layers):
        raise Unfit(
            f"effect_layers are {list(chosen)}, and not the first and last of some of "
            f"{counted(run.model.n_layers, 'layer')}"
        )


def _check_time(text: str, name: str) -> None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Unfit(f"{name} {quoted(text)} is not an ISO 8601 time") from None
    if moment.tzinfo is None or not YEARS[0] < moment.year < YEARS[1]:
        raise Unfit(f"{name} {quoted(text)} is not a time with a zone between {YEARS[0]} and {YEARS[1]}")


def _value(kind: Any, value: Any, name: str) -> Any:
    """Returns a value of JSON as the type that an annotation names: a dataclass, str, int, float, tuple or dict."""
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, name)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(inner[0], item, f"an item of {name}") for item in value)
    if origin is dict and isinstance(value, dict):
        return {key: _value(inner[1], item, f"{name} {quoted(key)}") for key, item in value.items()}
    wanted = (int, float) if kind is float else origin or kind
    if not isinstance(value, wanted) or isinstance(value, bool) is not (kind is bool):
        raise Unfit(f"{name} is {quoted(value)} and not of type {getattr(kind, '__name__', kind)}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(value, name)
        return kind(value)
    return value


def _check_number(value: float, name: str) -> None:
    low, high = LIMITS.get(name, _ANY)
    if not low <= value <= high:  # so is what is not a number
        raise Unfit(f"{name} is {quoted(value)}, which is not in {low:,.0f} … {high:,.0f}")


def _dataclass(kind: Any, values: Any, name: str) -> Any:
    if not isinstance(values, dict):
        raise Unfit(f"{name} is {quoted(values)} and not an object")
    types = typing.get_type_hints(kind)
    must = {one.name for one in dataclasses.fields(kind) if _is_required(one)}
    if missing := sorted(must - set(values)):
        raise Unfit(f"{name} lacks {', '.join(missing)}")
    if unknown := sorted(set(values) - set(types)):
        raise Unfit(f"{name} has {', '.join(map(quoted, unknown[:5]))}, which this version of mmn does not know")
    return kind(**{key: _value(types[key], value, key) for key, value in values.items()})


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING

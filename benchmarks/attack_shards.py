"""A good run, and seeded ways to spoil what its files say: what `attacks.py` tries on the cache, first part.

Each attack is a name and a function that changes a cache of two runs. `GOOD` is never touched; `VICTIM` is. Three kinds
of writer are played: one who damages files (digests stay), one who writes them anew with right digests (`reseal`), and
one from before there were digests (`age`). The latter two tell what no run can hold: what they tell is refused, or
says the same as before.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmn.core import Outcome
from mmn.names import COMPLETE
from mmn.runs import shards
from mmn.runs.manifests import digest, to_json
from mmn.specimen import RUN_PATH
from mmn.studies.table import is_json
from mmn.studies.tables import TABLES

GOOD: Final = "600d600d600d600d"
VICTIM: Final = "0bad0bad0bad0bad"
Change = Callable[[Path], object]
Attack = tuple[str, Change]
N_IMAGES: Final = 4  # of two shards


def make_runs(runs_path: Path) -> None:
    """Writes two runs that hold rows of every table: four pictures of the bundled run each, and an edit."""
    bundled, _ = shards.read_run(RUN_PATH)
    whole: dict[str, list[pa.Table]] = {}
    for name in sorted(shards.finished_shards(RUN_PATH)):
        for table, rows in shards.read_shard(RUN_PATH / name).items():
            whole.setdefault(table, []).append(rows)
    tables = {name: pa.concat_tables(found) for name, found in whole.items()}
    order = tables["field"]["image_id"].unique().to_pylist()  # pictures that are annotated, too
    for run_id, start in ((GOOD, 0), (VICTIM, N_IMAGES)):
        run = replace(bundled, run_id=run_id)
        run_path = shards.create_run(runs_path, run)
        _write(run_path, tables, order[start : start + N_IMAGES])
        shards.finish_run(run_path, Outcome(COMPLETE, bundled.created_at, 9.0))


def _write(run_path: Path, tables: dict[str, pa.Table], image_ids: list[str]) -> None:
    def of(name: str, ids: list[str]) -> pa.Table:
        return tables[name].filter(pc.is_in(tables[name]["image_id"], pa.array(ids)))

    half = len(image_ids) // 2
    for number, ids in enumerate((image_ids[:half], image_ids[half:])):
        scored = {name: of(name, ids) for name in ("image", "caption", "concept", "score", "budget")}
        failure = [{"source": f"{number}.png", "stage": "open", "error": "ImageError", "message": "truncated"}]
        scored["failure"] = pa.Table.from_pylist(failure, schema=TABLES["failure"])
        shards.write_shard(run_path, f"batch-{number:05d}", _in_parts(scored))
    looked = {name: of(name, image_ids) for name in ("look", "grid", "field")}
    looked["grid"] = looked["grid"].slice(0, len(image_ids))  # what is read as words tells them again
    shards.write_shard(run_path, "annotation-a", looked)
    shards.write_shard(run_path, "neurons", {"neuron": tables["neuron"].slice(0, 40)})
    measured = {name: of(name, image_ids) for name in ("lens", "invariance", "specificity", "sensitivity", "effect")}
    few = {name: tables[name].slice(0, 50) for name in ("shared_layer", "selectivity")}
    shards.write_shard(run_path, "experiments", {name: rows.slice(0, 500) for name, rows in measured.items()} | few)
    shards.write_shard(run_path, "edit-e1", _edit(image_ids[0]))


def _in_parts(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Scores up to rank 10: enough to be spoilt."""
    return tables | {"score": tables["score"].filter(pc.less_equal(tables["score"]["rank"], 10))}


def _edit(image_id: str) -> dict[str, pa.Table]:
    texts = dict.fromkeys(("algorithm", "selection", "method", "noun", "target"), "p2")
    row = texts | {"edit_id": "e1", "created_at": datetime(2026, 11, 21), "units": "[[0, 1]]", "settings": "{}"}  # noqa: DTZ001
    row |= {"fingerprint_before": "a", "fingerprint_after": "b", "relative_norm": 0.5, "efficacy": 1.0}
    said = {"edit_id": "e1", "image_id": image_id, "role": "edited", "text_before": "a", "text_after": "b"}
    rows = {"edit": [row], "edited_caption": [said | {"is_as_wished": True}]}
    return {name: pa.Table.from_pylist(found, schema=TABLES[name]) for name, found in rows.items()}


def on_content(rng: random.Random) -> Iterator[Attack]:
    """Attacks on what files say, and on their bytes."""
    yield from (*_on_json(rng), *_on_cells(rng), *_on_columns(rng), *_on_bytes(rng))


# ---- writers


def reseal(cache: Path) -> None:
    """Writes digests that fit what is there, as who makes a whole shard can."""
    run_id = json.loads((cache / "runs" / VICTIM / "run.json").read_text())["run_id"]
    for shard_path in (cache / "runs" / VICTIM).iterdir():
        if shard_path.is_dir() and not shard_path.is_symlink():
            files = {path.stem: digest(path.read_bytes()) for path in shard_path.glob("*.parquet") if path.is_file()}
            told = {"run_id": run_id, "shard": shard_path.name, "files": files}
            (shard_path / "manifest.json").write_bytes(to_json(told))


def age(cache: Path) -> None:
    """Takes all digests away: a run from before there were any."""
    path = cache / "runs" / VICTIM / "run.json"
    path.write_bytes(to_json({name: value for name, value in json.loads(path.read_text()).items() if name != "digest"}))
    for manifest in path.parent.glob("*/manifest.json"):
        manifest.unlink()


def leave(cache: Path) -> None:
    """Leaves the digests as they were."""


def then(change: Change, *after: Change) -> Change:
    def both(cache: Path) -> None:
        for step in (change, *after):
            step(cache)

    return both


# ---- JSON

DEEP: Final = "[" * 100_000 + "]" * 100_000
_VALUES: Final[tuple[str, ...]] = (
    "null", "true", "-1", "0", "2000000000", "1" + "0" * 400, "1e999", "NaN", "Infinity", '""', '"../../outside"',
    r'"\ud800"', r'"\u0000"', "[]", "{}", "[null]", '{"a": {"b": []}}', DEEP, '"2026-13-45T99:99"', '"/"',
    '"9999-12-31T23:59:59-14:00"',
)  # fmt: skip


def _on_json(rng: random.Random) -> Iterator[Attack]:
    """Every field of `run.json`, `outcome.json` and a manifest with a few of the values that no field may have."""
    fields = [("run.json", key) for key in _RUN_FIELDS]
    fields += [("outcome.json", (key,)) for key in ("status", "finished_at", "seconds")]
    fields += [("batch-00000/manifest.json", (key,)) for key in ("run_id", "shard", "files")]
    for file, keys in fields:
        for value in rng.sample(_VALUES, 4):
            yield f"{file}: {'.'.join(keys)} is {value[:30]}", _json_change(file, keys, value)
        yield f"{file}: no {'.'.join(keys)}", _json_change(file, keys, None)
    for text in (
        "",
        "{",
        "[]",
        "null",
        "\ufeff{}",
        '{"a": 1, "a": 2}',
        "{" * 50_000,
        '{"x": "' + "y" * 3_000_000 + '"}',
    ):
        yield f"run.json is {text[:20]!r}", _text_change("run.json", text)
        yield f"outcome.json is {text[:20]!r}", _text_change("outcome.json", text)


_RUN_FIELDS: Final = (
    ("run_id",), ("created_at",), ("model",), ("model", "n_layers"), ("model", "d_mlp"), ("model", "name"),
    ("model", "fingerprint"), ("settings",), ("settings", "methods"), ("settings", "top_k"), ("settings", "bottom_k"),
    ("settings", "prompt"), ("settings", "seed"), ("settings", "variants"), ("versions",), ("images",), ("prompt",),
    ("digest",), ("unknown",),
)  # fmt: skip


def _json_change(file: str, keys: tuple[str, ...], value: str | None) -> Change:
    """Sets a field to a piece of JSON text, or removes it; the digest is left as it was."""

    def change(cache: Path) -> None:
        path = cache / "runs" / VICTIM / file
        values = json.loads(path.read_text())
        inner = values
        for key in keys[:-1]:
            inner = inner[key]
        if value is None:
            inner.pop(keys[-1], None)
        else:
            inner[keys[-1]] = "@@@"
        path.write_text(json.dumps(values).replace('"@@@"', value or ""))

    return change


def _text_change(file: str, text: str) -> Change:
    return lambda cache: (cache / "runs" / VICTIM / file).write_text(text)


# ---- cells


def _bad_values(field: pa.Field) -> list[Any]:
    """What no cell of a column may hold."""
    kind = field.type
    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) else kind
    bad: list[Any] = [] if field.nullable else [None]
    if pa.types.is_floating(inner):
        bad += [float("nan"), float("inf"), -float("inf")]
    if pa.types.is_integer(inner):
        bad += [-1, -(2**15)]
    if field.name in ("layer", "unit", "rank"):
        bad += [30_000]
    if pa.types.is_timestamp(inner):
        bad += [datetime(1, 1, 1), datetime(9999, 12, 31)]  # noqa: DTZ001
    if pa.types.is_string(inner):
        bad += ["x" * 1_500_000]
    if is_json(field):
        bad += ["", "{", "[" * 5000, "[[99999, 1]]", '"x"', "NaN", '{"tiles": 1}']
    if field.name == "edit_id":
        bad += ["../../outside", "/etc/passwd", ".", ""]
    if field.name == "image_id" and not field.nullable:
        bad += ["of nobody"]
    if field.name == "method" and inner == pa.string():
        bad = bad[:1]  # other tables may name other methods
    return bad


def _on_cells(rng: random.Random) -> Iterator[Attack]:
    """One cell of each column of each table made impossible, by a writer with digests and by one without."""
    for shard, tables in _SHARDS.items():
        for table in tables:
            for field in TABLES[table]:
                for value in rng.sample(bad := _bad_values(field), min(2, len(bad))):
                    after = rng.choice((reseal, age))
                    what = f"{table}.{field.name} is {str(value)[:20]!r} ({after.__name__})"
                    yield what, then(_cell_change(shard, table, field, value, rng.random()), after)


_SHARDS: Final = {
    "batch-00000": ("image", "caption", "concept", "score", "budget"),
    "annotation-a": ("look", "grid", "field"),
    "neurons": ("neuron",),
    "experiments": ("lens", "invariance", "shared_layer", "specificity", "selectivity", "sensitivity", "effect"),
    "edit-e1": ("edit", "edited_caption"),
}


def _cell_change(shard: str, table: str, field: pa.Field, value: Any, where: float) -> Change:
    def spoil(rows: pa.Table) -> pa.Table:
        cells = rows[field.name].to_pylist()
        at = int(where * len(cells))
        is_list = isinstance(cells[at], list)
        cells[at] = [value, *cells[at][1:]] if is_list and value is not None else value
        loose = pa.field(field.name, field.type, nullable=True)
        place = rows.schema.get_field_index(field.name)
        return rows.set_column(place, loose, pa.array(cells, field.type))

    return _rows_change(shard, table, spoil)


def _rows_change(shard: str, table: str, spoil: Callable[[pa.Table], pa.Table]) -> Change:
    def change(cache: Path) -> None:
        path = cache / "runs" / VICTIM / shard / f"{table}.parquet"
        pq.write_table(spoil(pq.ParquetFile(path).read().cast(TABLES[table])), path)

    return change


# ---- columns and rows


def _on_columns(rng: random.Random) -> Iterator[Attack]:
    for (shard, tables), after in itertools.product(_SHARDS.items(), (reseal, age, leave)):
        for table in rng.sample(tables, min(2, len(tables))):
            field = rng.choice([field for field in TABLES[table] if not field.nullable])
            kinds = {
                "dropped": lambda rows, name=field.name: rows.drop_columns([name]),
                "renamed": lambda rows, name=field.name: _renamed(rows, name, name + " "),
                "twice": lambda rows, name=field.name: rows.append_column(name, rows[name]),
                "of another type": lambda rows, name=field.name: _retyped(rows, name),
            }
            for what, spoil in kinds.items():
                yield f"{table}.{field.name} {what} ({after.__name__})", then(_rows_change(shard, table, spoil), after)
            extra = _rows_change(
                shard, table, lambda rows: rows.append_column("more", pa.nulls(len(rows), pa.string()))
            )
            yield f"{table} has a column more ({after.__name__})", then(extra, after)
            if table not in ("edit", "edited_caption"):
                again = _rows_change(shard, table, lambda rows: pa.concat_tables([rows, rows.slice(0, 3)]))
                yield f"{table} tells rows twice ({after.__name__})", then(again, after)
            turned = _rows_change(shard, table, lambda rows: rows.take(pa.array(range(len(rows))[::-1])))
            yield f"{table} in reverse ({after.__name__})", then(turned, after)


def _renamed(rows: pa.Table, name: str, new: str) -> pa.Table:
    return rows.rename_columns([new if one == name else one for one in rows.column_names])


def _retyped(rows: pa.Table, name: str) -> pa.Table:
    kind = pa.binary() if rows.schema.field(name).type == pa.string() else pa.string()
    values = [str(value).encode() if kind == pa.binary() else str(value) for value in rows[name].to_pylist()]
    return rows.set_column(rows.schema.get_field_index(name), name, pa.array(values, kind))


# ---- bytes


def _on_bytes(rng: random.Random) -> Iterator[Attack]:
    """Files cut off, and bytes changed: anywhere (found by the digest), or in the footer, whose lies are sealed."""
    for number in range(30):
        shard, tables = rng.choice(list(_SHARDS.items()))
        table, seed = rng.choice(tables), rng.random()
        yield f"{table} cut off ({number})", then(_cut(shard, table, seed), rng.choice((reseal, age, leave)))
        yield f"{table} with other bytes ({number})", _bytes_change(shard, table, seed, footer=False)
        yield f"{table} with a lying footer ({number})", then(_bytes_change(shard, table, seed, footer=True), reseal)
    for count in (25_000_000, 5_000_000):
        yield f"score of {count:,} equal rows", then(_bomb(count), reseal)
    invalid = _rows_change("batch-00000", "caption", _not_utf8)
    yield "text that is not UTF-8", then(invalid, reseal)


def _cut(shard: str, table: str, where: float) -> Change:
    def change(cache: Path) -> None:
        path = cache / "runs" / VICTIM / shard / f"{table}.parquet"
        os.truncate(path, int(where * path.stat().st_size))

    return change


def _bytes_change(shard: str, table: str, seed: float, *, footer: bool) -> Change:
    def change(cache: Path) -> None:
        rng, path = random.Random(seed), cache / "runs" / VICTIM / shard / f"{table}.parquet"
        data = bytearray(path.read_bytes())
        length = int.from_bytes(data[-8:-4], "little")
        first, last = (len(data) - 8 - length, len(data) - 4) if footer else (0, len(data))
        for _ in range(3):
            data[rng.randrange(first, last)] ^= 1 << rng.randrange(8)
        path.write_bytes(data)

    return change


def _bomb(n_rows: int) -> Change:
    """One row, told very often: a small file that becomes a large table."""
    zeros = pa.Array.from_buffers(pa.int8(), n_rows, [None, pa.py_buffer(bytes(n_rows))])

    def often(values: pa.ChunkedArray) -> pa.Array:
        first = values.slice(0, 1).combine_chunks()
        return pa.nulls(n_rows, first.type) if first.null_count else pa.DictionaryArray.from_arrays(zeros, first)

    def change(cache: Path) -> None:
        path = cache / "runs" / VICTIM / "batch-00000" / "score.parquet"
        rows = pq.ParquetFile(path).read().cast(TABLES["score"])
        pq.write_table(pa.table({name: often(rows[name]) for name in rows.column_names}), path, store_schema=False)

    return change


def _not_utf8(rows: pa.Table) -> pa.Table:
    data = b"\xed\xa0\x80 \xff" * len(rows)
    offsets = pa.array([5 * i for i in range(len(rows) + 1)], pa.int32()).buffers()[1]
    text = pa.Array.from_buffers(pa.string(), len(rows), [None, offsets, pa.py_buffer(data)])
    return rows.set_column(rows.schema.get_field_index("text"), TABLES["caption"].field("text"), text)

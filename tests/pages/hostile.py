"""The made-up run of `filled.fill_whole` with a hostile string in every text, name and prompt, and jobs likewise."""

import json
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pyarrow as pa

from mmn.core import Run
from mmn.runs.shards import create_run, write_shard
from mmn.studies.tables import AMONG
from tests.pages import filled

HOST = "hostile.test"
HOSTILE = (
    f"![i](http://{HOST}/a.png) [l](http://{HOST}/l) <img src=http://{HOST}/b.png> <script>window.hostile = 1</script> "
    f"http://{HOST}/auto www.{HOST}/x me@{HOST} :material/bug_report: :skull: :red[c] $x^2$ `c` **b** _i_ ~~s~~ -> &lt;"
)
MODEL = f"/models/{HOSTILE.replace('/', '∕')}"  # the last part of a path is what is shown: a slash that is none
# What is compared with words of our own, is parsed, or must be what it is.
KEPT = (
    *(
        "image_id",
        "edit_id",
        "variant",
        "method",
        "kind",
        "selection",
        "role",
        "term",
        "algorithm",
        "sigma_unit",
        "positions",
    ),
    *("model_fingerprint", "fingerprint_before", "fingerprint_after", "grid", "units", "settings", "source"),
    *("sources", "stage", "error"),
)


def fill_hostile(cache_path: Path) -> None:
    """Writes the run `5e6f…`, its pictures in a folder of a hostile name, and three ended jobs."""
    tell_picture = filled._tell_picture

    def told_picture(rng, rows, path, number, methods):
        moved = path.parent / f"![i](http:/{HOST}" / f"{path.stem}) <b>.png"
        moved.parent.mkdir(parents=True, exist_ok=True)
        path.rename(moved)
        tell_picture(rng, rows, moved, number, methods)

    with (
        mock.patch.object(filled, "write_shard", lambda path, name, tables: write_shard(path, name, _spoilt(tables))),
        mock.patch.object(filled, "create_run", lambda path, run: create_run(path, _spoilt_run(run))),
        mock.patch.object(filled, "_tell_picture", told_picture),
    ):
        filled.fill_whole(cache_path)
    results: dict[str, dict[str, object]] = {
        "1": {"error": "ModelError", "message": HOSTILE},
        "2": {"status": "complete", "run_id": "5e6f000000000000", "n_images": 20, "n_failed": 1},
        "3": {"status": "cancelled"},
    }
    for name, result in results.items():
        _job(cache_path / "jobs" / name, "score" if name == "2" else f"edit 5e6f0000 --to '{HOSTILE}'", result)


def _spoilt(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    return {name: pa.Table.from_pylist(_rows(name, table), schema=table.schema) for name, table in tables.items()}


def _rows(name: str, table: pa.Table) -> list[dict]:
    ours = AMONG.get(name, {})  # columns that hold words of ours alone
    return [
        {key: value if key in ours else _cell(key, value) for key, value in row.items()} for row in table.to_pylist()
    ]


def _cell(key: str, value: object) -> object:
    if key in KEPT:
        return value
    if isinstance(value, list):
        return [_cell(key, one) for one in value]
    return f"{value} {HOSTILE}" if isinstance(value, str) else value


def _spoilt_run(run: Run) -> Run:
    settings = replace(run.settings, prompt=HOSTILE)
    facts = replace(run.model, name=MODEL)
    return replace(run, model=facts, images=f"/data/{HOSTILE}", prompt=HOSTILE, settings=settings)


def _job(path: Path, task: str, result: dict) -> None:
    path.mkdir(parents=True)
    job = {"job_id": path.name, "command": ["mmn", "score", "--prompt", HOSTILE], "task": task, "pid": 4_000_000}
    named = {"model": MODEL, "images": MODEL, "started_at": "2026-11-21T10:00:00+00:00"}
    (path / "job.json").write_text(json.dumps(job | named))
    (path / "result.json").write_text(json.dumps(result))
    (path / "progress").write_text(HOSTILE)
    (path / "lock").touch()

"""`mmn runs`, `show`, `delete`, `load`, `export` and `figure`: what is in the cache."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmn.cli import DONE, add_common, print_json
from mmn.errors import SourceError, UsageError
from mmn.shards import read_run
from mmn.specimen import RUN_PATH
from mmn.store import Store

RUN_COLUMNS = ("run_id", "status", "created_at", "model", "images", "n_images", "n_failed", "n_concepts", "n_scores")
LATEST = "a run id, a beginning of it, or latest"


def add_parsers(commands: Any) -> None:
    runs = commands.add_parser("runs", help="list the runs in the cache")
    show = commands.add_parser("show", help="one run whole: settings, versions, counts, failures")
    delete = commands.add_parser("delete", help="remove a run and its shards")
    load = commands.add_parser("load", help="load shards that were written elsewhere")
    export = commands.add_parser("export", help="a table of one run as CSV or Parquet")
    figure = commands.add_parser("figure", help="a chart of the dashboard as a file")
    show.add_argument("run", help=LATEST)
    delete.add_argument("run", help=LATEST)
    load.add_argument("folder", type=Path, metavar="DIR", help="a run's folder, or one that holds several")
    export.add_argument("--run", required=True, help=LATEST)
    export.add_argument("--table", required=True, metavar="T")
    export.add_argument("--out", required=True, type=Path, metavar="F.csv|parquet")
    _add_figure_options(figure)
    for parser in (runs, show, delete, load, export, figure):
        add_common(parser, "cache")


def run(options: argparse.Namespace) -> int:
    commands: dict[str, Callable[[Store, argparse.Namespace], tuple[object, str]]] = {
        "runs": _runs,
        "show": _show,
        "delete": _delete,
        "load": _load,
        "export": _export,
        "figure": _figure,
    }
    with Store.open(options.cache) as store:
        store.load_new_shards([store.runs_path, RUN_PATH])
        values, text = commands[options.command](store, options)
    if options.json:
        print_json(values)
    else:
        print(text)
    return DONE


def _runs(store: Store, _options: argparse.Namespace) -> tuple[object, str]:
    runs = store.runs()
    rows = _records(runs)
    return rows, runs[list(RUN_COLUMNS)].to_string(index=False) if rows else "no runs yet; mmn score makes one"


def _show(store: Store, options: argparse.Namespace) -> tuple[object, str]:
    row = store.run(options.run)
    failures = _records(store.table(row["run_id"], "failure"))
    values = row | store.summary(row["run_id"]) | {"methods": store.score_methods(row["run_id"]), "failures": failures}
    width = max(map(len, values))
    lines = [f"{key.ljust(width)}  {_plain(value)}" for key, value in values.items() if key != "failures"]
    lines += [f"failed: {row['source']} ({row['stage']}): {row['message']}" for row in failures]
    return values, "\n".join(lines)


def _delete(store: Store, options: argparse.Namespace) -> tuple[object, str]:
    run_id = store.run(options.run)["run_id"]
    store.delete_run(run_id)
    return {"run_id": run_id, "deleted": True}, f"{run_id} is deleted"


def _load(store: Store, options: argparse.Namespace) -> tuple[object, str]:
    """Loads a folder of shards; a run that was deleted here before comes back, since it is asked for."""
    folder: Path = options.folder
    run_paths = [file.parent for file in (*folder.glob("run.json"), *folder.glob("*/run.json"))]
    if not run_paths:
        raise SourceError(f"{folder} holds no run (no run.json in it or in its folders)")
    for run_path in run_paths:
        store.restore(read_run(run_path)[0].run_id)
    n_shards = store.load_new_shards([folder])
    run_ids = sorted(run_path.name for run_path in run_paths)
    return {"n_shards": n_shards, "runs": run_ids}, f"{n_shards} new shards of {len(run_ids)} runs loaded"


def _export(store: Store, options: argparse.Namespace) -> tuple[object, str]:
    out: Path = options.out
    table = store.table(options.run, options.table)
    if out.suffix not in (".csv", ".parquet"):
        raise UsageError(f"--out {out}: the name must end in .csv or .parquet")
    with _writing(out):
        if out.suffix == ".csv":
            _with_lists_as_json(table).to_csv(out, index=False)
        else:
            table.to_parquet(out, index=False)
    return {"table": options.table, "n_rows": len(table), "out": str(out)}, f"{out}: {len(table)} rows"


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"--out {out} cannot be written ({reason}); give a file in a folder that is there") from error


def _add_figure_options(figure: argparse.ArgumentParser) -> None:
    figure.add_argument("name", metavar="NAME", help="layers")
    figure.add_argument("--run", required=True, help=LATEST)
    figure.add_argument("--out", required=True, type=Path, metavar="F.svg|pdf|png|json|csv")
    figure.add_argument("--width", default="single", metavar="single|double|INCHES")
    figure.add_argument("--methods", metavar="A,B", help="default: all of the run")
    figure.add_argument("--ks", metavar="K,K", help="units per picture")
    figure.add_argument("--shares", metavar="S,S", help="the same as shares of all units, 0.014 for 1.4 %%")
    figure.add_argument("--concepts", default="", metavar="A,B", help="only these nouns")
    figure.add_argument("--layers", metavar="FIRST-LAST")


def _figure(store: Store, options: argparse.Namespace) -> tuple[object, str]:
    from mmn.figures import FIGURES
    from mmn.figures.export import export_chart

    if options.name not in FIGURES:
        raise UsageError(f"no figure {options.name!r}; there are {', '.join(FIGURES)}")
    row = store.run(options.run)
    run_id = row["run_id"]
    methods = _split(options.methods) if options.methods else store.score_methods(run_id)
    lemmas = _split(options.concepts)
    data = store.layer_distribution(run_id, methods, _ks(options, row), lemmas, _layers(options.layers))
    chart = FIGURES[options.name](data, row | store.summary(run_id), ", ".join(lemmas) or "all concepts")
    with _writing(options.out):
        export_chart(chart, data, options.out, _width(options.width))
    return {"figure": options.name, "run_id": run_id, "out": str(options.out)}, str(options.out)


def _ks(options: argparse.Namespace, row: dict[str, Any]) -> list[int]:
    n_units = int(row["n_layers"]) * int(row["d_mlp"])
    if options.ks and options.shares:
        raise UsageError("give --ks or --shares, not both")
    if options.shares:
        return [max(1, round(_number(share, "--shares") * n_units)) for share in _split(options.shares)]
    if options.ks:
        return [int(_number(k, "--ks")) for k in _split(options.ks)]
    return [min(int(row["settings"]["top_k"]), k) for k in (max(1, round(0.014 * n_units)),)]


def _layers(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, _, last = text.partition("-")
    return int(_number(first, "--layers")), int(_number(last or first, "--layers"))


def _width(text: str) -> str | float:
    return text if text in ("single", "double") else _number(text, "--width")


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option}: {text!r} is not a number") from None


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values; what is missing is None."""
    return json.loads(_with_times_as_text(table).to_json(orient="records"))


def _with_times_as_text(table: pd.DataFrame) -> pd.DataFrame:
    times = {name: table[name].astype(str) for name in table.select_dtypes(["datetime", "datetimetz"])}
    return table.assign(**times)


def _with_lists_as_json(table: pd.DataFrame) -> pd.DataFrame:
    """CSV has no lists: those cells become JSON arrays."""
    lists = [name for name in table if table[name].map(_is_sequence).any()]
    return table.assign(**{name: table[name].map(lambda cell: json.dumps(np.asarray(cell).tolist())) for name in lists})


def _is_sequence(cell: object) -> bool:
    return isinstance(cell, list | tuple) or getattr(cell, "ndim", 0) == 1


def _plain(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)

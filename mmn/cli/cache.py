"""`mmn runs`, `show`, `label`, `delete`, `load`, `export` and `bundle`: what is in the cache."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmn.cli import DONE, add_common, print_json
from mmn.cli.files import explained, require_out, writing
from mmn.counts import counted
from mmn.errors import SetAside, UsageError, were_set_aside
from mmn.names import ORIGINAL
from mmn.printable import printable
from mmn.specimen import RUN_PATHS

if TYPE_CHECKING:  # every command line builds all commands' options: the database is loaded by those that ask it
    import pandas as pd

    from mmn.store import Store

RUN_COLUMNS = ("run_id", "status", "created_at", "model", "images", "n_images", "n_failed", "n_concepts", "n_scores")
SET_ASIDE = "set aside"
WITHOUT_NOUNS = ("run", "image", "caption", "failure", "migration")  # tables that a run without a noun may fill
LATEST = "a run id, a beginning of it, or latest"


def add_parsers(commands: Any) -> None:
    runs = commands.add_parser("runs", help="list the runs in the cache")
    show = commands.add_parser("show", help="show one run: settings, versions, counts, failures")
    label = commands.add_parser("label", help="give a run a name, a note, tags; what is not given is kept")
    delete = commands.add_parser("delete", help="remove a run and its shards")
    load = commands.add_parser("load", help="load shards that were written elsewhere, or a bundle")
    export = commands.add_parser("export", help="write a table of one run as CSV or Parquet")
    show.add_argument("run", help=LATEST)
    label.add_argument("run", help=LATEST)
    label.add_argument("--name", metavar="WORDS", help='name in lists and on pages; "" for none')
    label.add_argument("--note", metavar="TEXT", help='note; "" for none')
    label.add_argument("--tags", metavar="A,B", help='tags, replacing earlier ones; "" for none')
    label.set_defaults(may_be_empty=("--name", "--note", "--tags"))
    delete.add_argument("run", help=LATEST)
    load.add_argument(
        "folder",
        type=Path,
        metavar="DIR|F.zip",
        help="folder of one run or of several, or a file that mmn bundle wrote",
    )
    export.add_argument("of", nargs="?", metavar="RUN", help=LATEST)
    export.add_argument("--run", help="the same, as of figure")
    export.add_argument("--table", required=True, metavar="T")
    export.add_argument("--out", required=True, type=Path, metavar="F.csv|parquet")
    bundle = commands.add_parser("bundle", help="write a run as one file for another installation, without weights")
    bundle.add_argument("run", help=LATEST)
    bundle.add_argument("--out", required=True, type=Path, metavar="F.zip")
    for parser in (runs, show, label, delete, load, export, bundle):
        add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    from mmn.store import Store

    commands: dict[str, Callable[[Store, argparse.Namespace], tuple[object, str]]] = {
        "runs": _runs,
        "show": _show,
        "label": _label,
        "delete": _delete,
        "load": _load,
        "export": _export,
        "bundle": _bundle,
    }
    with Store.open(options.cache) as store:
        store.load_new_shards([store.runs_path, *RUN_PATHS])
        n_set_aside = len(store.set_aside)
        values, text = commands[options.command](store, options)
    if n_set_aside and options.command != "runs":
        print(f"mmn: {were_set_aside(n_set_aside)} (mmn runs lists them)", file=sys.stderr)
    if options.json:
        print_json(values)
    else:
        print(text)
    return DONE


def _runs(store: Store, _options: argparse.Namespace) -> tuple[object, str]:
    """The runs, each with what was set aside of it; what is no readable run at all follows, without an id."""
    runs = store.runs()
    broken = {one: _run_of(one, store, list(runs["run_id"])) for one in store.set_aside}
    rows = [row | {"set_aside": _told(broken, row["run_id"])} for row in _records(runs)]
    rows += [{"run_id": None, "status": SET_ASIDE, "set_aside": [one]} for one in _told(broken, None)]
    named = runs.assign(tags=runs["tags"].map(", ".join))
    columns = [*RUN_COLUMNS, *(one for one in ("name", "tags") if named[one].any())]
    listed = named[columns].map(printable).to_string(index=False)
    lines = [listed if len(runs) else "no runs yet; mmn score makes one"]
    lines += [f"set aside: {one}" for one in store.set_aside]
    return rows, "\n".join(lines)


def _run_of(broken: SetAside, store: Store, run_ids: list[str]) -> str | None:
    """The loaded run that a broken shard is of; None for what is no run."""
    names = [path.name for path in (broken.path, *broken.path.parents) if path.parent == store.runs_path]
    return names[0] if names and names[0] in run_ids else None


def _told(broken: dict[SetAside, str | None], run_id: str | None) -> list[dict[str, str]]:
    return [
        {"path": printable(one.path), "reason": one.reason, "remedy": one.remedy}
        for one, of in broken.items()
        if of == run_id
    ]


def _show(store: Store, options: argparse.Namespace) -> tuple[object, str]:
    from mmn.store.pictures import PictureQueries
    from mmn.store.rankings import RankingQueries

    row = store.run(options.run)
    failures = _records(store.table(row["run_id"], "failure"))
    told = {"n_cut": _n_cut(store, row["run_id"]), "methods": store.score_methods(row["run_id"]), "failures": failures}
    values = row | store.summary(row["run_id"]) | told
    controls = _records(store.ask(RankingQueries).control_overlap(row["run_id"])) if values["n_concepts"] else []
    width = max(map(len, values))
    lines = [f"{key.ljust(width)}  {_plain(value)}" for key, value in values.items() if key != "failures"]
    lines += [
        f"{one['control']} shares {one['overlap']:.2%} of its top {counted(one['k'], 'unit')} with {one['reference']} "
        f"(chance {one['chance']:.2%})"
        for one in controls
    ]
    conservation = store.ask(PictureQueries).conservation(row["run_id"])
    lines += [f"{method}: its terms miss at most {missing:.1e}" for method, missing in conservation.items()]
    values |= {"control_overlap": controls, "conservation": conservation}
    lines += [f"failed: {row['source']} ({row['stage']}): {row['message']}" for row in failures]
    return values, "\n".join(lines)


def _n_cut(store: Store, run_id: str) -> int | None:
    """How many captions the limit of new tokens ended; None where an older run does not say."""
    captions = store.table(run_id, "caption")
    is_cut = captions["is_cut"][captions["variant"] == ORIGINAL].dropna()
    return int(is_cut.sum()) if len(is_cut) else None


def _label(store: Store, options: argparse.Namespace) -> tuple[object, str]:
    from mmn.store.labels import cleaned

    run = store.run(options.run)
    tags = run["tags"] if options.tags is None else options.tags.split(",")
    name, note = (run[one] if getattr(options, one) is None else getattr(options, one) for one in ("name", "note"))
    label = cleaned(name, note, tags)
    store.set_label(run["run_id"], label)
    lines = [f"name  {label.name}", f"tags  {', '.join(label.tags)}", f"note  {label.note}"]
    return {"run_id": run["run_id"]} | asdict(label), "\n".join([run["run_id"], *lines])


def _delete(store: Store, options: argparse.Namespace) -> tuple[object, str]:
    run_id = store.run(options.run)["run_id"]
    store.delete_run(run_id)
    return {"run_id": run_id, "deleted": True}, f"{run_id} is deleted"


def _load(store: Store, options: argparse.Namespace) -> tuple[object, str]:
    """Loads a folder of shards; a run that was deleted here before comes back, since it is asked for."""
    from mmn.store.importing import load_folder

    folder: Path = options.folder
    if folder.suffix.lower() == ".zip" and not folder.is_dir():
        return _load_bundle(store, folder)
    loaded = load_folder(store, folder)
    values: dict[str, Any] = {"n_shards": loaded.n_shards, "runs": list(loaded.run_ids)}
    lines = [f"{counted(loaded.n_shards, 'new shard')} of {counted(len(loaded.run_ids), 'run')} loaded"]
    if loaded.set_aside:
        values["set_aside"] = _told(dict.fromkeys(loaded.set_aside), None)
        lines += [f"set aside: {one}" for one in loaded.set_aside]
    return values, "\n".join(lines)


def _load_bundle(store: Store, path: Path) -> tuple[object, str]:
    """Unpacks a bundle into the cache, and loads its run."""
    from mmn.store.bundles import read_bundle

    unpacked = read_bundle(path, store.runs_path, teller("load"))
    store.restore(unpacked.run_id)
    n_shards = store.load_new_shards([unpacked.path])
    values = {"n_shards": n_shards, "runs": [unpacked.run_id]}
    return values, f"{counted(n_shards, 'new shard')} of the run {unpacked.run_id} loaded"


def _bundle(store: Store, options: argparse.Namespace) -> tuple[object, str]:
    """Writes a run, which may be a bundled one, as one file."""
    from mmn.cli.running import find_run
    from mmn.store.bundles import write_bundle

    out: Path = options.out
    require_out(out, ".zip")
    path, _ = find_run([store.runs_path, *RUN_PATHS], store.run(options.run)["run_id"])
    with explained(out):
        made = write_bundle(path, out, teller("bundle"))
    missing = f", {counted(made.n_missing, 'picture')} did not open" if made.n_missing else ""
    text = (
        f"{out}: {counted(made.n_shards, 'shard')}, {counted(made.n_pictures, 'small picture')}{missing}; "
        f"{made.n_bytes / 1e6:.1f} MB"
    )
    return asdict(made) | {"out": str(out)}, text


def teller(stage: str) -> Callable[[int, int], None]:
    """Reports how far a command is on standard error."""
    from mmn.cli.progress import reporter
    from mmn.runs.plan import Progress

    report = reporter("auto")
    return lambda done, total: report(Progress(stage, done, total))


def _export(store: Store, options: argparse.Namespace) -> tuple[object, str]:
    from mmn.store.table_files import csv_text

    out: Path = options.out
    require_out(out, ".csv", ".parquet")
    named = options.of or options.run
    if named is None or None not in (options.of, options.run):
        raise UsageError("export wants one run, as mmn export latest --table T --out F.csv")
    table = store.table(named, options.table)
    if table.empty and options.table not in WITHOUT_NOUNS:
        store.require_nouns(named)
    with writing(out) as place:
        if out.suffix.lower() == ".csv":
            place.write_text(csv_text(table), encoding="utf-8", newline="")
        else:
            table.to_parquet(place, index=False)
    return {"table": options.table, "n_rows": len(table), "out": str(out)}, f"{out}: {counted(len(table), 'row')}"


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values; what is missing is None."""
    return json.loads(_with_times_as_text(table).to_json(orient="records"))


def _with_times_as_text(table: pd.DataFrame) -> pd.DataFrame:
    times = {name: table[name].astype(str) for name in table.select_dtypes(["datetime", "datetimetz"])}
    return table.assign(**times)


def _plain(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)

"""`mmn units`: sets of units that are kept in the cache, for `--units NAME` of the studies; and notes on units."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

from mmn.cli import DONE, add_common, print_json
from mmn.cli.cache import LATEST
from mmn.cli.files import writing
from mmn.cli.options import at_least
from mmn.cli.running import find_run
from mmn.cli.unit_options import told
from mmn.core import Run, named_unit, unit_name
from mmn.counts import counted
from mmn.errors import UsageError
from mmn.printable import printable
from mmn.specimen import RUN_PATHS
from mmn.units.kept import add_unit, delete_set, kept_sets, load_set, save_set
from mmn.units.notes import notes, write_note
from mmn.units.set_files import read_set
from mmn.units.sets import Shape, UnitSet, require_units

ACTIONS = ("list", "save", "add", "show", "delete", "note", "notes")


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser("units", help="saved sets of units, for --units NAME of studies; notes on units")
    parser.add_argument("action", nargs="?", default="list", choices=ACTIONS, help="what to do; default list")
    parser.add_argument("name", nargs="?", metavar="NAME|UNIT", help="name of the set; for note the unit, as L14.u201")
    parser.add_argument("text", nargs="?", metavar="UNIT|TEXT", help="add: the unit; note: the text, '' for none")
    parser.add_argument("--run", default="latest", metavar="RUN", help=f"{LATEST}; default latest")
    parser.add_argument("--from", dest="source", type=Path, metavar="F", help="save: a file of layer,unit[,score]")
    parser.add_argument("--method", metavar="M", help="save: the first units by this score; default the usual one")
    parser.add_argument("--concept", metavar="NOUN", help="save: for this noun, over its pictures; default all nouns")
    parser.add_argument("--layer", type=at_least(0), metavar="L", help="save: of this layer alone")
    parser.add_argument("--k", type=at_least(1), default=20, metavar="K", help="save: how many; default 20")
    parser.add_argument("--out", type=Path, metavar="F.csv", help="show: written to a file, too")
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    actions = {
        "list": _list,
        "save": _save,
        "add": _add,
        "show": _show,
        "delete": _delete,
        "note": _note,
        "notes": _notes,
    }
    if options.action not in ("list", "notes") and not options.name:
        raise UsageError(f"mmn units {options.action} wants a name, as mmn units {options.action} dogs")
    values, text = actions[options.action](options)
    if options.json:
        print_json(values)
    else:
        print(text)
    return DONE


def _list(options: argparse.Namespace) -> tuple[object, str]:
    kept = kept_sets(options.cache)
    lines = [
        f"{one.name}: {counted(len(one.units), 'unit')} of {one.model or 'any model'}{_origin(one)}"
        for one in kept.sets
    ]
    lines += [f"set aside: {one}" for one in kept.broken]
    broken = [{"path": printable(one.told.path), "reason": one.told.reason} for one in kept.broken]
    return {"sets": [told(one) for one in kept.sets], "set_aside": broken}, "\n".join(lines) or "no sets of units yet"


def _origin(one: UnitSet) -> str:
    return "".join(f", {key} {printable(value)}" for key, value in one.origin.items())


def _save(options: argparse.Namespace) -> tuple[object, str]:
    if options.source is not None and (options.method or options.concept or options.layer is not None):
        raise UsageError("give --from a file, or --method, --concept and --layer of a ranking, not both")
    scored = _run(options)
    found = _of_file(options, scored) if options.source is not None else _of_ranking(options, scored)
    save_set(options.cache, found)
    return told(found), f"{found.name}: {counted(len(found.units), 'unit')} saved{_origin(found)}"


def _run(options: argparse.Namespace) -> Run:
    return find_run([options.cache / "runs", *RUN_PATHS], options.run)[1]


def _of_file(options: argparse.Namespace, scored: Run) -> UnitSet:
    """The file's units as a set of the run's model, which they were checked against."""
    read = read_set(options.source, scored.model)
    facts = scored.model
    origin = {"file": options.source.name, "run": scored.run_id}
    return UnitSet(options.name, read.units, read.scores, facts.name, facts.fingerprint, Shape.of(facts), origin)


def _of_ranking(options: argparse.Namespace, scored: Run) -> UnitSet:
    from mmn.store import Store
    from mmn.store.unit_rankings import ranked_set

    with Store.open(options.cache) as store:
        store.load_new_shards([store.runs_path, *RUN_PATHS])
        return ranked_set(
            store, scored.run_id, options.name, options.method or "", options.k, options.concept or "", options.layer
        )


def _add(options: argparse.Namespace) -> tuple[object, str]:
    if not options.text:
        raise UsageError("mmn units add wants a set and a unit, as mmn units add dogs L14.u201")
    scored = _run(options)
    unit = named_unit(options.text, scored.model.d_experts)
    found = add_unit(options.cache, options.name, unit, scored.run_id, scored.model)
    return told(found), f"{found.name}: {counted(len(found.units), 'unit')}"


def _show(options: argparse.Namespace) -> tuple[object, str]:
    found = load_set(options.cache, options.name)
    experts = found.shape.d_experts if found.shape else ()
    scores = found.scores or (None,) * len(found.units)
    rows = [
        {"unit": unit_name(one, experts), "layer": one.layer, "number": one.unit, "score": score}
        for one, score in zip(found.units, scores, strict=True)
    ]
    if options.out is not None:
        with writing(options.out) as place, place.open("w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(["layer", "unit", "score"])
            lines.writerows([row["layer"], row["number"], "" if row["score"] is None else row["score"]] for row in rows)
    text = "\n".join(f"{row['unit']}" + ("" if row["score"] is None else f"  {row['score']:.4g}") for row in rows)
    return told(found) | {"units": rows}, text


def _delete(options: argparse.Namespace) -> tuple[object, str]:
    delete_set(options.cache, options.name)
    return {"name": options.name, "deleted": True}, f"{options.name} is deleted"


def _note(options: argparse.Namespace) -> tuple[object, str]:
    if options.text is None:
        raise UsageError("mmn units note wants a unit and a text, as mmn units note L14.u201 'beaks'; '' removes it")
    facts = _run(options).model
    unit = named_unit(options.name, facts.d_experts)
    require_units([unit], facts, "the note")
    write_note(options.cache, facts.fingerprint, unit, options.text)
    name = unit_name(unit, facts.d_experts)
    return {"unit": name, "note": options.text.strip()}, f"{name}: {'noted' if options.text.strip() else 'no note'}"


def _notes(options: argparse.Namespace) -> tuple[object, str]:
    facts = _run(options).model
    found = {unit_name(one, facts.d_experts): text for one, text in notes(options.cache, facts.fingerprint).items()}
    return found, "\n".join(f"{unit}: {printable(text)}" for unit, text in found.items()) or "no notes yet"

"""`--units FILE|NAME`, which every study takes as a selection: the set that it means, and what is to be said of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mmn.core import Run
from mmn.errors import UsageError
from mmn.units.kept import find_set
from mmn.units.sets import UnitSet, fitting

WHAT = "a saved set of units (mmn units), or a .csv or .parquet file of layer,unit[,score]"


def add_units_option(parser: argparse.ArgumentParser, does: str) -> None:
    """The option of a command that has no other use for the word; `does` says what becomes of the set."""
    parser.add_argument("--units", metavar="FILE|NAME", help=f"{WHAT}: {does}")


def chosen_set(text: str | None, cache_path: Path, run: Run) -> UnitSet | None:
    """The set that `--units` names, which fits the run's model; None without the option.

    That it is another model's, of the same shape, is said on standard error.

    Raises:
        UsageError: no such set or file, or one of units that the model has not.
    """
    if text is None:
        return None
    chosen = find_set(cache_path, text, run.model)
    if note := fitting(chosen, run.model):
        print(f"mmn: note: {note}", file=sys.stderr)
    return chosen


def count_or_set(text: str) -> int | str:
    """The type of `--units N|FILE|NAME` of commands whose option was a number of units first."""
    if not text.lstrip("-").isdigit():
        return text
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1, nor a set of units")
    return int(text)


def require_without(options: argparse.Namespace, *names: str) -> None:
    """Raises `UsageError` where options were given that choose units in another way."""
    for name in names:
        if getattr(options, name.replace("-", "_")) is not None:
            raise UsageError(f"give --units or --{name}, not both: a set has its own units")


def told(chosen: UnitSet) -> dict[str, Any]:
    """A set as plain values of JSON."""
    return {
        "name": chosen.name,
        "label": chosen.label,
        "n_units": len(chosen.units),
        "model": chosen.model or None,
        "origin": dict(chosen.origin),
    }

"""`mmn annotate`: what the top units of a run write, and where they look, added to the run."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmn.cli import DONE, SOME_FAILED, add_common, print_json
from mmn.cli.cache import LATEST
from mmn.cli.score import _at_least, _load_into_database, _load_quietly, _words
from mmn.core import Run
from mmn.errors import CacheError, RunNotFoundError
from mmn.shards import find_runs, read_run


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser("annotate", help="decode a run's units and record where the top ones look")
    parser.add_argument("run", help=LATEST)
    parser.add_argument("--model", metavar="M", help="default: the run's, as it was named")
    parser.add_argument("--top", type=_at_least(1), default=10, metavar="N", help="units of each noun; default 10")
    parser.add_argument("--methods", metavar="A,B", help="rankings of the run; default: all but the random ones")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda")
    parser.add_argument("--progress", default="auto", choices=("auto", "json", "none"))
    add_common(parser, "annotate")


def run(options: argparse.Namespace) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    run_path, scored = _find_run(options.cache / "runs", options.run)
    methods = _words(options.methods, "--methods") if options.methods is not None else None
    from mmn.annotate import count
    from mmn.cli.progress import reporter
    from mmn.runs import Progress

    progress = reporter(options.progress)
    options.model = options.model or scored.model.name
    options.dtype = scored.settings.dtype  # the run's, whatever the device: other digits, other maps
    progress(Progress("model", message=options.model))
    started = time.monotonic()
    annotate_stoppably(_load_quietly(options), run_path, options.top, methods, progress)
    counts = count(run_path)
    progress(Progress("load"))
    note = _load_into_database(options.cache)
    seconds = round(time.monotonic() - started, 3)
    result = {"run_id": scored.run_id} | asdict(counts) | {"seconds": seconds, "database": note}
    _print_result(result, as_json=options.json)
    return SOME_FAILED if counts.n_failed else DONE


def annotate_stoppably(model: Any, run_path: Path, top: int, methods: Sequence[str] | None, progress: Any) -> None:
    """`annotate`, ended by SIGINT or SIGTERM as scoring is: with what was finished kept."""
    from mmn.annotate import annotate
    from mmn.engines.local import _stoppable

    with _stoppable():
        annotate(model, run_path, top, methods, progress)


def _find_run(runs_path: Path, text: str) -> tuple[Path, Run]:
    """The folder of the run that is called `text`, begun by it, or newest for `latest`. The database is not needed.

    Raises:
        RunNotFoundError: none, or more than one.
    """
    found: dict[Path, Run] = {}
    for path in find_runs([runs_path]):
        try:
            found[path], _ = read_run(path)
        except CacheError:
            if path.name == text:
                raise
    if text == "latest":
        newest = sorted(found.items(), key=lambda item: item[1].created_at)
        matching = dict(newest[-1:])
    else:
        matching = {path: one for path, one in found.items() if text and one.run_id.startswith(text)}
        matching = {path: one for path, one in matching.items() if one.run_id == text} or matching
    if len(matching) != 1:
        wrong = "more than one run begins with" if matching else "no run"
        there = ", ".join(sorted(one.run_id for one in (matching or found).values())[:20]) or "none yet"
        raise RunNotFoundError(f"{wrong} {text!r} in {runs_path}; there are: {there}")
    return next(iter(matching.items()))


def _print_result(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    failed = f", {result['n_failed']} pictures failed (mmn show {result['run_id']} lists them)"
    print(
        f"{result['run_id']}: {result['n_neurons']} units decoded, {result['n_looks']} looks, "
        f"{result['n_fields']} compared with nouns{failed if result['n_failed'] else ''}, {result['seconds']:.1f} s"
    )
    if result["database"] != "loaded":
        print(f"the database is {result['database']}")

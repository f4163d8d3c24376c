"""What commands that load a model share: their options, the run that they name, and loading into the database.

`score` makes a run; `annotate` and the other studies measure more of one (`add_run_options`, `open_scored_run`).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmn.cli.cache import LATEST
from mmn.cli.options import add_loading_options
from mmn.core import Run
from mmn.errors import CacheError, CacheLockedError, RunNotFoundError
from mmn.runs.plan import Progress, ProgressCallback
from mmn.runs.reopen import require_nouns
from mmn.runs.shards import check_place, copy_run, find_runs, read_run
from mmn.safety.atomic_files import require_folder
from mmn.specimen import RUN_PATHS


@dataclass(frozen=True)
class RunToExtend:
    """A scored run that a command measures more of; `load` loads its model, which takes seconds.

    `started` is when it was opened, of a clock that only its differences mean something of.
    """

    run: Run
    path: Path
    progress: ProgressCallback
    load: Callable[[], Any]
    started: float = field(default_factory=time.monotonic)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of a command that measures more of a scored run."""
    parser.add_argument("run", help=LATEST)
    parser.add_argument("--model", metavar="M", help="default: the run's, as it was named")
    add_loading_options(parser, revision="of --model; default: the run's commit")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda|mps")
    parser.add_argument("--progress", default="auto", choices=("auto", "json", "none"))


def open_scored_run(options: argparse.Namespace) -> RunToExtend:
    """The run that the options name, how to load its model, and how to report progress.

    Raises:
        RunNotFoundError: no such run in the cache, or more than one.
        UsageError: no caption of it holds a noun; known before the model is loaded.
        CacheError: nothing can be written to the cache.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    runs_path = options.cache / "runs"
    path, run = find_run([runs_path, *RUN_PATHS], options.run)
    require_nouns(run, path)
    require_folder(options.cache)
    if path in RUN_PATHS:
        path = copy_run(path, runs_path)  # what is measured of it is written to the cache
    from mmn.cli.progress import reporter

    progress = reporter(options.progress)

    def load() -> Any:
        name = options.model or run.model.name
        progress(Progress("model", message=name))
        revision = options.revision or (None if options.model else run.model.revision or None)
        return load_quietly(
            name, run.settings.dtype, options.device, revision, options.device_map
        )  # the run's dtype and commit

    return RunToExtend(run, path, progress, load)


def load_quietly(name: str, dtype: str, device: str, revision: str | None = None, device_map: str | None = None) -> Any:
    """The model, without the libraries' own progress bars and advice: standard error is for our progress.

    What was filled in for an older checkpoint is reported there, too.
    """
    from mmn.models.loading import load_model

    quieten()
    model = load_model(name, dtype, device, revision=revision, device_map=device_map)
    for sentence in model.filled:
        print(f"mmn: note: {sentence}", file=sys.stderr)
    return model


def quieten() -> None:
    """Turns the libraries' own progress bars and advice off."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def load_into_database(cache_path: Path) -> str:
    """Loads new shards; where the app holds the database, it loads them itself the next time that it looks."""
    from mmn.store import Store

    try:
        with Store.open(cache_path) as store:
            store.load_new_shards([cache_path / "runs"])
    except CacheLockedError:
        return "held by another process (the app?), which loads the new shards on its next look"
    return "loaded"


def find_run(runs_paths: Sequence[Path], text: str) -> tuple[Path, Run]:
    """The folder of the run that is called `text`, begun by it, or newest for `latest`. The database is not needed.

    Raises:
        RunNotFoundError: none, or more than one.
    """
    found: dict[str, tuple[Path, Run]] = {}
    for path in find_runs(runs_paths):
        try:
            run, _ = read_run(path)
            if path not in runs_paths:
                check_place(path, run)
            found.setdefault(run.run_id, (path, run))
        except CacheError:
            if path.name == text:
                raise
    if text == "latest":
        matching = sorted(found, key=lambda run_id: found[run_id][1].created_at)[-1:]
    else:
        matching = [run_id for run_id in found if run_id == text] or [
            run_id for run_id in found if text and run_id.startswith(text)
        ]
    if len(matching) != 1:
        wrong = "more than one run begins with" if matching else "no run"
        there = ", ".join(sorted(matching or found)[:20]) or "none yet"
        raise RunNotFoundError(f"{wrong} {text!r} in {runs_paths[0]}; there are: {there}")
    return found[matching[0]]

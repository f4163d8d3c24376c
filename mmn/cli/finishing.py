"""How a command that measured more of a run ends: what was found is loaded, asked of the database, and printed."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any

from mmn.cli import DONE, SOME_FAILED, print_json
from mmn.cli.running import RunToExtend, load_into_database
from mmn.counts import counted
from mmn.runs.plan import Progress


def finish(
    options: argparse.Namespace,
    scored: RunToExtend,
    found: Mapping[str, Any],
    summary: Callable[[], Mapping[str, Any]],
    tell: Callable[[dict[str, Any]], None],
) -> int:
    """Loads what was measured into the database, and prints it; returns the exit code, by the result's `n_failed`.

    Args:
        options: of the command.
        scored: the run.
        found: what the command itself knows of it.
        summary: what the database says of it; asked only where it could be loaded.
        tell: prints the result for people, where JSON was not asked for.
    """
    scored.progress(Progress("load"))
    result: dict[str, Any] = {"run_id": scored.run.run_id} | dict(found)
    result["database"] = load_into_database(options.cache)
    if is_loaded(result):
        result |= summary()
    result["seconds"] = round(time.monotonic() - scored.started, 3)
    print_json(result) if options.json else tell(result)
    return SOME_FAILED if result.get("n_failed") else DONE


def is_loaded(result: Mapping[str, Any]) -> bool:
    """Whether the database has what was measured: it has not while another process holds it."""
    return bool(result["database"] == "loaded")


def failed_words(result: Mapping[str, Any]) -> str:
    """`1 picture failed (mmn show RUN lists them)`; whether any did is to be asked first."""
    return f"{counted(result['n_failed'], 'picture')} failed (mmn show {result['run_id']} lists them)"


def tell_failed(result: Mapping[str, Any]) -> None:
    """How many pictures failed, where some did, and how to see them."""
    if result["n_failed"]:
        print(failed_words(result))

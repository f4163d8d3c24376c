"""`mmn app`: the dashboard in a browser. Further options go to Streamlit: `mmn app --server.port 8600`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

from mmn.cli import add_cache
from mmn.errors import UsageError

PACKAGE: Final = Path(__file__).parents[1]
PLACES: Final = (PACKAGE / "dashboard" / "app", PACKAGE.parent / "app")  # in an installed wheel, in a clone


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser("app", help="start the dashboard; other options go to Streamlit", description=__doc__)
    parser.set_defaults(passed_on=[])
    add_cache(parser, __name__)


def run(options: argparse.Namespace) -> NoReturn:
    """Becomes the server: signals reach it, and its exit code is ours."""
    command = [sys.executable, "-m", "streamlit", "run", str(entry()), *options.passed_on]
    environment = os.environ | {"MMN_CACHE": str(options.cache.expanduser().absolute())}
    os.execve(sys.executable, command, environment)  # noqa: S606


def entry() -> Path:
    """The script that Streamlit runs.

    Raises:
        UsageError: the dashboard is not beside this copy of the library.
    """
    for folder in PLACES:
        if (folder / "main.py").is_file():
            return folder / "main.py"
    raise UsageError(f"no dashboard in {' or '.join(map(str, PLACES))}: install mmn from its wheel, or use a clone")

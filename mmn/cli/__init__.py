"""The same work from a terminal: `mmn COMMAND`.

Results go to standard output (`--json`: one JSON object and nothing else), progress to standard error. Exit 0 all
done · 1 done, but some pictures failed (all of them: the run's status is `failed`, too) · 2 bad usage or input, said in
one line · 130 cancelled.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from mmn import __version__
from mmn.errors import Cancelled, MmnError, UsageError
from mmn.studies.registry import STUDIES

DONE, SOME_FAILED, BAD_INPUT, CANCELLED = 0, 1, 2, 130
MODULES = (
    *(study.command for study in STUDIES if study.command),
    "mmn.cli.cache",
    "mmn.cli.units",
    "mmn.cli.figure",
    "mmn.cli.pins",
    "mmn.cli.report",
    "mmn.cli.model",
    "mmn.cli.app",
)  # in the order of `mmn --help`


class _Help(argparse.HelpFormatter):
    """Breaks lines between words alone: a name with hyphens stays whole, to be found and copied."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class _RawHelp(_Help, argparse.RawDescriptionHelpFormatter):
    """Which leaves the lines of a description as they are, too."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, through the same door as every other error."""

    def __init__(self, **options: Any) -> None:
        is_raw = options.get("formatter_class") is argparse.RawDescriptionHelpFormatter
        super().__init__(**(options | {"formatter_class": _RawHelp if is_raw else _Help}))

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = parse(words)
        return importlib.import_module(options.module).run(options)
    except (Cancelled, KeyboardInterrupt) as error:
        _report(words, "Cancelled", str(error) or "cancelled; what was finished is kept")
        return CANCELLED
    except MmnError as error:
        _report(words, type(error).__name__, str(error))
        return BAD_INPUT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `mmn export … | head` is no error
        return DONE


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options of a command line. What a command does not know is an error, unless it passes that on (`app`)."""
    parser = build_parser()
    options, others = parser.parse_known_args(words)
    if others and "passed_on" not in options:
        raise UsageError(f"unrecognized arguments: {' '.join(others)} (see mmn {options.command} --help)")
    options.passed_on = others
    _require_values(words, getattr(options, "may_be_empty", ()))
    return options


def _require_values(words: Sequence[str], may_be_empty: Sequence[str]) -> None:
    """Refuses `--noun ""`, as a script gives it whose variable is not set: it would be taken for all nouns, or `.`.

    Args:
        words: of the command line.
        may_be_empty: options for which nothing is a value (a parser's default of that name).

    Raises:
        UsageError: an option without its value.
    """
    for before, word in zip(["", *words], words, strict=False):
        option = before if word == "" else word.removesuffix("=") if word.endswith("=") else ""
        if option.startswith("--") and "=" not in option and option not in may_be_empty:
            raise UsageError(f"{option} is empty: give it a value, or leave it out")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mmn", description=__doc__.splitlines()[0] if __doc__ else None, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"mmn {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for module in MODULES:
        importlib.import_module(module).add_parsers(commands)
    return parser


def add_common(parser: argparse.ArgumentParser, module: str) -> None:
    """The options of every command that prints something; `module` is the one that runs it."""
    add_cache(parser, module)
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output, nothing else")


def add_cache(parser: argparse.ArgumentParser, module: str) -> None:
    """The option that every command has; `module` is the one that runs it."""
    parser.allow_abbrev = False
    usual = Path(os.environ.get("MMN_CACHE") or "cache")  # as the dashboard's
    parser.add_argument("--cache", type=Path, default=usual, metavar="DIR", help="default: $MMN_CACHE, else cache/")
    parser.set_defaults(module=module)


def print_json(values: object) -> None:
    """One line on standard output; what is not known (NaN, as an interval of too few pictures) or finite is null."""
    print(json.dumps(_with_null(values), ensure_ascii=False, default=str, allow_nan=False))


def _with_null(values: object) -> object:
    if isinstance(values, dict):
        return {name: _with_null(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_with_null(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _report(words: Sequence[str], error: str, message: str) -> None:
    """One line on standard error; with `--json` an object on standard output, too."""
    line = " ".join(message.split())
    if "--json" in words:
        print_json({"error": error, "message": line})
    print(f"mmn: {line}", file=sys.stderr)

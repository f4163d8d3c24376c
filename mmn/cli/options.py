"""Options that several commands have, and their values: lists, numbers, sizes as numbers or shares of all units.

Every function says of a wrong value which option it was given to, and what was expected.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

from mmn.core import MOST_SEED
from mmn.errors import UsageError
from mmn.view import LAYERS


def add_loading_options(
    parser: argparse.ArgumentParser, revision: str = "of a hub id; default: its main branch"
) -> None:
    """How a model is loaded; `revision` says which one is meant without the option."""
    parser.add_argument("--revision", metavar="REV", help=f"branch, tag or commit {revision}")
    parser.add_argument(
        "--device-map",
        choices=("auto",),
        help=(
            "put decoder layers that one GPU has no room for on the next GPUs or in memory; needs pip install "
            "accelerate"
        ),
    )


def entries(text: str, option: str, example: str = "contribution") -> tuple[str, ...]:
    """The distinct entries of `A,B`.

    Raises:
        UsageError: the list is empty.
    """
    found = tuple(dict.fromkeys(entry.strip() for entry in text.split(",") if entry.strip()))
    if not found:
        raise UsageError(f"{option} is empty; for example {option} {example}")
    return found


def number(text: str, option: str) -> float:
    """A number that is finite.

    Raises:
        UsageError: it is not a number, or as good as none: nan, inf.
    """
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise UsageError(f"{option}: {text!r} is not a number")
    return found


def numbers(text: str, option: str, example: str = "1,2.5") -> list[float]:
    """The numbers of `1,2.5`; raises `UsageError` like `entries` and `number`."""
    return [number(entry, option) for entry in entries(text, option, example)]


def sizes(
    ks: str | None, shares: str | None, n_units: int, least: int = 1, whose: str = "the model's units"
) -> tuple[int, ...] | None:
    """Numbers of units from `--ks` or, as shares of all, from `--shares`, in ascending order; None for neither.

    Raises:
        UsageError: both, no whole numbers, no shares, less than `least` or more than there are.
    """
    if ks is not None and shares is not None:
        raise UsageError("give --ks or --shares, not both")
    if ks is not None:
        given = numbers(ks, "--ks", "43,100")
        if wrong := [k for k in given if k != int(k) or not least <= k <= n_units]:
            raise UsageError(f"--ks {wrong[0]:g}: expected whole numbers from {least} to {n_units}, {whose}")
        return tuple(sorted({int(k) for k in given}))
    if shares is None:
        return None
    given = numbers(shares, "--shares", "0.014,0.1")
    if wrong := [share for share in given if not 0 <= share <= 1 or (share == 0 and least)]:
        above = "above 0 and up to 1" if least else "from 0 to 1"
        raise UsageError(f"--shares {wrong[0]:g}: expected shares of all units, {above}")
    return tuple(sorted({max(least, round(share * n_units)) for share in given}))


def draws() -> Callable[[str], int]:
    """The type of `--draws`: more than a thousand take ages, and tell nothing that a thousand did not."""
    return at_least(1, 1000)


def seed() -> Callable[[str], int]:
    """The type of `--seed`: what every generator of random numbers takes, and a table holds."""
    return at_least(0, MOST_SEED)


def require_given_with(options: argparse.Namespace, needed: str, *names: str) -> None:
    """Refuses options that say how `needed` is done, where that is not asked for: they would look as if they held.

    Args:
        options: of a command, in which what was not given is None.
        needed: an option, as `--ablate`; a switch.
        names: of others, as `draws`.

    Raises:
        UsageError: one of them was given alone.
    """
    if getattr(options, needed.removeprefix("--").replace("-", "_")):
        return
    for name in names:
        if getattr(options, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is of {needed}: give that, too")


def at_least(least: int, most: int = 10**9) -> Callable[[str], int]:
    """The type of an option that is a whole number from `least` to `most`."""

    def whole(text: str) -> int:
        if not text.lstrip("-").isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return whole


def layer_range(text: str) -> tuple[int, int]:
    """The type of an option that names layers as `--layers` of a figure does: `24-29`, or `24` for that one alone."""
    try:
        first, last = LAYERS.read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return first, last

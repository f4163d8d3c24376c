"""Which of several a figure is drawn of: what was asked for, or the page's own default, which is then said.

Nothing is taken in silence: `options.taken` gathers what was, for `figure` to tell. And no filter is ignored: one that
a figure does not read is refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeVar

from mmn.errors import UsageError
from mmn.names import default_method

One = TypeVar("One", str, int)

FLAGS: Final[Mapping[str, str]] = {  # where argparse keeps it -> what people write
    "methods": "--methods",
    "ks": "--ks",
    "shares": "--shares",
    "concepts": "--concepts",
    "layers": "--layers",
    "quantity": "--quantity",
    "units": "--units",
    "no_control": "--no-control",
    "image": "--image",
    "noun": "--noun",
    "rival": "--rival",
    "grey": "--grey",
    "neuron": "--neuron",
    "measure": "--measure",
    "against": "--against",
    "nouns": "--nouns",
    "metric": "--metric",
    "sigma_unit": "--sigma-unit",
    "most": "--most",
    "pictures": "--pictures",
    "found_on": "--found-on",
    "edit": "--edit",
}


def refuse_unread(options: argparse.Namespace, read: Collection[str], name: str) -> None:
    """Refuses filters that the figure does not read: it would be drawn of everything and look as if they held.

    Raises:
        UsageError: such a filter was given.
    """
    given = [flag for key, flag in FLAGS.items() if getattr(options, key, None) not in (None, False, "")]
    if unread := [flag for flag in given if flag not in {FLAGS[key] for key in read}]:
        those = ", ".join(FLAGS[key] for key in read) or "no filter"
        raise UsageError(f"figure {name} does not read {unread[0]}; it reads {those}")


def one_of(
    options: argparse.Namespace, what: str, flag: str, asked: One | None, there: Sequence[One], usual: One | None = None
) -> One:
    """The one asked for, or `usual` (the first of `there`), which is said where there are others.

    Raises:
        UsageError: it is not there; nothing is.
    """
    known = ", ".join(map(str, there)) or "none (run the experiment first)"
    if asked is not None:
        if asked not in there:
            raise UsageError(f"{flag} {asked}: measured were {known}")
        return asked
    if not there:
        raise UsageError(f"{options.name} draws one {what}; measured were: {known}")
    chosen = there[0] if usual is None else usual
    if len(there) > 1:
        options.taken[what] = chosen
        others = ", ".join(str(one) for one in there if one != chosen)
        options.told.append(f"{what} {chosen}; there are also {others} ({flag})")
    return chosen


def one_method(options: argparse.Namespace, asked: Sequence[str], there: Sequence[str]) -> str:
    """The score asked for, or the default of those that were measured, which is said where there are others.

    Raises:
        UsageError: several were asked for, one that was not measured, or none was.
    """
    known = ", ".join(there) or "none (run the experiment first)"
    if len(asked) > 1 or not there:
        raise UsageError(f"{options.name} draws one score; give --methods with one of those measured: {known}")
    return one_of(options, "score", "--methods", asked[0] if asked else None, list(there), default_method(there))

"""A study is a question that is measured on a scored run: declared once, in its folder's `study.py`.

What the rest of the program knows of it is derived from the declaration: the command line and its progress, the app's
jobs and pages, the tables of shards and of the database, the figures, the docs. A declaration imports nothing heavy:
what measures, draws or holds columns is named as `module` or `module:name`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from mmn.figures.figure import Figure

RELATED: Final = "Related methods"  # a section of the navigation: what others than the two papers have published


@dataclass(frozen=True)
class Page:
    """A page of the app: `pages/<name>.py`, or a script anywhere else by its path."""

    name: str
    title: str
    icon: str
    question: str  # the first sentence of the page
    section: str = ""  # of the navigation; "" is the first


@dataclass(frozen=True)
class Measurement:
    """A job that a page offers: `mmn WORDS` of a run.

    Attributes:
        words: the command, then what follows the run's id.
        note: what it does, and how long it may take.
        table: that it fills; a run without rows in it has not been measured.
        kind: the value of that table's column `kind`, where it has several.
        button: that starts it.
    """

    words: tuple[str, ...]
    note: str
    table: str
    kind: str = ""
    button: str = "Measure"

    def of(self, run_id: str) -> list[str]:
        """The command line of a run."""
        return [self.words[0], run_id[:8], *self.words[1:]]


@dataclass(frozen=True)
class Study:
    """A question about a scored run.

    Attributes:
        name: of its folder.
        question: that it answers.
        command: the module of its command (`add_parsers`, `run`), "" for none.
        stages: its stages of progress, each in words.
        tables: `module:TABLES`, a tuple of `Table`, "" for none.
        figures: in the order in which they are listed.
        pages: that show it.
        measurements: that its pages offer, by a name.
        bundled: the commands that measure it on the bundled run.
    """

    name: str
    question: str
    command: str = ""
    stages: Mapping[str, str] = field(default_factory=dict)
    tables: str = ""
    figures: tuple[Figure, ...] = ()
    pages: tuple[Page, ...] = ()
    measurements: Mapping[str, Measurement] = field(default_factory=dict)
    bundled: tuple[str, ...] = ()

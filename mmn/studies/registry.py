"""All studies, and what the rest of the program takes from their declarations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mmn.errors import UsageError
from mmn.figures.figure import Figure
from mmn.lazily import load
from mmn.studies import MODULES
from mmn.studies.study import Study

STUDIES: Final[tuple[Study, ...]] = tuple(load(f"{module}:STUDY") for module in MODULES)
FIGURES: Final[Mapping[str, Figure]] = {figure.name: figure for study in STUDIES for figure in study.figures}
STAGES: Final[Mapping[str, str]] = {
    "start": "starting",
    "list": "looking at the pictures",
    "model": "loading the model",
    **{stage: words for study in STUDIES for stage, words in study.stages.items()},
    "load": "loading tables",
    "bundle": "writing the run as one file",
    "report": "drawing the report",
}  # of a command's progress, in words


def study(name: str) -> Study:
    """The study of a name."""
    return next(one for one in STUDIES if one.name == name)


def find_figure(name: str) -> Figure:
    """The figure of a name.

    Raises:
        UsageError: there is none; the message lists them.
    """
    if name not in FIGURES:
        raise UsageError(f"no figure {name!r}; there are {', '.join(FIGURES)}")
    return FIGURES[name]

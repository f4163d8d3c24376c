"""`--synonyms`: which word means which object, for a run."""

from __future__ import annotations

import argparse
from typing import Any

from mmn.cli.running import RunToExtend
from mmn.runs.plan import Progress


def add_synonyms_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--synonyms",
        metavar="FILE",
        help="which word means which object, for this run from now on: CSV lines of word,object, added to the "
        "bundled list (COCO's 80 objects); only:FILE replaces the list, none removes it",
    )


def add_asked_synonyms(options: argparse.Namespace, scored: RunToExtend) -> Any:
    """Gives the run the list of `--synonyms`, and tells it; None where none was asked for."""
    if options.synonyms is None:
        return None
    from mmn.runs.added_later import add_synonyms

    added = add_synonyms(scored.path, options.synonyms)
    scored.progress(Progress("annotate", message=str(added)))
    return added

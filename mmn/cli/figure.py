"""`mmn figure NAME`: any figure of the dashboard as a file, with the filters that its page has."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mmn.cli import DONE, add_common, print_json
from mmn.cli.files import writing
from mmn.cli.options import number
from mmn.figures.figure import draw, require_taken
from mmn.specimen import RUN_PATH
from mmn.studies.registry import FIGURES, find_figure
from mmn.view import SPELLINGS, View, flag_of

_WIDE = 24  # letters of a figure's name and what follows it


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser(
        "figure",
        help="a chart of the dashboard as a file",
        description=_listed(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help=", ".join(FIGURES))
    parser.add_argument("--out", required=True, type=Path, metavar="F.svg|pdf|png|json|csv")
    parser.add_argument("--width", default="single", metavar="single|double|INCHES")
    for name, spelling in SPELLINGS.items():
        if spelling.is_switch:
            parser.add_argument(flag_of(name), dest=name, action="store_true", help=spelling.help)
        else:
            parser.add_argument(
                flag_of(name),
                dest=name,
                required=name == "run",
                metavar=spelling.kind.metavar,
                choices=spelling.kind.options or None,
                help=spelling.help,
            )
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    from mmn.figures.export import export_chart, unshown
    from mmn.figures.glyphs import remedy
    from mmn.store import Store

    figure = find_figure(options.name)
    view = View.from_flags(vars(options))
    require_taken(figure, view)
    with Store.open(options.cache) as store:
        store.load_new_shards([store.runs_path, RUN_PATH])
        drawn = draw(figure, store, view)
    width = options.width if options.width in ("single", "double") else number(options.width, "--width")
    with writing(options.out):
        export_chart(drawn.chart, drawn.rows.data, options.out, width)
    form = options.out.suffix.lstrip(".").lower()
    for line in (*drawn.asked.told, remedy(unshown(drawn.chart, form, width), form)):
        if line:
            print(f"mmn figure {figure.name}: {line}", file=sys.stderr)
    if options.json:
        told = {"run_id": drawn.asked.run_id, "out": str(options.out), "taken": drawn.asked.taken}
        print_json({"figure": figure.name, **told})
    else:
        print(options.out)
    return DONE


def _listed() -> str:
    """The figures, each with its question and the filters that it reads."""
    lines = [__doc__ or "", ""]
    for figure in FIGURES.values():
        lines.append(f"{figure.name:{_WIDE}}{figure.question}")
        if figure.takes:
            lines.append(" " * _WIDE + " ".join(flag_of(name) for name in SPELLINGS if name in figure.takes))
    lines += [
        "",
        "A filter that a figure does not read is refused. Where a run has several of what a figure draws one of, the",
        "line on standard error says which was taken and what takes another.",
    ]
    return "\n".join(lines)

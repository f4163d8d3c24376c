"""`mmn figure NAME`: any figure of the dashboard as a file, with its page's filters; `--recipe F` makes one again."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmn.cli import DONE, SOME_FAILED, add_common, print_json
from mmn.cli.files import writing
from mmn.cli.options import number
from mmn.errors import UsageError
from mmn.figures.figure import Drawn, draw, require_taken
from mmn.figures.presets import PPI, PRESETS, Layout
from mmn.specimen import RUN_PATHS
from mmn.studies.registry import FIGURES, find_figure
from mmn.view import SPELLINGS, View, flag_of

if TYPE_CHECKING:
    from mmn.figures.recipes import Recipe

_WIDE = 24  # letters of a figure's name and what follows it
_LAYOUT = {"preset": "--preset", "width": "--width", "dpi": "--dpi"}


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser(
        "figure",
        help="a chart of the dashboard as a file",
        description=_listed(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help=", ".join(FIGURES))
    parser.add_argument("--out", type=Path, metavar="F.svg|pdf|png|json|csv|parquet|tex")
    parser.add_argument("--preset", choices=list(PRESETS), help="columns and letters of a venue; default plain")
    parser.add_argument("--width", metavar="single|double|INCHES", help="default single")
    parser.add_argument("--dpi", type=int, choices=PPI, help="of a PNG; default 300")
    parser.add_argument("--caption", action="store_true", help="print a draft of the caption (--out may be left out)")
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="make this file, or that of this recipe, again")
    for name, spelling in SPELLINGS.items():
        if spelling.is_switch:
            parser.add_argument(flag_of(name), dest=name, action="store_true", help=spelling.help)
        else:
            parser.add_argument(
                flag_of(name),
                dest=name,
                metavar=spelling.kind.metavar,
                choices=spelling.kind.options or None,
                help=spelling.help,
            )
    add_common(parser, __name__)


def run(options: argparse.Namespace) -> int:
    if options.recipe is not None:
        return _again(options)
    if not options.name or not options.run or not (options.out or options.caption):
        raise UsageError("give a figure's NAME, --run RUN and --out FILE (see mmn figure --help)")
    view, figure = View.from_flags(vars(options)), find_figure(options.name)
    require_taken(figure, view)
    drawn = _drawn(options.cache, figure.name, view)
    layout = _layout(options)
    if options.out:
        _save(drawn, options.out, layout)
    _tell(drawn, _remarks(drawn, options.out, layout), options)
    return DONE


def _again(options: argparse.Namespace) -> int:
    """Makes the file of a recipe, and says where it is not the same."""
    from mmn.figures.carriers import read_recipe
    from mmn.figures.recipes import differences

    recipe = read_recipe(options.recipe)
    _require_alone(options, recipe)
    view = View.from_json(json.dumps(dict(recipe.view)))
    require_taken(find_figure(recipe.figure), view)
    drawn = _drawn(options.cache, recipe.figure, view)
    if recipe.kept is not None:
        drawn = _part(drawn, recipe)
    told = differences(recipe, _save(drawn, options.out, recipe.layout))
    lines = ["this is not the same file: " + "; ".join(told)] if told else []
    _tell(drawn, lines, options, {"same": not told, "differences": told})
    return SOME_FAILED if told else DONE


def _require_alone(options: argparse.Namespace, recipe: Recipe) -> None:
    """A recipe says all: what else is given would look as if it held.

    Raises:
        UsageError: something is; there is no `--out` or one of another format.
    """
    others = [flag_of(name) for name in SPELLINGS if getattr(options, name)]
    others += [flag for name, flag in _LAYOUT.items() if getattr(options, name)]
    if others or options.name:
        raise UsageError(f"--recipe says it all: leave {others[0] if others else options.name} out")
    if options.out is None or options.out.suffix.lstrip(".").lower() != recipe.form:
        raise UsageError(f"this recipe is of a .{recipe.form} file: give --out FILE.{recipe.form}")


def _part(drawn: Drawn, recipe: Recipe) -> Drawn:
    """The panel that a recipe is of.

    Raises:
        UsageError: there is no such panel.
    """
    assert recipe.kept is not None
    column, values = recipe.kept
    part = drawn.where(column, *values) if column in drawn.rows.data else None
    if part is None or part.rows.data.empty:
        raise UsageError("the recipe is of one panel, and nothing is there to be drawn of it")
    return part


def _drawn(cache: Path, name: str, view: View) -> Drawn:
    from mmn.store import Store

    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path, *RUN_PATHS])
        return draw(find_figure(name), store, view)


def _layout(options: argparse.Namespace) -> Layout:
    width = options.width or "single"
    return Layout(
        options.preset or "plain",
        width if width in ("single", "double") else number(width, "--width"),
        options.dpi or PPI[0],
    )


def _save(drawn: Drawn, out: Path, layout: Layout) -> Recipe:
    from mmn.figures.saving import save_figure

    with writing(out):
        return save_figure(drawn, out, layout)


def _remarks(drawn: Drawn, out: Path | None, layout: Layout) -> list[str]:
    """What was chosen of several, and what a reader of the file should know."""
    from mmn.figures.export import unshown
    from mmn.figures.glyphs import remedy

    form = out.suffix.lstrip(".").lower() if out else ""
    return [*drawn.asked.told, remedy(unshown(drawn.chart, form, layout), form)]


def _tell(drawn: Drawn, lines: list[str], options: argparse.Namespace, more: dict[str, Any] | None = None) -> None:
    from mmn.figures.captions import caption

    for line in filter(None, lines):
        print(f"mmn figure {drawn.figure.name}: {line}", file=sys.stderr)
    if options.json:
        out = None if options.out is None else str(options.out)
        told = {"figure": drawn.figure.name, "run_id": drawn.asked.run_id, "out": out, "taken": drawn.asked.taken}
        print_json({**told, "caption": caption(drawn), **(more or {})})
        return
    if options.out:
        print(options.out)
    if options.caption:
        print(caption(drawn))


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

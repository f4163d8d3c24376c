"""`mmn figure NAME`: any figure of the dashboard as a file, with its page's filters; `--recipe F` makes one again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmn.cli import DONE, SOME_FAILED, add_common, print_json
from mmn.cli.files import explained, require_out
from mmn.cli.options import number
from mmn.errors import UsageError
from mmn.figures.figure import Drawn, draw, require_taken
from mmn.figures.presets import DOUBLE, PPI, PRESETS, SINGLE, Layout
from mmn.specimen import RUN_PATHS
from mmn.studies.registry import FIGURES, find_figure
from mmn.view import SPELLINGS, View, flag_of

if TYPE_CHECKING:
    from mmn.figures.recipes import Recipe
    from mmn.store import Store

_WIDE = 2 + max(map(len, FIGURES))  # letters of a figure's name and what follows it
_LAYOUT = {"preset": "--preset", "width": "--width", "dpi": "--dpi"}


def add_parsers(commands: Any) -> None:
    parser = commands.add_parser(
        "figure",
        help="write a chart of the dashboard as a file",
        description=_listed(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help=", ".join(FIGURES))
    parser.add_argument("--out", type=Path, metavar="F.svg|pdf|png|json|csv|parquet|tex")
    add_layout(parser, SINGLE)
    parser.add_argument("--caption", action="store_true", help="print a draft of the caption (--out may be left out)")
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="make this file, or the file of this recipe, again")
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


def add_layout(parser: argparse.ArgumentParser, usual: str) -> None:
    """What lays a file out; `usual` is the width without `--width`."""
    parser.add_argument(
        "--preset", choices=list(PRESETS), help="column widths and font sizes of a venue; default plain"
    )
    parser.add_argument("--width", metavar="single|double|INCHES", help=f"default {usual}")
    parser.add_argument("--dpi", type=int, choices=PPI, help="resolution of a PNG; default 300")


def run(options: argparse.Namespace) -> int:
    if options.recipe is not None:
        return _again(options)
    figure = find_figure(options.name) if options.name else None
    if figure is None or not (options.run or figure.subject) or not (options.out or options.caption):
        raise UsageError("give a figure's NAME, --run RUN and --out FILE (see mmn figure --help)")
    require_out(options.out)
    view = View.from_flags(vars(options))
    require_taken(figure, view)
    drawn = _drawn(options.cache, figure.name, view)
    layout = layout_of(options)
    if options.out:
        _save(drawn, options.out, layout)
    _tell(drawn, _remarks(drawn, options.out, layout), options)
    return DONE


def _again(options: argparse.Namespace) -> int:
    """Makes the file of a recipe, and says where it is not the same."""
    from mmn.cli.pins import grid_again
    from mmn.figures.carriers import read_recipe
    from mmn.figures.recipes import GridRecipe, differences
    from mmn.figures.replay import redrawn

    recipe = read_recipe(options.recipe)
    _require_alone(options, recipe.form)
    if isinstance(recipe, GridRecipe):
        return grid_again(options, recipe)
    require_out(options.out)
    figure = find_figure(recipe.figure)
    with opened(options.cache) as store:
        drawn = redrawn(recipe, figure, store)
    told = differences(recipe, _save(drawn, options.out, recipe.layout))
    lines = [f"this is not the same file: {'; '.join(told)}"] if told else []
    _tell(drawn, lines, options, {"same": not told, "differences": told})
    return SOME_FAILED if told else DONE


def _require_alone(options: argparse.Namespace, form: str) -> None:
    """A recipe says all: what else is given would look as if it held.

    Raises:
        UsageError: something is; there is no `--out` or one of another format.
    """
    others = [flag_of(name) for name in SPELLINGS if getattr(options, name)]
    others += [flag for name, flag in _LAYOUT.items() if getattr(options, name)]
    if others or options.name:
        raise UsageError(f"--recipe says it all: leave {others[0] if others else options.name} out")
    if options.out is None or options.out.suffix.lstrip(".").lower() != form:
        raise UsageError(f"this recipe is of a .{form} file: give --out FILE.{form}")


def _drawn(cache: Path, name: str, view: View) -> Drawn:
    with opened(cache) as store:
        return draw(find_figure(name), store, view)


@contextmanager
def opened(cache: Path) -> Iterator[Store]:
    """The results of a cache, with what was scored since."""
    from mmn.store import Store

    with Store.open(cache) as store:
        store.load_new_shards([store.runs_path, *RUN_PATHS])
        yield store


def layout_of(options: argparse.Namespace, usual: str = SINGLE) -> Layout:
    """The layout that `--preset`, `--width` and `--dpi` choose; `usual` is the width without."""
    width = options.width or usual
    return Layout(
        options.preset or "plain",
        width if width in (SINGLE, DOUBLE) else number(width, "--width"),
        options.dpi or PPI[0],
    )


def _save(drawn: Drawn, out: Path, layout: Layout) -> Recipe:
    from mmn.figures.saving import save_figure

    with explained(out):
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
        "A filter that a figure does not read is refused. If a figure shows one of several measurements, a line on",
        "standard error says which, and which option shows another.",
    ]
    return "\n".join(lines)

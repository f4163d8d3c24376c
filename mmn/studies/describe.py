"""`docs/figures.md`, from the registry: `python -m mmn.studies.describe > docs/figures.md`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mmn.figures.figure import Figure
from mmn.figures.presets import PRESETS
from mmn.studies.registry import STUDIES
from mmn.studies.study import Study
from mmn.view import SPELLINGS, flag_of

_HEAD = """# Figures

Every chart of the dashboard, also as a file: `mmn figure NAME --run RUN --out F.svg` (or `.pdf`, `.png`, `.json` for
Vega-Lite, `.csv` and `.parquet` for its rows, and `.tex`, a table of booktabs, where *also a table* stands below). A
filter that a figure does not read is refused; where a run has several of what a figure draws one of, a line on
standard error says which was taken. `python -m mmn.studies.describe` wrote this page.

## For a paper

`--preset` takes a venue's columns and letters, `--width` one column or two (or inches), `--dpi` 300 or 600 for a PNG.
No word is cut off or lies over another in the narrowest column; series differ in shape, dash, place or lightness,
too. A chart of many concepts is as long as they are many: `--concepts` chooses. A PDF has its fonts in it, and the
text of an SVG is text.
"""
_AFTER_PRESETS = """
`--caption` prints a draft of the caption: title, sample, interval, control, k as number and share, the scores with
their definitions, model, revision or fingerprint, run and program. The page's *Export* shows the same.

## A second run

`--compare RUN` puts the same figure of another run (B) below that of the first (A), on the same scales, and where both
hold the same pictures (by fingerprint) the mean difference B − A, picture by picture, with its 95 % interval. Files of
rows tell the runs apart in the column `run`; rows of B carry `b_minus_a`, its ends and `n_shared`. A line on standard
error, the page and the caption say what the runs differ in, and what cannot be compared: a figure that B was not
measured for, no common picture, a figure that is no mean over pictures, layers of models that have not as many. Of
models that have not as many units, k is compared as a share of all.

    mmn figure degradation --run latest --compare 3f2a9c1b --out both.pdf

## Again

Every file carries its recipe: the figure, what was looked at, run and model, layout, versions, and digests of the
rows' columns and of the file. It is in an SVG's `<metadata>`, a PDF's information, a PNG's text chunk and
`usermeta.mmn` of the Vega-Lite; beside a csv, parquet or tex it is `NAME.recipe.json`.

    mmn figure --recipe F.pdf --out again.pdf

makes the same bytes of the same cache, on another machine, too, that has the same versions. Where something differs,
the file is made of what is here, a line on standard error says what differs (model, rows, columns, versions, fonts),
and the command ends with 1. Rows are rounded to nine digits.

## Several in a paper

*Pin* beside *Export* keeps a figure, as it is filtered, for the page *Figures*: there it is moved, captioned, and drawn
into one grid with letters, (a), (b), …, in a venue's columns. A pin is a recipe: it holds no row, is drawn of what its
run holds now, and says so where that has changed or is gone. Pins are in `pins.json` of the cache, for every window.

    mmn pins                                    # the list; --add FILE, --remove ID
    mmn pins --out figures.pdf --preset cvpr    # or .svg, .png: the grid; --columns N
    mmn pins --out figures.zip                  # the grid, and each figure as svg, pdf, png and csv, with its caption

The recipe of each file in the zip, the grid's too, makes it again: `mmn figure --recipe grid.pdf --out again.pdf`.
"""


def figures_page(studies: Sequence[Study] = STUDIES) -> str:
    """The page in Markdown: the figures of each study, then the filters."""
    lines = [_HEAD, *_presets(), _AFTER_PRESETS]
    for study in studies:
        if study.figures:
            lines += [f"## {study.name.capitalize()}", "", study.question, ""]
            for figure in study.figures:
                lines += [*_figure(figure), ""]
    return "\n".join([*lines, *_filters()]) + "\n"


def _presets() -> Iterator[str]:
    yield from (
        "| `--preset` | single, in | double, in | letters from, pt | caption, pt | source |",
        "|---|---|---|---|---|---|",
    )
    for one in PRESETS.values():
        sizes = f"{one.single_in:.2f} | {one.double_in:.2f} | {one.size:g} | {one.caption_pt:g}"
        yield f"| `{one.name}` | {sizes} | {one.source} |"


def _figure(figure: Figure) -> Iterator[str]:
    flags = ", ".join(f"`{flag_of(name)}`" for name in SPELLINGS if name in figure.takes)
    yield f"### `{figure.name}`"
    yield ""
    yield f"{figure.question[:1].upper()}{figure.question[1:]}. Filters: {flags or 'none'}."
    if figure.table:
        yield "Also a table."
    yield ""
    of = "" if figure.subject else " --run latest"
    yield f"    mmn figure {figure.name}{of} --out {figure.name}.svg"


def _filters() -> Iterator[str]:
    yield from ("## Filters", "", "Each is a field of `View`, a flag, and a parameter of a page's address.", "")
    yield from ("| field | flag | address | meaning |", "|---|---|---|---|")
    for name, spelling in SPELLINGS.items():
        kind = spelling.kind
        value = "" if spelling.is_switch else f" {kind.metavar or 'WORD'}"
        meaning = spelling.help.replace("%%", "%") + (f". One of {', '.join(kind.options)}" if kind.options else "")
        yield f"| `{name}` | `{flag_of(name)}{value}` | `?{spelling.parameter or name}=` | {meaning} |"


if __name__ == "__main__":
    print(figures_page(), end="")

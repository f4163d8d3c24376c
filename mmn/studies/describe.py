"""`docs/figures.md`, from the registry: `python -m mmn.studies.describe > docs/figures.md`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mmn.figures.figure import Figure
from mmn.figures.presets import PRESETS
from mmn.studies.registry import STUDIES
from mmn.studies.study import Study
from mmn.view import SPELLINGS, flag_of

_HEAD = """# Figures

`mmn figure NAME --run RUN --out F.svg` writes any chart of the dashboard as a file: `.svg`, `.pdf`, `.png`, `.json`
(Vega-Lite), `.csv` or `.parquet` (its rows), or `.tex` (a booktabs table, where *also a table* stands below). A filter
that a figure does not read is refused. If a figure shows one of several measurements, a line on standard error says
which. `python -m mmn.studies.describe` wrote this page.

## For a paper

`--preset` sets a venue's column widths and font sizes, `--width` one column or two (or inches), `--dpi` 300 or 600 for
a PNG. Even in the narrowest column no text is cut off or overlaps. Series differ in shape, dash, position or
lightness, not in colour alone. A chart with a row for each concept grows with their number; `--concepts` selects some.
A PDF embeds its fonts, and text in an SVG stays text.
"""
_AFTER_PRESETS = """
`--caption` prints a draft of the caption: title, sample, interval, control, k as a number and a share, the scores with
their definitions, model, revision or fingerprint, run and program. *Export* on a page shows the same draft.

## A second run

`--compare RUN` draws the same figure of another run (B) below that of the first (A), on the same scales. For pictures
that both runs have (by fingerprint) it adds the mean paired difference B − A with its 95 % interval. In files of rows
the column `run` tells the runs apart; rows of B have `b_minus_a`, its interval and `n_shared`. A line on standard
error, the page and the caption say how the runs differ and what cannot be compared: a figure that B has no data for,
runs without common pictures, a figure that is not a mean over pictures, layers of models of different depth. For
models with different numbers of units, k is compared as a share of all units.

    mmn figure degradation --run latest --compare 3f2a9c1b --out both.pdf

## The same figure again

Every file carries its recipe: the figure, its view, run and model, layout, versions, and digests of the rows' columns
and of the file. The recipe is in an SVG's `<metadata>`, a PDF's document information, a PNG's text chunk and
`usermeta.mmn` of the Vega-Lite; beside a csv, parquet or tex it is the file `NAME.recipe.json`.

    mmn figure --recipe F.pdf --out again.pdf

makes the same bytes from the same cache and versions, on any machine. If anything differs, the file is made from what
is there, a line on standard error says what differs (model, rows, columns, versions, fonts), and the exit code is 1.
Rows are rounded to nine digits.

## Several in a paper

*Pin* beside *Export* keeps a figure with its filters for the page *Figures*. There you order the pinned figures, edit
their captions, and draw them as one grid with letters (a), (b), … in a venue's columns. A pin is a recipe without
rows: it is drawn from what its run has now, and says if that has changed or is gone. Pins are in `pins.json` of the
cache, for every window.

    mmn pins                                    # the list; --add FILE, --remove ID
    mmn pins --out figures.pdf --preset cvpr    # or .svg, .png: the grid; --columns N
    mmn pins --out figures.zip                  # the grid, and each figure as svg, pdf, png and csv, with its caption

Each file in the zip, the grid too, has a recipe that makes it again: `mmn figure --recipe grid.pdf --out again.pdf`.
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
        "| `--preset` | single, in | double, in | smallest text, pt | caption, pt | source |",
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
    yield from ("## Filters", "", "Each filter is a field of `View`, a flag, and a parameter of a page's address.", "")
    yield from ("| field | flag | address | meaning |", "|---|---|---|---|")
    for name, spelling in SPELLINGS.items():
        kind = spelling.kind
        value = "" if spelling.is_switch else f" {kind.metavar or 'WORD'}"
        meaning = spelling.help.replace("%%", "%") + (f". One of {', '.join(kind.options)}" if kind.options else "")
        yield f"| `{name}` | `{flag_of(name)}{value}` | `?{spelling.parameter or name}=` | {meaning} |"


if __name__ == "__main__":
    print(figures_page(), end="")

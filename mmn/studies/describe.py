"""`docs/figures.md`, from the registry: `python -m mmn.studies.describe > docs/figures.md`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mmn.figures.figure import Figure
from mmn.studies.registry import STUDIES
from mmn.studies.study import Study
from mmn.view import SPELLINGS, flag_of

_HEAD = """# Figures

Every chart of the dashboard, also as a file: `mmn figure NAME --run RUN --out F.svg` (or `.pdf`, `.png`, `.json`, and
`.csv` for the data). A filter that a figure does not read is refused; where a run has several of what a figure draws
one of, a line on standard error says which was taken. `python -m mmn.studies.describe` wrote this page.
"""


def figures_page(studies: Sequence[Study] = STUDIES) -> str:
    """The page in Markdown: the figures of each study, then the filters."""
    lines = [_HEAD]
    for study in studies:
        if study.figures:
            lines += [f"## {study.name.capitalize()}", "", study.question, ""]
            for figure in study.figures:
                lines += [*_figure(figure), ""]
    return "\n".join([*lines, *_filters()]) + "\n"


def _figure(figure: Figure) -> Iterator[str]:
    flags = ", ".join(f"`{flag_of(name)}`" for name in SPELLINGS if name in figure.takes)
    yield f"### `{figure.name}`"
    yield ""
    yield f"{figure.question[:1].upper()}{figure.question[1:]}. Filters: {flags or 'none'}."
    yield ""
    yield f"    mmn figure {figure.name} --run latest --out {figure.name}.svg"


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

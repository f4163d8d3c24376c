"""A figure's rows as a table of a paper: LaTeX of the package booktabs, numbers with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import pandas as pd

from mmn.counts import counted
from mmn.errors import UsageError
from mmn.figures.figure import Column, Drawn
from mmn.figures.wording import written_out
from mmn.lazily import load

_SIGNS: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "−": "$-$",
    "÷": r"$\div$",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "∂": r"$\partial$",
    "Σ": r"$\Sigma$",
    "σ": r"$\sigma$",
    "γ": r"$\gamma$",
    "∩": r"$\cap$",
    "²": r"$^2$",
    "…": r"\ldots{}",
    "\u00a0": "~",
}
_MOST_ROWS: Final = 200  # more are no table of a paper


def booktabs(drawn: Drawn, caption: str) -> str:
    r"""The rows as a `table` environment; the document needs `\usepackage{booktabs}`.

    Raises:
        UsageError: the figure is no table, or is of too many rows.
    """
    figure, data = drawn.figure, drawn.written
    if not figure.table:
        raise UsageError(f"figure {figure.name} is no table: .csv and .parquet hold its rows")
    if len(data) > _MOST_ROWS:
        raise UsageError(f"a table of {counted(len(data), 'row')} fits no page: choose fewer, or .csv")
    columns = [one for one in drawn.columns if one.name in data and data[one.name].notna().any()]
    lines = [[_cell(row, column) for column in columns] for row in data.to_dict("records")]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex(caption)}}}",
            rf"\label{{tab:{figure.name}}}",
            rf"\begin{{tabular}}{{{''.join('l' if not one.form else 'r' for one in columns)}}}",
            r"\toprule",
            rf"{' & '.join(latex(one.heading) for one in columns)} \\",
            r"\midrule",
            *(rf"{' & '.join(cells)} \\" for cells in lines),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def latex(text: str) -> str:
    """`text` with what LaTeX reads as commands written so that it is printed."""
    return "".join(_SIGNS.get(sign, sign) for sign in written_out(text))


def _cell(row: dict[str, Any], column: Column) -> str:
    value = row[column.name]
    said = _number(_in_words(value, load(column.words)) if column.words else value, column.form)
    if column.ends and all(pd.notna(row.get(end)) for end in column.ends):
        low, high = (_number(row[end], column.form) for end in column.ends)
        said += f" [{low}, {high}]"
    return latex(said)


def _in_words(value: Any, words: Mapping[Any, str] | Callable[[Any], str]) -> str:
    return words[value] if isinstance(words, Mapping) else words(value)


def _number(value: Any, form: str) -> str:
    if not pd.api.types.is_list_like(value) and pd.isna(value):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not form:
        return str(value)
    said = format(int(value) if form.endswith("d") else float(value), form)
    return said.replace("-", "−").replace("%", " %")

"""The questions that are asked of a scored run; one folder for each, declared in its `study.py`.

    study.py     the declaration: question, command, stages, tables, figures, pages
    tables.py    the columns that it adds
    measure.py   what it measures, with torch
    queries.py   its SQL
    rows.py      the rows of each figure, from the queries
    figures.py   the charts
    command.py   its command

A study goes through the run's batches again (`mmn.runs.reopen`), writes what it measured as shards of the run, with its
control beside it, and is resumed by the same call. Definitions: METHODS, Experiments; the tables: `docs/schema.md`.
`MODULES` is the one list of them; `registry` is what the rest of the program reads.
"""

from typing import Final

MODULES: Final[list[str]] = [
    "mmn.studies.scoring.study",
    "mmn.studies.modules.study",
    "mmn.studies.lens.study",
    "mmn.studies.annotate.study",
    "mmn.studies.invariance.study",
    "mmn.studies.specificity.study",
    "mmn.studies.selectivity.study",
    "mmn.studies.sensitivity.study",
    "mmn.studies.degradation.study",
    "mmn.studies.editing.study",
    "mmn.studies.circuits.study",
]

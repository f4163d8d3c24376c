"""What do units write, and do they look at their noun's object?"""

from __future__ import annotations

from typing import Final

from mmn.figures.figure import Figure
from mmn.studies.study import Page, Study

QUESTION: Final = "What do units write, and do they look at their noun's object?"

STUDY: Final = Study(
    "annotate",
    QUESTION,
    command="mmn.studies.annotate.command",
    stages={"decode": "decoding units", "annotate": "recording where units look"},
    tables="mmn.studies.annotate.tables:TABLES",
    figures=(
        Figure(
            "fields",
            "do top units look at their noun's object?",
            (),
            "mmn.studies.annotate.rows:fields",
            "mmn.studies.annotate.figures:field_overlaps",
            height=lambda data: 270 + 66 * data["method"].nunique(),
        ),
    ),
    pages=(
        Page(
            "neuron",
            "Neuron",
            ":material/hub:",
            "What does one unit write, for which pictures and nouns, and how does every score rank it?",
        ),
    ),
    bundled=("annotate latest --top 4 --methods contribution,contribution-folded,attribution",),
)

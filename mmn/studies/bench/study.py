"""Which method finds the units that matter?"""

from __future__ import annotations

from typing import Final

from mmn.figures.figure import Column, Figure
from mmn.studies.study import RELATED, Page, Study

QUESTION: Final = "Which method finds the units that matter, when it is known which they are?"
_HERE: Final = "mmn.studies.bench"

STUDY: Final = Study(
    "bench",
    QUESTION,
    command=f"{_HERE}.command",
    stages={"bench": "judging methods"},
    figures=(
        Figure(
            "bench",
            "how well each score finds the units that matter, by measure",
            ("model", "metric", "methods"),
            f"{_HERE}.rows:bench",
            f"{_HERE}.figures:bench",
            subject=f"{_HERE}.rows:subject",
            panels="metric",
            control="random units, as a score of their own",
            table=(
                Column("measure", "heading"),
                Column("score", "method"),
                Column("mean", "mean", ".2f", ends=("low", "high")),
            ),
            height=lambda data: 60 + 24 * len(data),
        ),
    ),
    pages=(Page("benchmark", "Benchmark", ":material/leaderboard:", QUESTION, RELATED),),
)

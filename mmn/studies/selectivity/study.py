"""Are units of a class active only in pictures of that class?

Measured by `mmn specificity`, and shown on its page.
"""

from __future__ import annotations

from typing import Final

from mmn.figures.figure import Figure
from mmn.studies.study import Study

QUESTION: Final = "Are units of a class active only in pictures of that class?"

STUDY: Final = Study(
    "selectivity",
    QUESTION,
    stages={"selectivity": "reading units on held-out pictures"},
    tables="mmn.studies.selectivity.tables:TABLES",
    figures=(
        Figure(
            "selectivity",
            "how active units of a class are in pictures of each class",
            ("methods", "concepts", "most"),
            "mmn.studies.selectivity.rows:selectivity",
            "mmn.studies.selectivity.figures:selectivity",
            control="random units of the same layers, a map of their own",
            height=lambda data: 280 + (30 if (n := data["unit_noun"].nunique()) <= 12 else 20) * n,
            panels="is_control",
        ),
    ),
)

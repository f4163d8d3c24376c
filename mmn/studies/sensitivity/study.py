"""Do the words that a noun's top units write fit the noun, the caption and the picture?"""

from __future__ import annotations

from typing import Final

from mmn.figures.figure import Figure
from mmn.studies.study import Measurement, Page, Study

QUESTION: Final = "Do the words that a noun's top units write fit the noun, the caption and the picture?"

STUDY: Final = Study(
    "sensitivity",
    QUESTION,
    command="mmn.studies.sensitivity.command",
    stages={"sensitivity": "comparing units' words"},
    tables="mmn.studies.sensitivity.tables:TABLES",
    figures=(
        Figure(
            "sensitivity",
            "how well top units' words fit",
            ("methods", "metric", "concepts", "layers"),
            "mmn.studies.sensitivity.rows:sensitivity",
            "mmn.studies.sensitivity.figures:sensitivity",
            height=lambda data: 310 + 30 * len(data),
            panels="metric",
        ),
    ),
    pages=(Page("sensitivity", "Sensitivity", ":material/translate:", QUESTION),),
    measurements={
        "": Measurement(
            ("sensitivity",),
            "Compares the decoded tokens of each noun's top units by a lexical measure that needs no further model. "
            "`--metrics` names others, some with a model of their own.",
            "sensitivity",
        )
    },
    bundled=("sensitivity latest",),
)

"""Do the words that a noun's top units write fit the noun, the caption and the picture?"""

from __future__ import annotations

from typing import Final

from mmn.figures.figure import Column, Figure
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
            pictures="mmn.studies.sensitivity.rows:pictures",
            control="words of another picture's units",
            table=(
                Column("measure", "metric", words="mmn.figures.wording:metric_words"),
                Column("score", "method"),
                Column("top units", "value", ".3f", ends=("value_low", "value_high")),
                Column("another picture's", "control", ".3f", ends=("control_low", "control_high")),
                Column("difference", "difference", ".3f", ends=("difference_low", "difference_high")),
                Column("pictures", "n_images", ",d"),
            ),
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

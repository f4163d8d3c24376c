"""Do attention and FFN modules, each read alone through the final norm, add up to a noun's logit?"""

from __future__ import annotations

from typing import Final

from mmn.figures.figure import Column, Figure
from mmn.studies.study import RELATED, Measurement, Page, Study

QUESTION: Final = "Do attention and FFN modules, each read alone through the final norm, add up to a noun's logit?"

STUDY: Final = Study(
    "modules",
    QUESTION,
    command="mmn.studies.modules.command",
    stages={"modules": "reading modules alone"},
    tables="mmn.studies.modules.tables:TABLES",
    figures=(
        Figure(
            "modules",
            "attention and FFN of each layer read alone, beside the budget of the logit",
            ("concepts",),
            "mmn.studies.modules.rows:modules",
            "mmn.studies.modules.figures:modules",
            control="the same of a word that another picture's caption says",
            height=lambda _data: 480,
            table=(
                Column("reading", "line"),
                Column("module", "part"),
                Column("layer", "layer", ",d"),
                Column("mean", "mean", ".3f", ends=("low", "high")),
            ),
        ),
    ),
    pages=(Page("modules", "Modules", ":material/stacked_line_chart:", QUESTION, RELATED),),
    measurements={
        "": Measurement(
            ("modules",),
            "Reads the captions of 50 pictures once more and projects what attention and FFN of each layer write, each "
            "alone. Seconds with the bundled model.",
            "module",
            button="Read modules alone",
        )
    },
    bundled=("modules latest --limit 48",),
)

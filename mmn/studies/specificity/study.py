"""Does a noun's top unit write that noun alone?"""

from __future__ import annotations

from typing import Final

from mmn.studies.study import Page, Study

QUESTION: Final = "Does a noun's top unit write that noun alone?"

STUDY: Final = Study(
    "specificity",
    QUESTION,
    command="mmn.studies.specificity.command",
    stages={"specificity": "scoring top units for other nouns"},
    tables="mmn.studies.specificity.tables:TABLES",
    pages=(Page("specificity", "Specificity", ":material/grid_on:", QUESTION),),
)

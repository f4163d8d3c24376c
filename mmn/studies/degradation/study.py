"""What is left of a noun, and of its caption, when units are switched off or put under noise?"""

from __future__ import annotations

from typing import Final

from mmn.studies.study import Page, Study

QUESTION: Final = "What is left of a noun, and of its caption, when units are switched off or put under noise?"

STUDY: Final = Study(
    "degradation",
    QUESTION,
    command="mmn.studies.degradation.command",
    stages={"degrade": "intervening on units"},
    tables="mmn.studies.degradation.tables:TABLES",
    pages=(Page("degradation", "Degradation", ":material/trending_down:", QUESTION),),
)

"""Do the same units write a noun when the picture is shuffled, and in other pictures of it?"""

from __future__ import annotations

from typing import Final

from mmn.studies.study import Page, Study

QUESTION: Final = "Do the same units write a noun when the picture is shuffled, and in other pictures of it?"

STUDY: Final = Study(
    "invariance",
    QUESTION,
    command="mmn.studies.invariance.command",
    stages={"invariance": "captioning shuffled pictures", "cross-image": "comparing pictures of a noun"},
    tables="mmn.studies.invariance.tables:TABLES",
    pages=(Page("invariance", "Invariance", ":material/shuffle:", QUESTION),),
)

"""Are units of a class active in pictures of that class alone?"""

from __future__ import annotations

from typing import Final

from mmn.studies.study import Study

QUESTION: Final = "Are units of a class active in pictures of that class alone?"

STUDY: Final = Study(
    "selectivity",
    QUESTION,
    stages={"selectivity": "reading units on held-out pictures"},
    tables="mmn.studies.selectivity.tables:TABLES",
)

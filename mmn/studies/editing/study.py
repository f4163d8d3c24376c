"""Can a few units be changed so that the model says another word, and what else changes then?"""

from __future__ import annotations

from typing import Final

from mmn.studies.study import Page, Study

QUESTION: Final = "Can a few units be changed so that the model says another word, and what else changes then?"

STUDY: Final = Study(
    "editing",
    QUESTION,
    command="mmn.studies.editing.command",
    stages={"edit": "editing, and captioning again"},
    tables="mmn.studies.editing.tables:TABLES",
    pages=(Page("edit", "Edit", ":material/edit:", QUESTION),),
)

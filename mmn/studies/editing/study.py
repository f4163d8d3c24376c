"""Can a few units be changed so that the model says another word, and what else changes then?"""

from __future__ import annotations

from typing import Final

from mmn.figures.figure import Column, Figure
from mmn.studies.study import Measurement, Page, Study

QUESTION: Final = "Can a few units be changed so that the model says another word, and what else changes then?"

STUDY: Final = Study(
    "editing",
    QUESTION,
    command="mmn.studies.editing.command",
    stages={"edit": "editing, and captioning again"},
    tables="mmn.studies.editing.tables:TABLES",
    figures=(
        Figure(
            "edit",
            "whether an edit did what it should and nothing else, with its controls",
            ("edit",),
            "mmn.studies.editing.rows:edit",
            "mmn.studies.editing.figures:editing",
            control="the same edit of random units, and other edits of the noun",
            table=(
                Column("edit", "label"),
                Column("measure", "role", words="mmn.studies.editing.shares:MEASURES"),
                Column("share", "mean", ".1%", ends=("low", "high")),
                Column("pictures", "n", ",d"),
            ),
            height=lambda _data: 380,
        ),
    ),
    pages=(Page("edit", "Edit", ":material/edit:", QUESTION),),
    measurements={
        "": Measurement(
            ("edit",),
            "Finds the change, then lets the edited copy caption pictures of the noun and unrelated ones. On the "
            "bundled model this takes a few minutes; no model is changed on disk.",
            "edit",
            button="Make this edit",
        )
    },
)

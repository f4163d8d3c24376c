"""Which few concepts make up the states that say a noun?"""

from __future__ import annotations

from typing import Final

from mmn.figures.figure import Column, Figure
from mmn.studies.study import RELATED, Measurement, Page, Study

QUESTION: Final = "Which few concepts make up the states that say a noun?"

STUDY: Final = Study(
    "dictionaries",
    QUESTION,
    command="mmn.studies.dictionaries.command",
    stages={"dictionaries": "reading states that say a noun"},
    tables="mmn.studies.dictionaries.tables:TABLES",
    figures=(
        Figure(
            "dictionaries",
            "how well a concept's words fit held-out pictures",
            ("metric", "concepts"),
            "mmn.studies.dictionaries.rows:dictionaries",
            "mmn.studies.dictionaries.figures:dictionaries",
            pictures="mmn.studies.dictionaries.rows:pictures",
            control="words of random directions, and the mean over all concepts of the dictionary",
            table=(
                Column("vectors", "site_words"),
                Column("dictionary", "kind"),
                Column("strongest concept", "value", ".3f", ends=("value_low", "value_high")),
                Column("any concept", "any_concept", ".3f"),
                Column("random directions", "random", ".3f"),
                Column("difference", "difference", ".3f", ends=("difference_low", "difference_high")),
                Column("pictures", "n", ",d"),
            ),
            height=lambda data: 130 + 40 * len(data),
            panels="metric",
        ),
        Figure(
            "dictionary-concepts",
            "a noun's concepts: their words, and the share of pictures in which each is strongest",
            ("noun", "dictionary"),
            "mmn.studies.dictionaries.rows:concepts",
            "mmn.studies.dictionaries.figures:concepts",
            control="the same on pictures that the dictionary was not made of",
            table=(
                Column("concept", "label"),
                Column("held-out pictures", "led_test", ".1%", ends=("low", "high")),
                Column("its own pictures", "led", ".1%"),
            ),
            height=lambda data: 180 + 30 * len(data),
        ),
    ),
    pages=(Page("dictionaries", "Concept dictionaries", ":material/category:", QUESTION, RELATED),),
    measurements={
        "": Measurement(
            ("dictionaries",),
            "Reads up to 200 captions of each of the three most frequent nouns once more, and finds up to 20 concepts "
            "in the states and in the units that say it. Seconds with the bundled model, minutes with a large one.",
            "dictionary",
        )
    },
    bundled=("dictionaries latest --limit 60 --k 8",),
)

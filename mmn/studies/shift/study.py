"""What did an edit, a LoRA or a fine-tune change, as concepts and as units?"""

from __future__ import annotations

from typing import Final

from mmn.figures.figure import Column, Figure
from mmn.studies.study import RELATED, Page, Study

QUESTION: Final = "What did an edit, a LoRA or a fine-tune change: which concepts of a noun, and which units?"

STUDY: Final = Study(
    "shift",
    QUESTION,
    command="mmn.studies.shift.command",
    stages={"shift": "reading one caption with two models"},
    tables="mmn.studies.shift.tables:TABLES",
    figures=(
        Figure(
            "shift",
            "how much closer a concept's delta brings states to the other model's",
            ("other", "concepts"),
            "mmn.studies.shift.rows:shift",
            "mmn.studies.shift.figures:shift",
            pictures="mmn.studies.shift.rows:pictures",
            control="random deltas of the same length, and the deltas of the other concepts",
            table=(
                Column("noun", "noun"),
                Column("gain by its delta", "gain", ".3f", ends=("gain_low", "gain_high")),
                Column("by another concept's", "gain_other", ".3f"),
                Column("by a random one", "gain_random", ".3f"),
                Column("cosine before", "cosine", ".3f"),
                Column("pictures", "n", ",d"),
            ),
            height=lambda data: 200 + 30 * len(data),
        ),
        Figure(
            "shift-concepts",
            "each concept's cosine with the other model's, before and after its delta",
            ("other", "noun"),
            "mmn.studies.shift.rows:concepts",
            "mmn.studies.shift.figures:concepts",
            control="random deltas of the same length",
            height=lambda data: 160 + 24 * len(data),
        ),
        Figure(
            "shift-layers",
            "how much the output of each layer's units changed",
            ("other", "concepts"),
            "mmn.studies.shift.rows:layers",
            "mmn.studies.shift.figures:layers",
            pictures="mmn.studies.shift.rows:layer_pictures",
            control="two pictures of the noun, in the first model",
        ),
    ),
    pages=(Page("shift", "Shift", ":material/difference:", QUESTION, RELATED),),
)

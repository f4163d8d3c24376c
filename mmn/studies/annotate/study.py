"""What do units write, and do they look at their noun's object?"""

from __future__ import annotations

from typing import Final

from mmn.figures.figure import Column, Figure
from mmn.studies.study import Page, Study

QUESTION: Final = "What do units write, and do they look at their noun's object?"

STUDY: Final = Study(
    "annotate",
    QUESTION,
    command="mmn.studies.annotate.command",
    stages={"decode": "decoding units", "annotate": "recording where units look"},
    tables="mmn.studies.annotate.tables:TABLES",
    figures=(
        Figure(
            "fields",
            "overlap of where top units look with their noun's object",
            (),
            "mmn.studies.annotate.rows:fields",
            "mmn.studies.annotate.figures:field_overlaps",
            pictures="mmn.studies.annotate.rows:pictures",
            control="the picture's other objects, and random units of the same layers",
            table=(
                Column("score", "method"),
                Column("units found on", "selection"),
                Column("IoU with the object", "iou", ".3f", ends=("iou_low", "iou_high")),
                Column("other objects", "iou_other", ".3f", ends=("iou_other_low", "iou_other_high")),
                Column("random units", "iou_random", ".3f", ends=("iou_random_low", "iou_random_high")),
                Column("pictures", "n_images", ",d"),
            ),
            height=lambda data: 270 + 66 * data["method"].nunique(),
        ),
    ),
    pages=(
        Page(
            "neuron",
            "Neuron",
            ":material/hub:",
            "What does one unit write, for which pictures and nouns, and how does every score rank it?",
        ),
    ),
    bundled=("annotate latest --top 4 --methods contribution,contribution-folded,attribution",),
)

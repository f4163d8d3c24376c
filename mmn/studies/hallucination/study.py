"""Does the model itself believe in the objects that it names?"""

from __future__ import annotations

from typing import Final

from mmn.figures.figure import Figure
from mmn.studies.study import RELATED, Measurement, Page, Study

QUESTION: Final = (
    "How confident is the model of the objects that it names, and what does it say when one is projected out?"
)
_ROWS: Final = "mmn.studies.hallucination.rows"
_CHARTS: Final = "mmn.studies.hallucination.figures"

STUDY: Final = Study(
    "hallucination",
    QUESTION,
    command="mmn.studies.hallucination.command",
    stages={
        "hallucination": "reading how sure image tokens are",
        "project-away": "projecting nouns out of the picture",
    },
    tables="mmn.studies.hallucination.tables:TABLES",
    figures=(
        Figure(
            "hallucination",
            "present against hallucinated objects of the captions, by internal confidence",
            (),
            f"{_ROWS}:of_named",
            f"{_CHARTS}:precision_recall",
            height=lambda _data: 400,
            control="another picture's confidence in the same object",
        ),
        Figure(
            "hallucination-objects",
            "present against absent objects, by internal confidence",
            (),
            f"{_ROWS}:of_vocabulary",
            f"{_CHARTS}:precision_recall",
            height=lambda _data: 400,
            control="another picture's confidence in the same object",
        ),
        Figure(
            "hallucination-confidence",
            "internal confidence of present, hallucinated and absent objects",
            (),
            f"{_ROWS}:confidences",
            f"{_CHARTS}:confidences",
            control="objects that are neither named nor present",
        ),
        Figure(
            "hallucination-maps",
            "how well maps of confidence cover the object",
            (),
            f"{_ROWS}:maps",
            f"{_CHARTS}:maps",
            control="the map of another object of the picture",
        ),
        Figure(
            "project-away",
            "captions before and after objects were projected out of the picture",
            (),
            f"{_ROWS}:project_away",
            f"{_CHARTS}:project_away",
            control="another object's direction, and a random one of the same length",
        ),
    ),
    pages=(Page("hallucination", "Hallucination", ":material/visibility_off:", QUESTION, RELATED),),
    measurements={
        "": Measurement(
            ("hallucination",),
            "Reads 50 pictures of the run once more and writes down how probable every object is at their image "
            "tokens. Seconds with the bundled model, minutes with a large one.",
            "confidence",
        ),
        "project-away": Measurement(
            ("hallucination", "--project-away"),
            "The same, and then each noun of a caption is projected out of the picture's tokens and the picture "
            "captioned again, beside two controls: about ten captions for each picture.",
            "projected_away",
            button="Project nouns out",
        ),
    },
    bundled=("hallucination latest --limit 64 --objects 64 --project-away",),
)

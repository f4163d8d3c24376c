"""Does the projector keep what a picture shows, and how similar are image and text states after it?"""

from __future__ import annotations

from typing import Final

from mmn.figures.figure import Column, Figure
from mmn.studies.study import RELATED, Measurement, Page, Study

QUESTION: Final = "Does the projector keep what a picture shows, and how similar are image and text states after it?"
_ROWS: Final = "mmn.studies.projector.rows"
_CHARTS: Final = "mmn.studies.projector.figures"

STUDY: Final = Study(
    "projector",
    QUESTION,
    command="mmn.studies.projector.command",
    stages={"projector": "looking at the projector"},
    tables="mmn.studies.projector.tables:TABLES",
    figures=(
        Figure(
            "projector",
            "what a probe reads from the mean image token before and after the projector",
            (),
            f"{_ROWS}:probe",
            f"{_CHARTS}:probe_f1",
            control="probes of shuffled labels",
            table=(
                Column("label", "label"),
                Column("classes", "classes", ",d"),
                Column("projector", "stage"),
                Column("labels", "line"),
                Column("macro F1", "mean", ".3f", ends=("low", "high")),
                Column("pictures", "n", ",d"),
            ),
            height=lambda data: 190 + 30 * len(data),
        ),
        Figure(
            "modalities",
            "similarity of image and caption states, by layer",
            (),
            f"{_ROWS}:modalities",
            f"{_CHARTS}:modality_cosines",
            pictures=f"{_ROWS}:modality_pictures",
            control="the caption of another picture",
            height=lambda _data: 440,
        ),
        Figure(
            "modality-units",
            "overlap of the units most active at image tokens and at caption tokens, by layer",
            (),
            f"{_ROWS}:units",
            f"{_CHARTS}:unit_overlaps",
            pictures=f"{_ROWS}:unit_pictures",
            control="the caption of another picture, and sets drawn by chance",
            height=lambda _data: 440,
        ),
    ),
    pages=(Page("projector", "Projector", ":material/filter_center_focus:", QUESTION, RELATED),),
    measurements={
        "": Measurement(
            ("projector",),
            "Reads 200 pictures of the run once more, each with its caption, and keeps their mean image tokens before "
            "and after the projector. A minute with the bundled model.",
            "projector_mean",
        )
    },
    bundled=("projector latest --limit 96",),
)

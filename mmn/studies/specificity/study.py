"""Does a noun's top unit write only that noun?"""

from __future__ import annotations

from typing import Any, Final

from mmn.figures.figure import Click, Column, Figure
from mmn.studies.study import Measurement, Page, Study

QUESTION: Final = "Does a noun's top unit write only that noun?"


def _height_of_map(data: Any) -> int:
    """Lines of more than 12 concepts, or nouns of a picture, have no numbers and are lower (`mmn.figures.heat_map`)."""
    n = data["unit_lemma" if "unit_lemma" in data else "unit_noun"].nunique()
    return 230 + (34 if n <= 12 else 22) * n


STUDY: Final = Study(
    "specificity",
    QUESTION,
    command="mmn.studies.specificity.command",
    stages={"specificity": "scoring top units for other nouns"},
    tables="mmn.studies.specificity.tables:TABLES",
    figures=(
        Figure(
            "specificity",
            "a noun's top unit scored for other nouns, of one picture (--image) or of concepts",
            ("methods", "image", "concepts", "layers", "most", "found_on"),
            "mmn.studies.specificity.rows:specificity",
            "mmn.studies.specificity.figures:specificity",
            control="random units of the same layers, a map of their own",
            height=_height_of_map,
            panels="is_control",
            click=Click("unit", ("layer", "unit")),
        ),
        Figure(
            "specificity-summary",
            "mean score of top units for their own noun and for others, as a share",
            ("methods", "concepts", "layers"),
            "mmn.studies.specificity.rows:specificity_summary",
            "mmn.studies.specificity.figures:specificity_summary",
            pictures="mmn.studies.specificity.rows:summary_pictures",
            control="random units of the same layers; for units of the picture itself a null with the same choice",
            table=(
                Column("score", "method"),
                Column("units found on", "selection"),
                Column("control", "is_control"),
                Column("own noun", "is_own"),
                Column("mean share", "share", ".3f", ends=("share_low", "share_high")),
                Column("pictures", "n_images", ",d"),
            ),
            height=lambda data: 300 + 14 * len(data),
        ),
        Figure(
            "specificity-highest",
            "how many units score highest for their own noun",
            ("methods", "concepts", "layers"),
            "mmn.studies.specificity.rows:highest_for_own_noun",
            "mmn.studies.specificity.figures:highest_for_own_noun",
            pictures="mmn.studies.specificity.rows:highest_pictures",
            control="random units of the same layers; for units of the picture itself a null with the same choice",
            table=(
                Column("score", "method"),
                Column("units found on", "selection"),
                Column("control", "is_control"),
                Column("own noun highest", "share", ".1%", ends=("share_low", "share_high")),
                Column("chance", "chance", ".1%"),
                Column("pictures", "n_images", ",d"),
            ),
            height=lambda data: 300 + 28 * len(data),
        ),
    ),
    pages=(Page("specificity", "Specificity", ":material/grid_on:", QUESTION),),
    measurements={
        "": Measurement(
            ("specificity",),
            "Reads each caption again and scores every noun's top unit of another picture, and the controls, for all "
            "nouns of the picture; then the activation of classes' units in held-out pictures. Less time than scoring "
            "the run.",
            "specificity",
        )
    },
    bundled=("specificity latest",),
)

"""Does a noun's top unit write that noun alone?"""

from __future__ import annotations

from typing import Any, Final

from mmn.figures.figure import Click, Figure
from mmn.studies.study import Measurement, Page, Study

QUESTION: Final = "Does a noun's top unit write that noun alone?"


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
            "a noun's top unit, scored for other nouns: of one picture (--image), or of concepts",
            ("methods", "image", "concepts", "layers", "most", "found_on"),
            "mmn.studies.specificity.rows:specificity",
            "mmn.studies.specificity.figures:specificity",
            height=_height_of_map,
            panels="is_control",
            click=Click("unit", ("layer", "unit")),
        ),
        Figure(
            "specificity-summary",
            "mean shares of top units for their own noun and for others",
            ("methods", "concepts", "layers"),
            "mmn.studies.specificity.rows:specificity_summary",
            "mmn.studies.specificity.figures:specificity_summary",
            height=lambda data: 300 + 14 * len(data),
        ),
        Figure(
            "specificity-highest",
            "how many units score highest for their own noun",
            ("methods", "concepts", "layers"),
            "mmn.studies.specificity.rows:highest_for_own_noun",
            "mmn.studies.specificity.figures:highest_for_own_noun",
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

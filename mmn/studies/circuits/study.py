"""Which units carry a noun from the picture to its logit, and are they enough?"""

from __future__ import annotations

from typing import Any, Final

from mmn.figures.figure import Click, Column, Figure
from mmn.studies.study import RELATED, Measurement, Page, Study

QUESTION: Final = "Which units carry a noun from the picture to its logit, and are they enough?"


def _height_of_graph(data: Any) -> int:
    """A line for each layer, and three more."""
    return 200 + 36 * (int(data["y"].max()) + 1)


STUDY: Final = Study(
    "circuits",
    QUESTION,
    command="mmn.studies.circuits.command",
    stages={"circuits": "finding circuits"},
    tables="mmn.studies.circuits.tables:TABLES",
    figures=(
        Figure(
            "circuit",
            "the units that carry a noun from the image tokens to its logit, and the edges between them",
            ("noun", "image", "derivative", "ks"),
            "mmn.studies.circuits.rows:circuit",
            "mmn.studies.circuits.figures:circuit",
            control="in the figure circuit-curve",
            height=_height_of_graph,
            click=Click("unit", ("layer", "unit")),
        ),
        Figure(
            "circuit-curve",
            "what is left of a noun with only its circuit, and without it",
            ("noun", "image", "derivative", "ks", "measure"),
            "mmn.studies.circuits.rows:circuit_curve",
            "mmn.studies.circuits.figures:circuit_curve",
            pictures="mmn.studies.circuits.rows:curve_pictures",
            control="as many random units of each layer, and the circuit of another noun",
            table=(
                Column("units", "line"),
                Column("a layer", "size", ",d"),
                Column("mean", "mean", ".3f", ends=("low", "high")),
                Column("pictures", "n", ",d"),
            ),
            height=lambda _data: 440,
        ),
    ),
    pages=(Page("circuits", "Circuits", ":material/account_tree:", QUESTION, RELATED),),
    measurements={
        "": Measurement(
            ("circuits",),
            "Finds five units of each layer for each of the three nouns that most pictures say, on up to eight "
            "pictures of each, and lets the model predict the noun in sixteen others with these units alone, then with "
            "all but these. About two minutes for each noun with the bundled model.",
            "circuit",
        )
    },
    bundled=("circuits latest --limit 8 --draws 1",),
)

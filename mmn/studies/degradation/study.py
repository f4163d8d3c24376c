"""What is left of a noun, and of its caption, when units are zeroed, multiplied or given noise?"""

from __future__ import annotations

from typing import Final

from mmn.figures.figure import Column, Figure
from mmn.names import ABLATE, PERTURB, SCALE
from mmn.studies.study import Measurement, Page, Study

QUESTION: Final = "What is left of a noun, and of its caption, when units are zeroed, multiplied or given noise?"
_OF_NOUNS: Final = ("methods", "concepts", "layers", "nouns")

STUDY: Final = Study(
    "degradation",
    QUESTION,
    command="mmn.studies.degradation.command",
    stages={"degrade": "intervening on units"},
    tables="mmn.studies.degradation.tables:TABLES",
    figures=(
        Figure(
            "degradation",
            "what is left of a noun as more of its units are zeroed",
            (*_OF_NOUNS, "measure", "metric"),
            "mmn.studies.degradation.rows:degradation",
            "mmn.studies.degradation.figures:degradation",
            pictures="mmn.studies.degradation.rows:degradation_pictures",
            control="as many random units of the same layers",
            table=(
                Column("score", "method"),
                Column("units", "selection", words="mmn.studies.degradation.curves:SELECTION_WORDS"),
                Column("zeroed", "positions", words="mmn.studies.degradation.curves:POSITION_WORDS"),
                Column("k", "k", ",d"),
                Column("mean", "mean", ".3f", ends=("low", "high")),
                Column("pictures", "n", ",d"),
            ),
            height=lambda _data: 420,
        ),
        Figure(
            "perturbation",
            "what is left of a noun as noise is added to its units",
            (*_OF_NOUNS, "measure", "metric", "against", "sigma_unit"),
            "mmn.studies.degradation.rows:perturbation",
            "mmn.studies.degradation.figures:perturbation",
            pictures="mmn.studies.degradation.rows:perturbation_pictures",
            control="the same noise on as many random units",
            table=(
                Column("score", "method"),
                Column("units", "selection", words="mmn.studies.degradation.curves:SELECTION_WORDS"),
                Column("k", "k", ",d"),
                Column("sigma", "sigma", ".3g"),
                Column("mean", "mean", ".3f", ends=("low", "high")),
                Column("pictures", "n", ",d"),
            ),
            height=lambda _data: 440,
        ),
        Figure(
            "scaling",
            "what is left of a noun as its units are multiplied",
            (*_OF_NOUNS, "measure", "metric", "against"),
            "mmn.studies.degradation.rows:scaling",
            "mmn.studies.degradation.figures:scaling",
            control="as many random units of the same layers, multiplied alike",
            table=(
                Column("score", "method"),
                Column("units", "selection"),
                Column("k", "k", ",d"),
                Column("factor", "factor", ".3g"),
                Column("mean", "mean", ".3f", ends=("low", "high")),
                Column("pictures", "n", ",d"),
            ),
            height=lambda _data: 440,
        ),
        Figure(
            "ablated-layers",
            "in which layers the zeroed units lie",
            (*_OF_NOUNS, "ks"),
            "mmn.studies.degradation.rows:ablated_layers",
            "mmn.studies.degradation.figures:ablated_layers",
            height=lambda _data: 260,
        ),
    ),
    pages=(Page("degradation", "Degradation", ":material/trending_down:", QUESTION),),
    measurements={
        ABLATE: Measurement(
            ("degrade", "--kind", ABLATE),
            "Sets each noun's top units to 0, more and more of them, beside random units of the same layers and "
            "another picture's top units, and lets the model caption again; for the first eight pictures it reads text "
            "under each change, too. The bundled model takes about seven seconds for each picture, half a minute with "
            "text.",
            "effect",
            ABLATE,
        ),
        SCALE: Measurement(
            ("degrade", "--kind", SCALE),
            "Multiplies each noun's top units by 0.5, by 2 and by 4, more and more of them, beside random units of the "
            "same layers and another picture's top units, and lets the model caption again; for the first eight "
            "pictures it reads text under each change, too. The bundled model takes about fifteen seconds for each "
            "picture.",
            "effect",
            SCALE,
        ),
        PERTURB: Measurement(
            ("degrade", "--kind", PERTURB),
            "Adds noise to the weights of each noun's top units, beside random units and another picture's, and lets "
            "the model caption again; for the first eight pictures it reads text under each change, too. The bundled "
            "model takes about seven seconds for each picture, half a minute with text.",
            "effect",
            PERTURB,
        ),
    },
    bundled=(
        "degrade latest --kind ablate --no-captions --draws 1 --limit 32 --method contribution-folded,attribution",
    ),
)

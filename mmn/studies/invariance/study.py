"""Do the same units write a noun when the picture is shuffled, and in other pictures of it?"""

from __future__ import annotations

from typing import Final

from mmn.figures.figure import Column, Figure
from mmn.names import CROSS_IMAGE, REGION
from mmn.studies.study import Measurement, Page, Study

QUESTION: Final = "Do the same units write a noun when the picture is shuffled, and in other pictures of it?"
ROW: Final = 19  # pixels of a concept
_TAKES: Final = ("methods", "ks", "concepts", "layers")

STUDY: Final = Study(
    "invariance",
    QUESTION,
    command="mmn.studies.invariance.command",
    stages={"invariance": "captioning shuffled pictures", "cross-image": "comparing pictures of a noun"},
    tables="mmn.studies.invariance.tables:TABLES",
    figures=(
        Figure(
            "invariance",
            "top units that stay when image tokens are shuffled",
            _TAKES,
            "mmn.studies.invariance.rows:curves",
            "mmn.studies.invariance.figures:curves",
            pictures="mmn.studies.invariance.rows:pictures",
            control="another noun of the same picture, and chance",
            table=(
                Column("score", "method"),
                Column("k", "k", ",d"),
                Column("same noun", "ratio", ".1%", ends=("ratio_low", "ratio_high")),
                Column(
                    "another noun", "floor_other_noun", ".1%", ends=("floor_other_noun_low", "floor_other_noun_high")
                ),
                Column("chance", "floor_random", ".2%"),
                Column("pictures", "n_images", ",d"),
            ),
            height=lambda _data: 480,
        ),
        Figure(
            "invariance-concepts",
            "the same at one k, concept by concept",
            _TAKES,
            "mmn.studies.invariance.rows:by_concept",
            "mmn.studies.invariance.figures:by_concept",
            control="another noun of the same picture, and chance",
            table=(
                Column("concept", "lemma"),
                Column("same noun", "ratio", ".1%", ends=("ratio_low", "ratio_high")),
                Column("another noun", "floor_other_noun", ".1%"),
                Column("chance", "floor_random", ".2%"),
                Column("pictures", "n_images", ",d"),
            ),
            height=lambda data: 220 + ROW * len(data),
        ),
        Figure(
            "invariance-layers",
            "the same at one k, layer by layer",
            _TAKES,
            "mmn.studies.invariance.rows:by_layer",
            "mmn.studies.invariance.figures:by_layer",
            control="random units in the layers of the shuffled ranking",
            height=lambda _data: 380,
        ),
        Figure(
            "cross-image",
            "top units that pictures of a noun share",
            (*_TAKES, "pictures"),
            "mmn.studies.invariance.rows:cross_image",
            "mmn.studies.invariance.cross_image_figures:by_concept",
            control="random units in the same layers",
            table=(
                Column("concept", "noun"),
                Column("units in common", "ratio", ".1%"),
                Column("random units", "floor_random", ".2%"),
                Column("draws", "n_draws", ",d"),
            ),
            height=lambda data: 190 + ROW * len(data),
        ),
        Figure(
            "cross-image-layers",
            "the layers of these shared units",
            (*_TAKES, "pictures"),
            "mmn.studies.invariance.rows:cross_image_by_layer",
            "mmn.studies.invariance.cross_image_figures:by_layer",
            control="random units in the same layers",
            height=lambda _data: 380,
        ),
    ),
    pages=(Page("invariance", "Invariance", ":material/shuffle:", QUESTION),),
    measurements={
        REGION: Measurement(
            ("invariance", "--kind", REGION),
            "Captions and scores every picture again under each of five permutations of its image tokens: about five "
            "times as long as scoring the run.",
            "invariance",
            REGION,
        ),
        CROSS_IMAGE: Measurement(
            ("invariance", "--kind", CROSS_IMAGE),
            "Compares the rankings that the run has; no model is needed. Only nouns that the captions of at least five "
            "pictures say enter: a run of few pictures may have none.",
            "invariance",
            CROSS_IMAGE,
        ),
    },
    bundled=("invariance latest --kind cross-image", "invariance latest --kind region --draws 1 --limit 64"),
)

"""Which units write each noun of a caption, and in which layers do they lie?"""

from __future__ import annotations

from typing import Final

from mmn.figures.figure import Click, Column, Figure
from mmn.studies.study import Page, Study

QUESTION: Final = "Which units write each noun of a caption, and in which layers do they lie?"
_HERE: Final = "mmn.studies.scoring"

STUDY: Final = Study(
    "scoring",
    QUESTION,
    command=f"{_HERE}.command",
    stages={"score": "scoring"},
    tables=f"{_HERE}.tables:TABLES",
    figures=(
        Figure(
            "layers",
            "top units per layer",
            ("methods", "ks", "shares", "concepts", "layers", "quantity", "units", "generality", "words_by", "control"),
            f"{_HERE}.rows:layers",
            f"{_HERE}.layer_figures:layer_distribution",
            pictures=f"{_HERE}.rows:layers_pictures",
            control="random units, as many for each picture",
            height=lambda _data: 420,
            panels="method",
            click=Click("layer", ("k", "layer")),
        ),
        Figure(
            "comparison",
            "top units that two scores share, by k",
            ("methods", "ks", "shares", "concepts"),
            f"{_HERE}.rows:comparison",
            f"{_HERE}.comparison_figures:ranking_overlap",
            control="chance: two independent rankings",
            table=(
                Column("k", "k", ",d"),
                Column("in both", "overlap", ".1%", ends=("overlap_low", "overlap_high")),
                Column("chance", "chance", ".2%"),
            ),
        ),
        Figure(
            "budget",
            "what a noun's logit is made of",
            ("image", "noun", "rival", "grey"),
            f"{_HERE}.rows:budget",
            f"{_HERE}.budget_figures:logit_budget",
            panels="noun",
        ),
        Figure(
            "top-share",
            "the share of a noun's logit that its top units add up to",
            ("image", "noun", "rival", "ks", "shares", "generality"),
            f"{_HERE}.rows:top_share",
            f"{_HERE}.budget_figures:top_share",
            table=(
                Column("concept", "noun"),
                Column("k", "k", ",d"),
                Column("share of the logit", "share", ".1%"),
            ),
        ),
        Figure(
            "tokens",
            "what a unit writes",
            ("neuron", "words_by"),
            f"{_HERE}.rows:tokens",
            f"{_HERE}.unit_figures:decoded_tokens",
            table=(
                Column("token", "token"),
                Column("logit", "logit", ".3f"),
            ),
            height=lambda _data: 320,
        ),
    ),
    pages=(
        Page(
            "layers",
            "Layers",
            ":material/stacked_bar_chart:",
            "In which layers do the units lie that write the captions' nouns?",
        ),
        Page(
            "image",
            "Image",
            ":material/image_search:",
            "Which units write each noun of a picture's caption, and where in the picture do they look?",
        ),
    ),
)

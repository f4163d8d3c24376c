"""Which units are specific to a domain of pictures, to text tokens or to image tokens?"""

from __future__ import annotations

from typing import Final

from mmn.figures.figure import Column, Figure
from mmn.studies.study import RELATED, Measurement, Page, Study

QUESTION: Final = "Which units are specific to a domain of pictures, to text tokens or to image tokens?"
_SCOPE: Final = ("by", "rule")

STUDY: Final = Study(
    "domains",
    QUESTION,
    command="mmn.studies.domains.command",
    stages={"domains": "counting where units are active"},
    tables="mmn.studies.domains.tables:TABLES",
    figures=(
        Figure(
            "domain-layers",
            "units of each domain or modality per layer",
            _SCOPE,
            "mmn.studies.domains.rows:domain_layers",
            "mmn.studies.domains.figures:domain_layers",
            control="as many units spread evenly over the layers; and the groups of each half of the pictures",
            height=lambda data: 210 + 70 * data["group"].nunique(),
            panels="group",
        ),
        Figure(
            "domain-overlap",
            "the share of top units in each domain or modality",
            (*_SCOPE, "ks", "shares"),
            "mmn.studies.domains.rows:domain_overlap",
            "mmn.studies.domains.figures:domain_overlap",
            control="random units of the same layers as the top units",
            table=(
                Column("units of", "group"),
                Column("score", "method"),
                Column("mean", "mean", ".3f", ends=("low", "high")),
                Column("random", "matched", ".3f"),
                Column("n", "n", ",d"),
            ),
            height=lambda data: 240 + 22 * len(data),
            panels="group",
        ),
        Figure(
            "domain-ablation",
            "what is left of nouns when a domain's or modality's units are zeroed",
            _SCOPE,
            "mmn.studies.domains.rows:domain_ablation",
            "mmn.studies.domains.figures:domain_ablation",
            control="as many random units of the same layers",
            table=(
                Column("group", "group"),
                Column("pictures", "pictures"),
                Column("zeroed", "selection"),
                Column("units", "k", ",d"),
                Column("mean", "mean", ".3f", ends=("low", "high")),
                Column("n", "n", ",d"),
            ),
            height=lambda data: 260 + 18 * len(data),
        ),
    ),
    pages=(Page("domains", "Domains", ":material/donut_small:", QUESTION, RELATED),),
    measurements={
        "": Measurement(
            ("domains",),
            "Reads pictures of the six most frequent nouns once more, each with its caption, and counts at how many "
            "text and image tokens every unit is active. Seconds with the bundled model, minutes with a large one.",
            "domain_rate",
        ),
        "ablate": Measurement(
            ("domains", "--ablate", "--ablate-limit", "32"),
            "Sets each group's units to 0, beside random units of the same layers, and measures what is left of the "
            "nouns of 32 pictures. About a minute with the bundled model.",
            "effect",
            button="Switch groups off",
        ),
    },
    bundled=("domains latest --domains 3 --most 16",),
)

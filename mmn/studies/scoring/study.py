"""Which units write each noun of a caption, and in which layers do they lie?"""

from __future__ import annotations

from typing import Final

from mmn.studies.study import Page, Study

QUESTION: Final = "Which units write each noun of a caption, and in which layers do they lie?"

STUDY: Final = Study(
    "scoring",
    QUESTION,
    command="mmn.studies.scoring.command",
    stages={"score": "scoring"},
    tables="mmn.studies.scoring.tables:TABLES",
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

"""What do a picture's image tokens say, read as words?"""

from __future__ import annotations

from typing import Final

from mmn.figures.figure import Figure
from mmn.studies.study import Measurement, Page, Study

QUESTION: Final = "What do a picture's image tokens say, read as words?"

STUDY: Final = Study(
    "lens",
    QUESTION,
    command="mmn.studies.lens.command",
    stages={"lens": "reading image tokens as words"},
    tables="mmn.studies.lens.tables:TABLES",
    figures=(
        Figure(
            "lens",
            "nearest words of image tokens and random vectors",
            (),
            "mmn.studies.lens.rows:lens",
            "mmn.studies.lens.figures:nearest_cosines",
            control="random vectors of the same spread",
        ),
        Figure(
            "lens-layers",
            "image tokens that say a noun, by layer",
            (),
            "mmn.studies.lens.rows:lens_layers",
            "mmn.studies.lens.figures:noun_shares",
            pictures="mmn.studies.lens.rows:pictures",
            control="image tokens elsewhere in the picture, where outlines are known",
            height=lambda _data: 400,
        ),
    ),
    pages=(Page("lens", "Lens", ":material/search:", QUESTION),),
    measurements={
        "": Measurement(
            ("lens",),
            "Reads 50 pictures of the run once more and writes down the words that each of their image tokens is "
            "nearest to, and those that it would say after every layer. Seconds with the bundled model, minutes with "
            "a large one.",
            "lens",
            "logit-lens",  # the rows of random vectors are not a picture's
            "Read image tokens",
        )
    },
    bundled=("lens latest --limit 64 --top 3",),
)

"""What do a picture's states say when the same decoder reads them in a prompt of text alone?"""

from __future__ import annotations

from typing import Final

from mmn.figures.figure import Figure
from mmn.studies.study import RELATED, Measurement, Page, Study

QUESTION: Final = "What does the decoder say when it reads the state of a noun or an image token in a text prompt?"
_CONTROL: Final = "the logit lens of the same states, another picture's state and a random state in their place"
_ROWS: Final = "mmn.studies.patchscopes.rows"
_CHARTS: Final = "mmn.studies.patchscopes.figures"

STUDY: Final = Study(
    "patchscopes",
    QUESTION,
    command="mmn.studies.patchscopes.command",
    stages={"patchscopes": "reading states in a text prompt"},
    tables="mmn.studies.patchscopes.tables:TABLES",
    figures=(
        Figure(
            "patchscopes",
            "nouns that are said when their state is read in a text prompt, by layer",
            ("concepts", "setting"),
            f"{_ROWS}:nouns_read",
            f"{_CHARTS}:noun_precision",
            pictures=f"{_ROWS}:noun_pictures",
            control=_CONTROL,
            height=lambda _data: 400,
        ),
        Figure(
            "patchscopes-surprisal",
            "surprisal of a noun when its state is read in a text prompt, by layer",
            ("concepts", "setting"),
            f"{_ROWS}:surprisals",
            f"{_CHARTS}:noun_surprisal",
            pictures=f"{_ROWS}:surprisal_pictures",
            control=_CONTROL,
            height=lambda _data: 400,
        ),
        Figure(
            "patchscopes-image",
            "image tokens that say a noun when read in a text prompt, by layer",
            ("setting",),
            f"{_ROWS}:image_tokens_read",
            f"{_CHARTS}:image_tokens",
            pictures=f"{_ROWS}:image_pictures",
            control=f"{_CONTROL}; image tokens elsewhere in the picture, where outlines are known",
            height=lambda _data: 420,
        ),
        Figure(
            "neighbours",
            "image tokens whose nearest word in sentences fits their picture, by layer",
            (),
            f"{_ROWS}:neighbours",
            f"{_CHARTS}:company",
            pictures=f"{_ROWS}:neighbour_pictures",
            control="another picture's image tokens, and words drawn at random from the sentences",
            height=lambda _data: 420,
        ),
    ),
    pages=(Page("patchscopes", "Patchscopes", ":material/quick_reference_all:", QUESTION, RELATED),),
    measurements={
        "": Measurement(
            ("patchscopes",),
            "Reads 50 pictures of the run once more, and what the states of their nouns and of 16 of their image "
            "tokens say in a text prompt, layer by layer. A minute with the bundled model, hours with a large one "
            "without a GPU.",
            "patchscope",
            button="Read states",
        ),
        "neighbours": Measurement(
            ("patchscopes", "--neighbours"),
            "The same, and then which words in plain sentences, and in the run's own texts, have the states nearest to "
            "each image token.",
            "neighbour",
            button="Find neighbours",
        ),
    },
    bundled=("patchscopes latest --limit 16 --image-tokens 8 --neighbours",),
)
